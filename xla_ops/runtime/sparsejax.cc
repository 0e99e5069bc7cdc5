// The C interface; see sparsejax.h.
#include "runtime/sparsejax.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <new>

#include "kernels/kernels.h"
#include "runtime/sequence_runs.h"
#include "runtime/workers.h"
#include "threads/float_mode.h"

using namespace sparsejax;

namespace {

constexpr bool kHasThreads = SPARSEJAX_THREADS || SPARSEJAX_SHARED_MEMORY;
constexpr int64_t kMostThreads = kHasThreads ? 256 : 1;
constexpr int64_t kMostScratch = int64_t{1} << 29;  // floats of a run on one thread, 2 GiB

thread_local char last_error[512] = "";

sparsejax_status fail(sparsejax_status status, const char* what) {
  std::strncpy(last_error, what, sizeof(last_error) - 1);  // printf is 20 KB of WebAssembly
  return status;
}

// No exception leaves the library.
template <class F>
sparsejax_status guarded(const F& f) {
#ifdef __cpp_exceptions
  try {
    return f();
  } catch (const std::bad_alloc&) {
    return fail(SPARSEJAX_NO_MEMORY, "there is not enough memory");
  } catch (const std::exception& error) {
    return fail(SPARSEJAX_FAILED, error.what());
  } catch (...) {
    return fail(SPARSEJAX_FAILED, "something unknown was thrown");
  }
#else
  return f();
#endif
}

struct Described {
  Port port;
  int64_t item_floats;
};

std::vector<Described> described(const std::vector<Port>& ports) {
  std::vector<Described> out;
  for (const Port& port : ports) out.push_back({port, item_floats(port)});
  return out;
}

struct Threads {
  explicit Threads(int64_t threads) : workers(threads - 1) {
    pool.num_threads = threads;
    pool.schedule = [this](std::function<void()> task) { workers.schedule(std::move(task)); };
  }
  Workers workers;
  ThreadPool pool;
};

}  // namespace

struct sparsejax_model {
  explicit sparsejax_model(Model read) : model(std::move(read)) {
    inputs = described(model.inputs);
    outputs = described(model.outputs);
    is_batch_free = model.inputs[0].shape[0] == kBatch;
    model.graph = {};
    for (SavedProgram& saved : model.programs)
      programs.push_back(std::make_unique<ProgramRuns>(std::move(saved), stores));
    if (model.is_sequence) sequence = std::make_unique<SequenceRuns>(model, programs, stores);
  }

  bool is_greedy() const {
    return std::any_of(programs.begin(), programs.end(), [](const std::unique_ptr<ProgramRuns>& p) {
      return p->scratch_floats() > kMostScratch;
    });
  }

  void run(const Team& team, int64_t batch, const float* const* operands, float* const* results) {
    if (sequence) return sequence->run(team, batch, operands, results);
    programs[0]->run(team, batch, operands, results);
  }

  std::shared_ptr<Threads> team() {
    const Lock lock(mutex);
    return threads;
  }

  Model model;
  const std::shared_ptr<Stores> stores = std::make_shared<Stores>();
  std::vector<Described> inputs, outputs;
  bool is_batch_free = false;
  std::vector<std::unique_ptr<ProgramRuns>> programs;
  std::unique_ptr<SequenceRuns> sequence;  // of several
  Mutex mutex;                             // of what follows
  std::shared_ptr<Threads> threads;
};

namespace {

bool overlap(const sparsejax_buffer& a, const sparsejax_buffer& b) {
  const auto begin = [](const sparsejax_buffer& x) { return reinterpret_cast<uintptr_t>(x.data); };
  return begin(a) < begin(b) + b.floats * sizeof(float) &&
         begin(b) < begin(a) + a.floats * sizeof(float);
}

sparsejax_status check_buffer(const Described& wanted, int64_t batch,
                              const sparsejax_buffer& buffer) {
  const bool fits = buffer.data && batch <= INT64_MAX / wanted.item_floats &&
                    buffer.floats == static_cast<size_t>(batch * wanted.item_floats);
  const bool aligned = reinterpret_cast<uintptr_t>(buffer.data) % alignof(float) == 0;
  if (fits && aligned) return SPARSEJAX_OK;
  const std::string what = wanted.port.name + " needs " + std::to_string(batch) + " items of " +
                           std::to_string(wanted.item_floats) + " aligned floats, got " +
                           std::to_string(buffer.data ? buffer.floats : 0) +
                           (aligned ? "" : " that are not aligned");
  return fail(SPARSEJAX_BAD_ARGUMENT, what.c_str());
}

sparsejax_status check_run(const sparsejax_model& model, int64_t batch,
                           const sparsejax_buffer* inputs, const sparsejax_buffer* outputs) {
  if (!inputs || !outputs)
    return fail(SPARSEJAX_BAD_ARGUMENT, "a run needs buffers for inputs and outputs");
  if (batch < 0 || (!model.is_batch_free && batch != 1))
    return fail(SPARSEJAX_BAD_ARGUMENT,
                "a batch needs to be 0 or more, and 1 where it is not free");
  for (size_t i = 0; i < model.inputs.size(); i++)
    if (const auto bad = check_buffer(model.inputs[i], batch, inputs[i])) return bad;
  for (size_t i = 0; i < model.outputs.size(); i++) {
    if (const auto bad = check_buffer(model.outputs[i], batch, outputs[i])) return bad;
    bool apart = true;
    for (size_t j = 0; j < i; j++) apart = apart && !overlap(outputs[i], outputs[j]);
    for (size_t j = 0; j < model.inputs.size(); j++)
      apart = apart && !overlap(outputs[i], inputs[j]);
    if (!apart) return fail(SPARSEJAX_BAD_ARGUMENT, "an output overlaps another buffer");
  }
  return SPARSEJAX_OK;
}

void run_items(sparsejax_model& model, const ThreadPool& pool, int64_t batch,
               const sparsejax_buffer* inputs, const sparsejax_buffer* outputs) {
  thread_local Pointers pointers;
  pointers.clear();
  for (size_t i = 0; i < model.inputs.size(); i++) pointers.operands.push_back(inputs[i].data);
  for (size_t i = 0; i < model.outputs.size(); i++) pointers.results.push_back(outputs[i].data);
  const Team team(pool, batch < pool.num_threads ? kPieces : pool.num_threads);
  model.run(team, batch, pointers.operands.data(), pointers.results.data());
}

sparsejax_status describe(const std::vector<Described>& ports, int32_t index,
                          sparsejax_port* port) {
  if (!port || index < 0 || index >= static_cast<int32_t>(ports.size()))
    return fail(SPARSEJAX_BAD_ARGUMENT, "there is no input or output of that number");
  const Described& found = ports[index];
  *port = {found.port.name.c_str(), static_cast<int32_t>(found.port.shape.size()),
           found.port.shape.data(), found.item_floats};
  return SPARSEJAX_OK;
}

}  // namespace

