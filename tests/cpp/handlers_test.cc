// The custom calls themselves: a batch is its slices, what does not fit is refused, and nothing is
// read or written beyond its end, whatever comes.
#include <algorithm>

#include "../../xla_ops/program_store.h"
#include "calls.h"
#include "programs.h"

namespace sparsejax::test {
namespace {

constexpr int64_t kHuge = int64_t{1} << 62;

std::vector<Tensor>& side(Call& call, bool results) {
  return results ? call.results : call.operands;
}

// f(array) for each operand and result of a call.
template <class F>
void for_each_array(const Call& call, const F& f) {
  for (bool results : {false, true})
    for (size_t i = 0; i < side(const_cast<Call&>(call), results).size(); i++) f(results, i);
}

// Memory for the dimensions that a tensor says it has.
void fit(Tensor& tensor) { tensor.words.resize(tensor.elements()); }

bool same_words(const Tensor& a, const Tensor& b) { return a.words == b.words; }

// Slices of `batch` one by one, against the batch.
void expect_slices(Call batch, const std::string& what) {
  const std::string said = batch.run();
  expect(said.empty(), what + ": " + said);
  for (int64_t s = 0; s < 2; s++) {
    Call one = batch;
    for_each_array(batch, [&](bool results, size_t i) {
      Tensor& tensor = side(one, results)[i];
      tensor = tensor.slice(tensor.dims[0] == 1 ? 0 : s, tensor.dims[0]);
      if (results) std::fill(tensor.words.begin(), tensor.words.end(), 0u);
    });
    const std::string alone = one.run();
    expect(alone.empty(), what + ", alone: " + alone);
    for (size_t r = 0; r < one.results.size(); r++)
      expect(same_words(one.results[r], batch.results[r].slice(s, 2)),
             what + ": a batch is its slices");
  }
}

void test_batches() {
  for (Call call : valid_calls({2})) {
    for (int64_t threads : {1, 3}) {
      call.num_threads = threads;
      expect_slices(call, call.name);
    }
    call.has_pool = false;
    expect_slices(call, call.name + " without a pool");
    for (size_t i = 0; i < call.operands.size(); i++) {
      Call broadcast = call;
      Tensor& tensor = broadcast.operands[i];
      tensor = tensor.slice(0, 2);
      tensor.dims.insert(tensor.dims.begin(), 1);
      expect_slices(broadcast, call.name + ", operand " + std::to_string(i) + " broadcast");
    }
  }
  for (Call call : valid_calls({2, 0})) expect(call.run().empty(), call.name + " of no slices");
}

struct ArrayDamage {
  const char* name;
  void (*apply)(Tensor&);
};
const ArrayDamage kDamages[] = {
    {"more slices", [](Tensor& t) { t.dims[0] = 3; }},
    {"fewer slices", [](Tensor& t) { t.dims[0] = 0; }},
    {"no leading dimension", [](Tensor& t) { t.dims.erase(t.dims.begin()); }},
    {"a leading dimension too many", [](Tensor& t) { t.dims.insert(t.dims.begin(), 1); }},
    {"leading dimensions alone", [](Tensor& t) { t.dims.resize(1); }},
    {"no dimensions", [](Tensor& t) { t.dims.clear(); }},
    {"another dtype", [](Tensor& t) { t.dtype = XLA_FFI_DataType_U32; }},
    {"a dtype of 8 bytes", [](Tensor& t) { t.dtype = XLA_FFI_DataType_S64; }},
};
const ArrayDamage kFakes[] = {
    // no memory has these sizes
    {"a negative size", [](Tensor& t) { t.dims.back() = -1; }},
    {"negative slices", [](Tensor& t) { t.dims[0] = -2; }},
    {"a huge size", [](Tensor& t) { t.dims.back() = kHuge; }},
    {"sizes that overflow", [](Tensor& t) { t.dims.insert(t.dims.begin(), {kHuge, 4}); }},
    {"overflow hidden by a 0", [](Tensor& t) { t.dims.insert(t.dims.begin(), {kHuge, 4, 0}); }},
    {"an odd address", [](Tensor& t) { t.shift = 1; }},
    {"an address between floats", [](Tensor& t) { t.shift = 2; }},
};

void test_arrays_are_refused() {
  for (const Call& call : valid_calls({2}))
    for_each_array(call, [&](bool results, size_t i) {
      const auto expect_refused = [&](const ArrayDamage& damage, bool with_memory) {
        Call bad = call;
        Tensor& tensor = side(bad, results)[i];
        damage.apply(tensor);
        if (with_memory) fit(tensor);
        expect(!bad.run().empty(), call.name + (results ? " result " : " operand ") +
                                       std::to_string(i) + ": " + damage.name);
      };
      for (const ArrayDamage& damage : kDamages) expect_refused(damage, true);
      for (const ArrayDamage& damage : kFakes) expect_refused(damage, false);
      for (int64_t more : {-1, 1})  // refused or harmless: a kernel may have more taps
        for (size_t d = 1; d < side(const_cast<Call&>(call), results)[i].dims.size(); d++) {
          Call other = call;
          Tensor& tensor = side(other, results)[i];
          tensor.dims[d] += more;
          fit(tensor);
          other.run();
        }
      if (!results) return;
      for_each_array(call, [&](bool other_results, size_t other) {
        if (other_results && other == i) return;
        Call bad = call;
        Tensor &a = side(bad, true)[i], &b = side(bad, other_results)[other];
        Tensor& larger = a.words.size() > b.words.size() ? a : b;
        (&larger == &a ? b : a).elsewhere = larger.words.data();
        expect(!bad.run().empty(), call.name + ": results share no memory");
      });
    });
}

void test_indices_and_attributes() {
  for (const Call& call : valid_calls({2})) {
    for (size_t i = 0; i < call.operands.size(); i++) {
      if (call.operands[i].dtype != XLA_FFI_DataType_S32) continue;
      for (size_t at = 0; at < call.operands[i].words.size(); at++)
        for (uint32_t word : {0xffffffffu, 0x7fffffffu, 0x80000000u, 100u, 0u}) {
          Call bad = call;
          bad.operands[i].words[at] = word;
          expect(!bad.run().empty() || word == 0, call.name + ": an index that is none");
        }
    }
    for (const auto& [name, attribute] : call.attributes)
      for (size_t at = 0; attribute.kind != Attribute::kFlag && at < attribute.numbers.size(); at++)
        for (int64_t number :
             {int64_t{-1}, int64_t{0}, int64_t{3}, int64_t{1} << 31, kHuge, -kHuge}) {
          Call bad = call;
          bad.attributes[name].numbers[at] = number;
          const bool far = number > 3 || number < -1 || (number < 0 && name != "pads");
          expect(!bad.run().empty() || !far, call.name + ": " + name);
        }
  }
}

Call instantiation(const std::string& name) {
  Call make = {sparsejax_program_instantiate, {}, {}, {}, "instantiate"};
  make.attributes["program"] = {{}, Attribute::kText, name};
  return make;
}

void test_programs() {
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
    Dims dims(step.index[1], 1);
    dims.back() = program.values[input ? step.output : step.inputs[0]].floats();
    dims.insert(dims.begin(), 2);
    (input ? call.operands : call.results)[step.index[0]] = float_tensor(dims);
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
  });
  Call fewer = call;
  fewer.operands.pop_back();
  expect(!run(fewer).empty(), "a program without its operand");
  delete_state(state);
}

}  // namespace

