// Builds programs and runs their jobs; see executable.h.
#include "engine/executable.h"

#include <algorithm>
#include <chrono>

#include "engine/check_program.h"

namespace sparsejax {

namespace {

std::vector<float> average_scales(const Program& program, const Step& step) {
  const ImageSize in = program.values[step.inputs[0]], out = program.values[step.output];
  const Window& w = step.window;
  auto taps = [](int64_t first, int64_t kernel, int64_t dilation, int64_t size) {
    int64_t inside = 0;
    for (int64_t k = 0; k < kernel; k++)
      inside += first + k * dilation >= 0 && first + k * dilation < size;
    return inside;
  };
  std::vector<float> scales(out.pixels());
  for (int64_t y = 0; y < out.height; y++)
    for (int64_t x = 0; x < out.width; x++) {
      const int64_t counted =
          step.pooling == Pooling::kAverage
              ? w.kernel_y * w.kernel_x
              : taps(y * w.stride_y - step.pad_top, w.kernel_y, w.dilation_y, in.height) *
                    taps(x * w.stride_x - w.pad_left, w.kernel_x, w.dilation_x, in.width);
      scales[y * out.width + x] = 1.f / static_cast<float>(counted);
    }
  return scales;
}

void timed_step(const Frame& frame, const Step& step, int64_t strip, const Team& team) {
  if (!frame.seconds) return run_step(frame, step, strip, team);
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  run_step(frame, step, strip, team);
  frame.seconds[&step - frame.executable->program().steps.data()] +=
      std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

void Frame::rows(int64_t value, int64_t first, int64_t count,
                 std::vector<const float*>& rows) const {
  const Strips& strips = executable->plan().values[value];
  const ImageSize& image = executable->program().values[value];
  rows.clear();
  for (int64_t row = first; row < first + count; row++) {
    const bool inside = row >= 0 && row < image.height;
    rows.push_back(inside ? strip(value, row / strips.rows) + row % strips.rows * image.width
                          : nullptr);
  }
}

Executable::Executable(Program program, const Kernels& kernels, const PlanOptions& options,
                       std::shared_ptr<Stores> stores)
    : program_(std::move(program)),
      options_(options),
      plan_(make_plan(program_, options)),
      kernels_(kernels),
      stores_(std::move(stores)) {
  products_.resize(program_.steps.size());
  planes_.resize(program_.steps.size());
  scales_.resize(program_.steps.size());
  for (const Step& step : program_.steps) {
    if (step.op == Op::kProduct) pack(step);
    if (step.op == Op::kPool && step.pooling != Pooling::kMax)
      scales_[&step - program_.steps.data()] = average_scales(program_, step);
  }
  drop_packed_floats();
}

Executable::Executable(const Executable& packed, Program program)
    : program_(std::move(program)),
      options_(packed.options_),
      plan_(make_plan(program_, options_)),
      kernels_(packed.kernels_),
      stores_(packed.stores_),
      products_(packed.products_),
      planes_(packed.planes_),
      scales_(packed.scales_) {}

std::unique_ptr<Executable> Executable::with_rows(int64_t rows) const {
  Program program = program_;
  for (const Step& step : program.steps)
    if (!works_on_rows(program, step) ||
        (step.op == Op::kAttention && rows % Heads(step).length != 0) ||
        (step.op == Op::kKnown && rows % known_rows(step) != 0))
      return nullptr;
  for (ImageSize& size : program.values) {
    if (size.width != 1 || size.height != program_.values[0].height) return nullptr;
    if (rows > kMostFloats / size.channels) return nullptr;
    size.height = rows;
  }
  return std::unique_ptr<Executable>(new Executable(*this, std::move(program)));
}

void Executable::pack(const Step& step) {
  const Strips& strips = plan_.values[step.output];
  const ImageSize in = program_.values[step.inputs[0]], out = program_.values[step.output];
  const int64_t cols = in.channels * step.window.kernel_y * step.window.kernel_x;
  const size_t i = &step - program_.steps.data();
  planes_[i] = tap_planes(program_, step, strips.rows);
  const ProductWeights weights = {program_.floats.data() + step.weights,
                                  out.channels,
                                  cols,
                                  step.groups,
                                  planes_[i].places,
                                  out.width == 1};
  products_[i] = stores_->packed.product(weights, strips.packed_pixels, strips.packed_pitch,
                                         step.layout, *kernels_.product);
}

void Executable::drop_packed_floats() {
  std::vector<float> kept;
  const auto keep = [&](int64_t& begin, int64_t count) {
    if (begin == kNone) return;
    const auto from = program_.floats.begin() + begin;
    begin = static_cast<int64_t>(kept.size());
    kept.insert(kept.end(), from, from + count);
  };
  for (Step& step : program_.steps) {
    if (step.output == kNone) continue;
    const ImageSize& out = program_.values[step.output];
    const int64_t channels = out.channels;
    const int64_t taps = step.op == Op::kKnown ? known_floats(step, out)
                                               : step.window.kernel_y * step.window.kernel_x;
    if (step.op == Op::kProduct) step.weights = kNone;
    keep(step.weights, channels * taps);
    keep(step.bias, channels);
  }
  kept.shrink_to_fit();
  program_.floats = std::move(kept);
}

void Executable::run_job(const Job& job, const Team& team, const Frame& frame) {
  const Step& step = program_.steps[job.step];
  if (step.output == kNone || plan_.values[step.output].count == 1)
    return timed_step(frame, step, 0, team);
  const Strips& strips = plan_.values[step.output];
  const int64_t ranges = std::min({team.num_threads(), kPieces, 2 * strips.count});
  const auto row = [&](int64_t range) {
    return piece_begin(program_, plan_, step.output, kPieces * range / ranges);
  };
  const Team alone(ThreadPool{});
  team.for_each(ranges, [&](int64_t range) {
    const Range rows = {row(range), row(range + 1)};
    if (rows.low == rows.high) return;
    Frame own = frame;
    own.job += range * plan_.job_floats;
    static thread_local Piece piece;  // so that it is allocated once
    begin_piece(program_, plan_, step.output, rows, piece);
    own.piece = &piece;
    walk(program_, plan_, step.output, strips.count, piece,
         [&](const Step& inner, int64_t strip) { timed_step(own, inner, strip, alone); });
  });
}

void Executable::run(const Team& team, Frame frame) {
  std::unique_ptr<Memory> memory = stores_->memory.take(scratch_floats(team.num_threads()));
  frame.executable = this;
  frame.arena = memory->data();
  frame.job = frame.arena + plan_.arena_floats;
  for (const Job& job : plan_.jobs) run_job(job, team, frame);
  stores_->memory.give(std::move(memory));
}

void Executable::run_image(const ThreadPool& pool, const float* const* operands,
                           float* const* results) {
  run_image(Team(pool, kPieces), operands, results);
}

void Executable::run_image(const Team& team, const float* const* operands, float* const* results) {
  Frame frame = {};
  frame.operands = operands;
  frame.results = results;
  run(team, frame);
}

std::vector<double> Executable::profile(int64_t runs, std::vector<const float*> operands) {
  std::vector<std::vector<float>> memory(program_.num_operands + program_.num_results);
  const bool zeros = operands.empty();
  operands.resize(program_.num_operands);
  std::vector<float*> results(program_.num_results);
  for (const Step& step : program_.steps) {
    const bool is_input = step.op == Op::kInput;
    if (!is_input && step.op != Op::kOutput) continue;
    const int64_t i = step.argument, value = is_input ? step.output : step.inputs[0];
    if (is_input && !zeros) continue;
    std::vector<float>& floats = memory[is_input ? i : program_.num_operands + i];
    floats.resize(program_.values[value].floats());
    if (is_input) {
      operands[i] = floats.data();
    } else {
      results[i] = floats.data();
    }
  }
  std::vector<double> best(program_.steps.size(), 1e30);
  for (int64_t run_number = 0; run_number < runs; run_number++) {
    std::vector<double> seconds(program_.steps.size(), 0);
    Frame frame = {};
    frame.operands = operands.data();
    frame.results = results.data();
    frame.seconds = seconds.data();
    run(Team(ThreadPool{}), frame);
    for (size_t i = 0; i < best.size(); i++) best[i] = std::min(best[i], seconds[i]);
  }
  return best;
}

}  // namespace sparsejax