sparsejax_status sparsejax_load(const void* bytes, size_t size, sparsejax_model** model) {
  if (!model) return fail(SPARSEJAX_BAD_ARGUMENT, "loading needs a place for the model");
  *model = nullptr;
  if (!bytes || size > static_cast<size_t>(INT64_MAX))
    return fail(SPARSEJAX_BAD_ARGUMENT, "loading needs the bytes of a file");
  return guarded([&] {
    if (usable_kernels().empty())
      return fail(SPARSEJAX_FAILED,
                  "this CPU has none of the instruction sets that the library was built for");
    Model read;
    const std::string wrong = read_model(static_cast<const uint8_t*>(bytes),
                                         static_cast<int64_t>(size), kernels().isa, read);
    if (!wrong.empty()) return fail(SPARSEJAX_BAD_FILE, wrong.c_str());
    std::unique_ptr<sparsejax_model> made(new sparsejax_model(std::move(read)));
    if (made->is_greedy()) return fail(SPARSEJAX_BAD_FILE, "file: a run takes more than 2 GiB");
    *model = made.release();
    return SPARSEJAX_OK;
  });
}

void sparsejax_free(sparsejax_model* model) { delete model; }

int32_t sparsejax_num_inputs(const sparsejax_model* model) {
  return model ? static_cast<int32_t>(model->inputs.size()) : 0;
}

int32_t sparsejax_num_outputs(const sparsejax_model* model) {
  return model ? static_cast<int32_t>(model->outputs.size()) : 0;
}

sparsejax_status sparsejax_input(const sparsejax_model* model, int32_t index,
                                 sparsejax_port* port) {
  if (!model) return fail(SPARSEJAX_BAD_ARGUMENT, "there is no model");
  return describe(model->inputs, index, port);
}

sparsejax_status sparsejax_output(const sparsejax_model* model, int32_t index,
                                  sparsejax_port* port) {
  if (!model) return fail(SPARSEJAX_BAD_ARGUMENT, "there is no model");
  return describe(model->outputs, index, port);
}

sparsejax_status sparsejax_set_threads(sparsejax_model* model, int32_t threads) {
  if (!model) return fail(SPARSEJAX_BAD_ARGUMENT, "there is no model");
  if (threads < 1 || threads > kMostThreads)
    return fail(SPARSEJAX_BAD_ARGUMENT, kHasThreads
                                            ? "threads need to be 1 to 256"
                                            : "this build has no threads: 1 is all there is");
  return guarded([&] {
    std::shared_ptr<Threads> made = threads > 1 ? std::make_shared<Threads>(threads) : nullptr;
    const Lock lock(model->mutex);
    model->threads.swap(made);
    return SPARSEJAX_OK;
  });
}

sparsejax_status sparsejax_run(sparsejax_model* model, int64_t batch,
                               const sparsejax_buffer* inputs, const sparsejax_buffer* outputs) {
  if (!model) return fail(SPARSEJAX_BAD_ARGUMENT, "there is no model");
  return guarded([&] {
    if (const auto bad = check_run(*model, batch, inputs, outputs)) return bad;
    const FloatMode flushed(flushing_denormals());
    const std::shared_ptr<Threads> threads = model->team();
    run_items(*model, threads ? threads->pool : ThreadPool{}, batch, inputs, outputs);
    return SPARSEJAX_OK;
  });
}

const char* sparsejax_last_error(void) { return last_error; }

const char* sparsejax_kernels(void) { return usable_kernels().empty() ? "" : kernels().isa; }