void call_by_bytes(const uint8_t* bytes, size_t size) {
  Choices choices(bytes, size);
  const Dims leadings[] = {{}, {2}, {1}, {2, 3}, {0}};
  std::vector<Call> calls = valid_calls(leadings[choices.below(5)]);
  Call& call = calls[choices.below(static_cast<int64_t>(calls.size()))];
  call.num_threads = choices.of({1, 1, 3});
  for (int64_t n = choices.below(5); n > 0; n--) {
    const bool results = choices.percent(40);
    std::vector<Tensor>& tensors = side(call, results);
    Tensor& tensor = tensors[choices.below(static_cast<int64_t>(tensors.size()))];
    const int64_t kind = choices.below(4);
    if (kind == 0 && !tensor.dims.empty()) {
      tensor.dims[choices.below(static_cast<int64_t>(tensor.dims.size()))] = choices.below(10);
    } else if (kind == 1) {
      if (choices.percent(50) || tensor.dims.empty())
        tensor.dims.insert(tensor.dims.begin(), choices.below(4));
      else
        tensor.dims.erase(tensor.dims.begin());
    } else if (kind == 2 && !tensor.words.empty()) {
      tensor.words[choices.below(static_cast<int64_t>(tensor.words.size()))] =
          static_cast<uint32_t>(choices.of({0, 1, 2, 3, 4, 7, -1, INT32_MAX, INT32_MIN}));
    } else if (kind == 3) {
      auto attribute = std::next(call.attributes.begin(),
                                 choices.below(static_cast<int64_t>(call.attributes.size())));
      std::vector<int64_t>& numbers = attribute->second.numbers;
      if (attribute->second.kind == Attribute::kFlag) {
        numbers[0] ^= 1;
        continue;
      }
      numbers[choices.below(static_cast<int64_t>(numbers.size()))] =
          choices.of({0, 1, 2, 3, 4, 5, 8, -1, -3, 31, 33, int64_t{1} << 31, INT32_MAX, kHuge,
                      -kHuge, choices.below(100)});
    }
    fit(tensor);
  }
  call.run();
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

void test_handlers() {
  test_batches();
  test_arrays_are_refused();
  test_indices_and_attributes();
  test_programs();
  for (int64_t trial = 0; trial < 3000; trial++) {
    const std::vector<uint8_t> bytes = random_bytes(40);
    call_by_bytes(bytes.data(), bytes.size());
  }
  expect(living_errors == 0, "errors are destroyed once");
}

}  // namespace sparsejax::test
