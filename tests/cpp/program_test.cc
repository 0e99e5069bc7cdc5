// Whole programs: values, the same bits for any number of threads and at once, and no harm from
// damaged ones.
#include <atomic>
#include <stdexcept>

#include "engine/strips.h"
#include "programs.h"

namespace sparsejax::test {
namespace {

bool same(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b) {
  for (size_t i = 0; i < a.size(); i++)
    if (std::memcmp(a[i].data(), b[i].data(), a[i].size() * sizeof(float)) != 0) return false;
  return true;
}

Draft any_draft() {
  const std::vector<uint8_t> bytes = random_bytes(400);
  Choices choices(bytes.data(), bytes.size());
  return random_draft(choices);
}

void test_values(const Kernels& kernels) {
  for (int64_t trial = 0; trial < 300; trial++) {
    const std::vector<uint8_t> bytes = random_bytes(400);
    const std::string problem = program_problem(kernels, bytes.data(), bytes.size());
    expect(problem.empty(), std::string(kernels.isa) + " program: " + problem);
  }
}

void test_threads(const Kernels& kernels) {
  for (int64_t trial = 0; trial < 20; trial++) {
    Executable executable(parse(any_draft()), kernels, {24, 60, trial % 2 * 1000});
    const Run run(executable.program());
    const auto alone = run.on(executable, ThreadPool{});
    for (int64_t threads : {2, 3, 7}) {
      Threads pool;
      expect(same(alone, run.on(executable, pool.pool(threads))), "threads change no bit");
    }
    Threads callers;
    std::atomic<int> right{0};
    const ThreadPool pool = callers.pool(3);
    for (int64_t i = 0; i < 3; i++)
      pool.schedule([&] { right += same(alone, run.on(executable, ThreadPool{})); });
    callers.join();
    expect(right == 3, "callers do not disturb each other");
  }
}

// A pool that fails leaves neither memory nor helpers behind, and the next run is right.
void test_failing_pool(const Kernels& kernels) {
  Executable executable(parse(any_draft()), kernels, {24, 60});
  const Run run(executable.program());
  const auto alone = run.on(executable, ThreadPool{});
  Threads pool;
  int64_t scheduled = 0;
  const ThreadPool good = pool.pool(4);
  const ThreadPool failing = {4, [&](std::function<void()> task) {
                                if (++scheduled == 3) throw std::runtime_error("no more threads");
                                good.schedule(std::move(task));
                              }};
  bool thrown = false;
  try {
    run.on(executable, failing);
  } catch (const std::runtime_error&) {
    thrown = true;
  }
  pool.join();
  expect(thrown, "a failing pool is reported");
  expect(same(alone, run.on(executable, good)), "a run after a failed one");
  const ThreadPool at_once = {4, [](std::function<void()> task) { task(); }};
  expect(same(alone, run.on(executable, at_once)), "a pool that runs its tasks at once");
}

void test_memory_is_reused(const Kernels& kernels) {
  const auto stores = std::make_shared<Stores>();
  KeptMemory& memory = stores->memory;
  Executable executable(parse(any_draft()), kernels, {24, 60}, stores);
  const Run run(executable.program());
  run.on(executable, ThreadPool{});
  const int64_t before = memory.amount().pieces;
  for (int64_t i = 0; i < 100; i++) run.on(executable, ThreadPool{});
  expect(memory.amount().pieces == before, "one caller needs one memory");
  const int64_t most = std::max(2u, std::thread::hardware_concurrency());
  Threads callers;
  const ThreadPool pool = callers.pool(1);
  for (int64_t i = 0; i < 2 * most; i++) pool.schedule([&] { run.on(executable, ThreadPool{}); });
  for (int64_t threads = 2; threads < 8; threads++) {
    Threads helpers;
    run.on(executable, helpers.pool(threads));
  }
  callers.join();
  expect(memory.amount().pieces <= most, "no more memories are kept than threads run");
  for (int64_t i = 0; i < 3; i++)
    memory.give(std::make_unique<Memory>(KeptMemory::kMostFloats / 2));
  expect(memory.amount().floats <= KeptMemory::kMostFloats, "nor more than a limit");
}

// Programs of other shapes share what is packed of equal weights, and keep no floats of it.
void test_weights_are_shared(const Kernels& kernels) {
  const auto draft_of = [](int64_t rows) {
    Draft draft;
    draft.floats.assign(40 * 24 + 40, 0.5f);
    Step& input = draft.add(Op::kInput, {24, rows, 1}, {});
    input.argument = 0, input.rank = 2, input.channels_last = true;
    Step& step = draft.add(Op::kProduct, {40, rows, 1}, {0});
    step.weights = 0, step.bias = 40 * 24, step.layout = {Storage::kBlocks, 4, 0, 0, 0};
    Step& output = draft.add(Op::kOutput, {}, {1});
    output.argument = 0, output.rank = 2, output.channels_last = true;
    return draft;
  };
  const auto stores = std::make_shared<Stores>();
  const Executable first(parse(draft_of(9)), kernels, {112, 400}, stores);
  const int64_t one = stores->packed.bytes();
  expect(one > 40 * 24 * 4, "packed bytes are counted");
  expect(first.program().floats.size() == 40, "floats that are packed are dropped");
  for (int64_t rows : {1, 2, 4, 7, 16}) {
    const Executable other(parse(draft_of(rows)), kernels, {112, 400}, stores);
    expect(stores->packed.bytes() == one, "another number of few rows shares the weights");
  }
  {
    const Executable many(parse(draft_of(17)), kernels, {112, 400}, stores);
    const int64_t two = stores->packed.bytes();
    for (int64_t rows : {60, 112, 113, 1000}) {
      const Executable other(parse(draft_of(rows)), kernels, {112, 400}, stores);
      expect(stores->packed.bytes() == two && two < 3 * one, "and so does any of many");
    }
  }
  for (int64_t rows : {1, 3, 10, 16}) {
    const auto other = first.with_rows(rows);
    const Run run(other->program());
    expect(run.difference(parse(draft_of(rows)), run.on(*other, ThreadPool{})).empty(),
           "another number of rows of a program is right");
    expect(stores->packed.bytes() == one, "and shares the weights");
  }
  expect(first.with_rows(17) != nullptr, "few and many rows are packed alike");
  expect(first.with_rows(int64_t{1} << 40) == nullptr, "too many rows are refused");
  Draft changed = draft_of(9);
  changed.floats[1] = 0.25f;
  const Executable other(parse(changed), kernels, {112, 400}, stores);
  expect(stores->packed.bytes() == 2 * one, "other weights are packed anew");
}

// No vector but a strip's last is partly beside it, and small maps are one strip.
void test_strips(const Kernels&) {
  for (bool column : {false, true})
    for (int64_t rows : {17, 112, 113, 128, 197, 512, 1000}) {
      const Strips strips = strips_of({8, rows, 1}, column, PlanOptions{112, 400});
      expect(strips.count == 1 || strips.rows % 16 == 0, "strips of rows are whole vectors");
      expect(strips.rows <= 112 && strips.pitch >= strips.rows, "and have room");
      expect(strips.count * strips.rows >= rows && (strips.count - 1) * strips.rows < rows,
             "and are all of them");
    }
  expect(strips_of({8, 7, 7}, false, PlanOptions{112, 400}).count == 1,
         "a map of 7x7 is one strip");
}

// A chain of windows of 3x3 over 64 rows of 16 pixels, in strips of 16 rows.
Program chain() {
  Draft draft;
  draft.floats.assign(9 * 4 + 4, 0.5f);
  Step& input = draft.add(Op::kInput, {4, 64, 16}, {});
  input.argument = 0, input.rank = 4;
  for (int64_t i = 0; i < 3; i++) {
    Step& step = draft.add(Op::kDepthwise, {4, 64, 16}, {i});
    step.weights = 0, step.bias = 9 * 4;
    step.window.kernel_y = step.window.kernel_x = 3;
    step.window.pad_left = step.pad_top = 1;
  }
  Step& output = draft.add(Op::kOutput, {}, {3});
  output.argument = 0, output.rank = 4;
  return parse(draft);
}

// Where threads meet, a window's rows are computed by both, and no more; results are the same bits.
void test_pieces(const Kernels& kernels) {
  Executable executable(chain(), kernels, {256, 0});
  const Program& program = executable.program();
  const Plan& plan = executable.plan();
  expect(plan.values[3].count == 4 && !plan.values[1].kept, "strips of rings");
  Piece piece;
  for (int64_t i = 0; i < kPieces; i++) {
    const Range rows = {piece_begin(program, plan, 3, i), piece_begin(program, plan, 3, i + 1)};
    expect(rows.low == 4 * i && rows.high == 4 * i + 4, "pieces are equal");
    begin_piece(program, plan, 3, rows, piece);
    int64_t low = rows.low;
    for (int64_t value : {2, 1}) {
      low = std::max<int64_t>(0, low - 1);
      if (low % 16 == 15) low--;  // two vectors at least of a strip
      const int64_t high = std::min<int64_t>(64, rows.high + 3 - value);
      expect(piece.rows[value].low == low, "rows before those of a piece");
      expect(piece.rows[value].high == high, "rows behind them");
    }
  }
  const Run run(program);
  const auto alone = run.on(executable, ThreadPool{});
  expect(run.difference(program, alone).empty(), "a chain is right");
  for (int64_t threads : {2, 3, 5, 16}) {
    Threads pool;
    expect(same(alone, run.on(executable, pool.pool(threads))), "whoever computes it");
  }
}

// Windows of all kinds one behind the other, in strips whose pixels are often no whole vectors.
Draft any_chain() {
  const std::vector<uint8_t> bytes = random_bytes(60);
  Choices choices(bytes.data(), bytes.size());
  const ImageSize size = {6, 61, choices.of({5, 13, 16, 20, 31})};
  Draft draft;
  Step& input = draft.add(Op::kInput, size, {});
  input.argument = 0, input.rank = 4;
  for (int64_t i = 0; i < 3; i++) {
    const Op op = std::vector<Op>{Op::kProduct, Op::kDepthwise, Op::kPool}[choices.below(3)];
    const int64_t side = choices.of({1, 3, 5, 7}), taps = side * side;
    Step& step = draft.add(op, size, {i});
    step.window = {side, side, 1, 1, 1, 1, side / 2, 0, 0};
    step.pad_top = side / 2;
    if (op == Op::kPool) {
      step.pooling = static_cast<Pooling>(choices.below(3));
      continue;
    }
    step.activation = {static_cast<Function>(choices.below(kNumFunctions)), .25f, 1.f};
    const int64_t cols = op == Op::kProduct ? 6 * taps : taps;
    step.weights = draft.keep(6 * cols, cols, random());
    step.bias = draft.keep(6, 4, random());
    if (op == Op::kProduct)
      step.layout = {choices.percent(50) ? Storage::kRows : Storage::kBlocks, choices.of({2, 4}), 0,
                     0, 0};
  }
  Step& output = draft.add(Op::kOutput, {}, {3});
  output.argument = 0, output.rank = 4;
  return draft;
}

void test_chains(const Kernels& kernels) {
  for (int64_t trial = 0; trial < 100; trial++) {
    const Program program = parse(any_chain());
    Executable executable(program, kernels, {trial % 3 == 0 ? 64 : 200, 0});
    const Run run(program);
    const auto alone = run.on(executable, ThreadPool{});
    expect(run.difference(program, alone).empty(), "chains are right");
    for (int64_t threads : {2, 3, 16}) {
      Threads pool;
      expect(same(alone, run.on(executable, pool.pool(threads))), "the same on threads");
    }
  }
}

// The wider the maps of a size, the fewer of their rows are in a strip.
void test_strips_of_floats(const Kernels& kernels) {
  const PlanOptions options = {64, 0, 4 * 16 * 32};
  const Executable executable(chain(), kernels, options);
  expect(executable.plan().values[0].rows == 32, "as many rows as floats allow");
  Program wide = chain();
  for (ImageSize& size : wide.values) size.channels *= 4;
  expect(make_plan(wide, options).values[0].rows == 8, "a quarter of four times the channels");
  for (ImageSize& size : wide.values) size.channels *= 4;
  expect(make_plan(wide, options).values[0].rows == 4, "but never fewer than asked for");
  const PlanOptions usual = usual_plan();
  expect(usual.strip_floats >= 64 * 1024 / 4 / 4, "a quarter of a cache");
}

// Gates on weights that are fewer than the floats of a map, and on maps where they are not: all
// storages, several strips, fewer rows in the last one, groups.
void test_gates(const Kernels& kernels) {
  for (int64_t trial = 0; trial < 100; trial++) {
    const std::vector<uint8_t> bytes = random_bytes(40);
    Choices c(bytes.data(), bytes.size());
    const int64_t groups = c.of({1, 1, 2}), in = c.of({24, 40}), out = c.of({8, 16, 26});
    const ImageSize maps = {in, c.of({9, 30}), c.of({14, 17})};
    Draft draft;
    for (const ImageSize& size : {maps, ImageSize{in, 1, 1}}) {
      Step& input = draft.add(Op::kInput, size, {});
      input.argument = draft.last(), input.rank = 3;
    }
    Step& step = draft.add(Op::kProduct, {out, maps.height, maps.width}, {0});
    step.gate = 1, step.groups = groups;
    step.window = {1, 1, 1, 1, 1, 1, 0, 0, 0};
    const bool rows = groups > 1 || c.percent(50);
    step.layout = {rows            ? Storage::kRows
                   : c.percent(50) ? Storage::kBlocks
                                   : Storage::kMasks,
                   rows ? c.of({1, 2, 4, 8}) : 4, 0, c.of({0, 5}), c.of({0, 2})};
    step.weights = draft.keep(out * in / groups, in, random());
    step.bias = draft.keep(out, 4, random());
    for (int64_t i = 0; i < out * in / groups; i++)
      if (!c.percent(10)) draft.floats[draft.steps[2].weights + i] = 0;
    Step& output = draft.add(Op::kOutput, {}, {2});
    output.argument = 0, output.rank = 3;
    Executable executable(parse(draft), kernels, {112, 200});
    const Run run(executable.program());
    const auto alone = run.on(executable, ThreadPool{});
    const std::string wrong = run.difference(parse(draft), alone);
    expect(wrong.empty(), std::string(kernels.isa) + " gated product: " + wrong);
    Threads pool;
    expect(same(alone, run.on(executable, pool.pool(3))), "threads change no bit of it");
  }
}

void test_program(const Kernels& kernels) {
  test_values(kernels);
  test_threads(kernels);
  test_failing_pool(kernels);
  test_memory_is_reused(kernels);
  test_weights_are_shared(kernels);
  test_strips(kernels);
  test_strips_of_floats(kernels);
  test_pieces(kernels);
  test_chains(kernels);
  test_gates(kernels);
}

const Test program(test_program);

}  // namespace
}  // namespace sparsejax::test
