// The C interface: what it refuses, threads at once, and no allocation in a second run.
#include <atomic>
#include <cstdlib>
#include <new>

#include "files.h"
#include "runtime/sparsejax.h"

namespace {

std::atomic<int64_t> allocations{0};
std::atomic<int64_t> left{INT64_MAX};  // until one fails

void* allocated(size_t size) {
  allocations++;
  return left-- == 0 ? nullptr : std::malloc(size ? size : 1);
}

}  // namespace

__attribute__((noinline)) void* operator new(size_t size) {
  if (void* memory = allocated(size)) return memory;
  throw std::bad_alloc();
}
__attribute__((noinline)) void* operator new(size_t size, const std::nothrow_t&) noexcept {
  return allocated(size);
}
__attribute__((noinline)) void operator delete(void* memory) noexcept { std::free(memory); }
__attribute__((noinline)) void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace sparsejax::test {
namespace {

constexpr ImageSize kIn = {4, 12, 10}, kOut = {6, 1, 1};

// Images of 12x10 through a convolution, a depthwise one, and a mean.
Draft images() {
  Draft d;
  std::mt19937 generator(1);
  const auto weigh = [&](Step& step, int64_t rows, int64_t cols) {
    step.weights = d.keep(rows * cols, cols, generator);
    step.bias = d.keep(rows, 4, generator);
  };
  Step& input = d.add(Op::kInput, kIn, {});
  input.argument = 0, input.rank = 3, input.channels_last = true;
  Step& product = d.add(Op::kProduct, {6, 10, 8}, {0});
  product.window.kernel_y = product.window.kernel_x = 3;
  weigh(product, 6, 36);
  Step& depthwise = d.add(Op::kDepthwise, {6, 10, 8}, {1});
  depthwise.window.kernel_y = depthwise.window.kernel_x = 3;
  depthwise.pad_top = depthwise.window.pad_left = 1;
  weigh(depthwise, 6, 9);
  d.add(Op::kMean, kOut, {2});
  Step& output = d.add(Op::kOutput, {}, {3});
  output.argument = 0, output.rank = 1, output.channels_last = true;
  return d;
}

// Three rows of four numbers through a product.
Draft rows() {
  Draft d;
  std::mt19937 generator(1);
  Step& input = d.add(Op::kInput, {4, 3, 1}, {});
  input.argument = 0, input.rank = 3, input.channels_last = true;
  Step& product = d.add(Op::kProduct, {5, 3, 1}, {0});
  product.weights = d.keep(20, 4, generator);
  product.bias = d.keep(5, 4, generator);
  Step& output = d.add(Op::kOutput, {}, {1});
  output.argument = 0, output.rank = 3, output.channels_last = true;
  return d;
}

sparsejax_model* loaded(const Draft& draft, bool of_rows = false) {
  Choices none(nullptr, 0);
  const std::vector<uint8_t> file = file_of(draft, none, of_rows);
  sparsejax_model* model = nullptr;
  const sparsejax_status status = sparsejax_load(file.data(), file.size(), &model);
  expect(status == SPARSEJAX_OK, std::string("a model is loaded: ") + sparsejax_last_error());
  return model;
}

sparsejax_buffer buffer(Floats& floats) {
  return {floats.data(), static_cast<size_t>(floats.size())};
}

void test_description() {
  sparsejax_model* model = loaded(rows(), true);
  sparsejax_port port;
  expect(sparsejax_num_inputs(model) == 1 && sparsejax_num_outputs(model) == 1, "ports");
  expect(sparsejax_output(model, 0, &port) == SPARSEJAX_OK && port.rank == 3 &&
             port.shape[0] == SPARSEJAX_BATCH && port.shape[1] == 3 && port.shape[2] == 5 &&
             port.item_floats == 15 && std::string(port.name) == "p",
         "an output is described");
  expect(sparsejax_input(model, 1, &port) == SPARSEJAX_BAD_ARGUMENT, "there is one input");
  sparsejax_free(model);
  sparsejax_free(nullptr);
}

// Rows of many items run in parts; each item is what it is alone.
void test_rows() {
  sparsejax_model* model = loaded(rows(), true);
  constexpr int64_t kItems = 1000;
  Floats x = random_floats(12 * kItems), y(15 * kItems), one(15);
  const sparsejax_buffer in = buffer(x), out = buffer(y), alone = buffer(one);
  for (int32_t threads : {1, 4}) {
    sparsejax_set_threads(model, threads);
    expect(sparsejax_run(model, kItems, &in, &out) == SPARSEJAX_OK, sparsejax_last_error());
    for (int64_t item : {0, 341, 999}) {
      const sparsejax_buffer part = {x.data() + 12 * item, 12};
      sparsejax_run(model, 1, &part, &alone);
      bool same = true;
      for (int64_t i = 0; i < 15; i++) same = same && std::abs(one[i] - y[15 * item + i]) < 1e-5;
      expect(same, "an item of many is that item");
    }
  }
  expect(sparsejax_run(model, 0, &in, &out) == SPARSEJAX_BAD_ARGUMENT, "no items need no floats");
  sparsejax_free(model);
}

// The columns of a large window over wide rows: 256 KB of weights, 8 GB of columns.
void test_a_greedy_file() {
  Draft d;
  Step& input = d.add(Op::kInput, {1024, 33, 4111}, {});
  input.argument = 0, input.rank = 3, input.channels_last = true;
  Step& product = d.add(Op::kProduct, {1, 18, 4096}, {0});
  product.window.kernel_y = product.window.kernel_x = 16;
  product.weights = 0;
  product.bias = 1024 * 256;
  d.floats.resize(1024 * 256 + 1);
  Step& output = d.add(Op::kOutput, {}, {1});
  output.argument = 0, output.rank = 3, output.channels_last = true;
  Choices none(nullptr, 0);
  const std::vector<uint8_t> file = file_of(d, none);
  sparsejax_model* model = nullptr;
  expect(sparsejax_load(file.data(), file.size(), &model) == SPARSEJAX_BAD_FILE && !model &&
             std::strstr(sparsejax_last_error(), "more than 2 GiB"),
         std::string("a greedy file: ") + sparsejax_last_error());
}

void test_refusals() {
  sparsejax_model* model = loaded(images());
  Floats x = random_floats(2 * kIn.floats()), y(2 * kOut.floats());
  const sparsejax_buffer in = buffer(x), out = buffer(y);
  expect(sparsejax_run(model, 2, &in, &out) == SPARSEJAX_OK, sparsejax_last_error());
  const sparsejax_buffer none = {nullptr, in.floats}, few = {x.data(), in.floats - 1};
  const sparsejax_buffer odd = {reinterpret_cast<float*>(reinterpret_cast<char*>(x.data()) + 1),
                                in.floats};
  const sparsejax_buffer within = {x.data() + 3, out.floats};
  const auto refused = [&](const sparsejax_buffer* a, const sparsejax_buffer* b, const char* what) {
    expect(sparsejax_run(model, 2, a, b) == SPARSEJAX_BAD_ARGUMENT &&
               std::strstr(sparsejax_last_error(), what),
           std::string("refused with '") + what + "': " + sparsejax_last_error());
  };
  refused(nullptr, &out, "needs buffers");
  refused(&none, &out, "p needs 2 items of 480 aligned floats, got 0");
  refused(&few, &out, "got 959");
  refused(&odd, &out, "not aligned");
  refused(&in, &within, "overlaps");
  expect(sparsejax_run(model, -1, &in, &out) == SPARSEJAX_BAD_ARGUMENT, "a batch below 0");
  expect(sparsejax_run(nullptr, 1, &in, &out) == SPARSEJAX_BAD_ARGUMENT, "no model");
  for (int32_t threads : {0, -1, 257})
    expect(sparsejax_set_threads(model, threads) == SPARSEJAX_BAD_ARGUMENT, "too few or many");
  sparsejax_free(model);
  expect(sparsejax_load(nullptr, 0, &model) == SPARSEJAX_BAD_ARGUMENT && !model, "no bytes");
  expect(sparsejax_load("12345678", 8, &model) == SPARSEJAX_BAD_FILE && !model, "no file");
  expect(sparsejax_load("12345678", 8, nullptr) == SPARSEJAX_BAD_ARGUMENT, "no place for it");
}

void test_many_threads() {
  sparsejax_model* model = loaded(images());
  Floats x = random_floats(5 * kIn.floats()), expected(5 * kOut.floats());
  const sparsejax_buffer in = buffer(x), out = buffer(expected);
  sparsejax_run(model, 5, &in, &out);
  std::atomic<int> right{0};
  Threads callers;
  const ThreadPool pool = callers.pool(4);
  for (int caller = 0; caller < 4; caller++)
    pool.schedule([&, caller] {
      for (int run = 0; run < 5; run++) {
        Floats y(5 * kOut.floats());
        const sparsejax_buffer own = buffer(y);
        if (caller == 0) sparsejax_set_threads(model, 1 + run % 3);
        right += sparsejax_run(model, 5, &in, &own) == SPARSEJAX_OK && y.same_bits(expected);
      }
    });
  callers.join();
  expect(right == 20, "callers and changes of threads disturb nobody");
  sparsejax_free(model);
}

// A loop of four turns of two items, whatever threads there are.
sparsejax_model* looping(Floats& x, Floats& y, Floats& h) {
  const uint8_t bytes[] = {3, 3, 1, 5, 1, 0, 1, 0, 0, 0};
  Choices choices(bytes, sizeof(bytes));
  const std::vector<uint8_t> file = looped_file(choices);
  sparsejax_model* model = nullptr;
  sparsejax_load(file.data(), file.size(), &model);
  expect(model != nullptr, sparsejax_last_error());
  sparsejax_port port;
  Floats* const ends[] = {&x, &h, &y};
  for (int32_t i = 0; i < 3; i++) {
    i < 2 ? sparsejax_input(model, i, &port) : sparsejax_output(model, 0, &port);
    *ends[i] = random_floats(2 * port.item_floats);
  }
  return model;
}

void test_loops() {
  Floats x(0), y(0), h(0);
  sparsejax_model* model = looping(x, y, h);
  const sparsejax_buffer in[] = {buffer(x), buffer(h)}, out = buffer(y);
  expect(sparsejax_run(model, 2, in, &out) == SPARSEJAX_OK, sparsejax_last_error());
  const std::vector<float> expected(y.data(), y.data() + y.size());
  const int64_t before = allocations;
  sparsejax_run(model, 2, in, &out);
  expect(allocations == before, "allocations: " + std::to_string(allocations - before));
  sparsejax_set_threads(model, 3);
  sparsejax_run(model, 2, in, &out);
  expect(std::equal(expected.begin(), expected.end(), y.data()), "threads change nothing");
  sparsejax_free(model);
}

void test_second_run_allocates_nothing() {
  for (bool of_rows : {false, true}) {
    sparsejax_model* model = loaded(of_rows ? rows() : images(), of_rows);
    Floats x = random_floats(2 * kIn.floats()), y(30);
    const sparsejax_buffer in = {x.data(), static_cast<size_t>(of_rows ? 24 : 2 * kIn.floats())};
    const sparsejax_buffer out = {y.data(), static_cast<size_t>(of_rows ? 30 : 12)};
    expect(sparsejax_run(model, 2, &in, &out) == SPARSEJAX_OK, sparsejax_last_error());
    const int64_t before = allocations;
    sparsejax_run(model, 2, &in, &out);
    expect(allocations == before, "allocations: " + std::to_string(allocations - before));
    sparsejax_free(model);
  }
}

// Whichever allocation of loading and running fails, the call says so and the next one works.
void test_no_memory() {
  Choices none(nullptr, 0);
  const std::vector<uint8_t> file = file_of(images(), none);
  Floats x = random_floats(kIn.floats()), y(kOut.floats());
  const sparsejax_buffer in = buffer(x), out = buffer(y);
  int64_t failed = 0, refused = 0;  // some allocations are done without
  for (bool done = false; !done; failed++) {
    sparsejax_model* model = nullptr;
    left = failed;
    sparsejax_status status = sparsejax_load(file.data(), file.size(), &model);
    if (status == SPARSEJAX_OK) status = sparsejax_set_threads(model, 2);
    if (status == SPARSEJAX_OK) status = sparsejax_run(model, 1, &in, &out);
    done = left > 0;
    left = INT64_MAX;
    refused += status == SPARSEJAX_NO_MEMORY || status == SPARSEJAX_FAILED;
    expect(status == SPARSEJAX_OK || !done, "with all memory there is");
    if (model) expect(sparsejax_run(model, 1, &in, &out) == SPARSEJAX_OK, "a run after it");
    sparsejax_free(model);
  }
  expect(refused > failed / 2, std::to_string(refused) + " refused of " + std::to_string(failed));
}

const Test loops(test_loops);
const Test no_memory(test_no_memory);
const Test description(test_description), of_rows(test_rows), refusals(test_refusals),
    greedy(test_a_greedy_file);
const Test many_threads(test_many_threads), second_run(test_second_run_allocates_nothing);

}  // namespace
}  // namespace sparsejax::test
