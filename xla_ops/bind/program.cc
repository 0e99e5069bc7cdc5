// The custom call that runs a whole program: found by name when an executable is made, then owned
// by it.
#include <mutex>

#include "bind/arrays.h"
#include "bind/program_store.h"

namespace sparsejax {
namespace {

struct ProgramState {
  static ffi::TypeId id;
  static ffi::TypeInfo info;
  std::shared_ptr<Executable> executable;
};
ffi::TypeId ProgramState::id = {};
ffi::TypeInfo ProgramState::info = ffi::MakeTypeInfo<ProgramState>();

ffi::ErrorOr<std::unique_ptr<ProgramState>> Instantiate(std::string_view name) {
  auto state = std::make_unique<ProgramState>();
  ffi::Error error =
      guarded("compiled function", [&] { state->executable = find_program(std::string(name)); });
  if (error.failure()) return ffi::Unexpected(std::move(error));
  if (!state->executable)
    return ffi::Unexpected(ffi::Error(
        ffi::ErrorCode::kNotFound,
        "compiled function: its packed weights are gone; keep what sj.compile returned for as long "
        "as functions that call it are compiled, and do not load them from another process."));
  return state;
}

// One operand or result: dimensions in front of one image count as images.
Array read_images(const char* kind, const ffi::AnyBuffer& buffer, const Step& step,
                  const ImageSize& size) {
  const std::string name = kind + (" " + std::to_string(step.argument));
  Array array(name, buffer, ffi::F32, step.rank);
  need(array.slice_size == size.floats(), [&] {
    return name + " needs " + std::to_string(size.floats()) + " floats an image, got shape " +
           text(array.sizes);
  });
  return array;
}

struct Border {
  std::vector<Array> operands, results;

  Batch batch() const {
    const auto all = [](const std::vector<Array>& arrays) {
      std::vector<const Array*> pointers;
      for (const Array& array : arrays) pointers.push_back(&array);
      return pointers;
    };
    return Batch(all(results), all(operands));
  }
};

Border read_border(const Program& program, ffi::RemainingArgs& args, ffi::RemainingRets& rets) {
  need(static_cast<int64_t>(args.size()) == program.num_operands &&
           static_cast<int64_t>(rets.size()) == program.num_results,
       [] { return std::string("another number of operands or results than the program has"); });
  Border border;
  border.operands.resize(args.size());
  border.results.resize(rets.size());
  for (const Step& step : program.steps) {
    if (step.op == Op::kInput)
      border.operands[step.argument] =
          read_images("operand", args.get<ffi::AnyBuffer>(step.argument).value(), step,
                      program.values[step.output]);
    if (step.op == Op::kOutput)
      border.results[step.argument] =
          read_images("result", *rets.get<ffi::AnyBuffer>(step.argument).value(), step,
                      program.values[step.inputs[0]]);
  }
  return border;
}

ffi::Error Run(ProgramState* state, ffi::ThreadPool threads, ffi::RemainingArgs args,
               ffi::RemainingRets rets, std::string_view) {
  return guarded("compiled function", [&] {
    Executable& executable = *state->executable;
    const Border border = read_border(executable.program(), args, rets);
    const Batch batch = border.batch();
    auto run = [&](int64_t image, const ThreadPool& pool) {
      std::vector<const float*> operands;
      std::vector<float*> results;
      for (const Array& array : border.operands) operands.push_back(batch.at<float>(array, image));
      for (const Array& array : border.results) results.push_back(batch.at<float>(array, image));
      executable.run_image(pool, operands.data(), results.data());
    };
    const ThreadPool pool = pool_of(threads);
    if (batch.size() < pool.num_threads) {
      for (int64_t image = 0; image < batch.size(); image++) run(image, pool);
    } else {
      parallel_for(pool, batch.size(), [&](int64_t image) { run(image, ThreadPool{}); });
    }
  });
}

XLA_FFI_DEFINE_HANDLER(kInstantiate, Instantiate,
                       ffi::Ffi::BindInstantiate().Attr<std::string_view>("program"));

}  // namespace
}  // namespace sparsejax

using namespace sparsejax;

// The type is registered by the handler's first call, which carries XLA's API: registered
// from Python it would come too late for the targets. An error belongs to whoever gets it, so the
// next call tries again.
extern "C" XLA_FFI_Error* sparsejax_program_instantiate(XLA_FFI_CallFrame* frame) {
  static std::mutex mutex;
  static bool registered = false;
  {
    std::lock_guard<std::mutex> lock(mutex);
    if (!registered)
      if (XLA_FFI_Error* error = ffi::Ffi::RegisterTypeId(frame->api, "sparsejax.program",
                                                          &ProgramState::id, ProgramState::info))
        return error;
    registered = true;
  }
  return kInstantiate(frame);
}
XLA_FFI_DEFINE_HANDLER_SYMBOL(sparsejax_program, Run,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::State<ProgramState>>()
                                  .Ctx<ffi::ThreadPool>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<std::string_view>("program"));
