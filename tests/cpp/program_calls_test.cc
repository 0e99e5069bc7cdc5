// The custom calls of programs: found by name, refused where an array does not fit.
#include "bind/program_store.h"
#include "calls.h"
#include "programs.h"

namespace sparsejax::test {
namespace {

Call instantiation(const std::string& name) {
  Call make = {sparsejax_program_instantiate, {}, {}, {}, "instantiate"};
  make.attributes["program"] = {{}, Attribute::kText, name};
  return make;
}

void test_program_calls(const Kernels&) {
  const std::vector<uint8_t> bytes = random_bytes(300);
  Choices choices(bytes.data(), bytes.size());
  const Draft draft = random_draft(choices);
  const std::vector<int64_t> words = draft.words();
  const auto held =
      load_program("a program", words.data(), static_cast<int64_t>(words.size()),
                   draft.floats.data(), static_cast<int64_t>(draft.floats.size()), {24, 60});
  void* state = nullptr;
  Call make = instantiation("a program");
  expect(make.run(XLA_FFI_ExecutionStage_INSTANTIATE, &state).empty() && state, "instantiated");
  make.attributes["program"].text = "another";
  void* none = nullptr;
  expect(!make.run(XLA_FFI_ExecutionStage_INSTANTIATE, &none).empty() && !none, "no such program");

  const Program& program = held->program();
  Call call = {sparsejax_program, {}, {}, make.attributes, "program"};
  call.operands.resize(program.num_operands);
  call.results.resize(program.num_results);
  for (const Step& step : program.steps) {
    const bool input = step.op == Op::kInput;
    if (!input && step.op != Op::kOutput) continue;
    Dims dims(step.rank, 1);
    dims.back() = program.values[input ? step.output : step.inputs[0]].floats();
    dims.insert(dims.begin(), 2);
    (input ? call.operands : call.results)[step.argument] = float_tensor(dims);
  }
  const auto run = [&](Call& c) { return c.run(XLA_FFI_ExecutionStage_EXECUTE, &state); };
  for (int64_t threads : {1, 2, 5}) {
    call.num_threads = threads;
    expect(run(call).empty(), "a program of two images");
  }
  for_each_array(call, [&](bool results, size_t i) {
    for (const ArrayDamage& damage : kDamages) {
      if (results && call.results.size() == 1 && call.operands.size() == 1 && damage.name[0] != 'a')
        continue;
      Call bad = call;
      Tensor& tensor = side(bad, results)[i];
      damage.apply(tensor);
      fit(tensor);
      const bool all = call.results.size() == 1 && results;  // it alone says how many slices
      expect(!run(bad).empty() || all, std::string("program: ") + damage.name);
    }
    for (const ArrayDamage& damage : kFakes) {
      Call bad = call;
      damage.apply(side(bad, results)[i]);
      expect(!run(bad).empty(), std::string("program: ") + damage.name);
    }
    for (int64_t more : {-1, 1}) {
      Call bad = call;
      side(bad, results)[i].dims.back() += more;
      fit(side(bad, results)[i]);
      expect(!run(bad).empty(), "program: another size of an image");
    }
    Call more = call;
    side(more, results).push_back(side(more, results).back());
    expect(!run(more).empty(), "program: an array too many");
  });
  Call fewer = call;
  fewer.operands.pop_back();
  expect(!run(fewer).empty(), "a program without its operand");
  fewer = call;
  fewer.results.pop_back();
  expect(!run(fewer).empty(), "a program without its result");
  delete_state(state);
  expect(living_errors == 0, "errors are destroyed once");
}

void test_registration() {
  Call make = instantiation("no program");
  void* state = nullptr;
  for (const char* said : {"no types today", "nor tomorrow"}) {
    registration_error = said;
    expect(make.run(XLA_FFI_ExecutionStage_INSTANTIATE, &state) == said, "an error comes once");
  }
  registration_error.clear();
}

const Test program_calls(test_program_calls), registration(test_registration);

}  // namespace
}  // namespace sparsejax::test
