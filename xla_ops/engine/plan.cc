// Plans strips, rings, jobs and memory; see plan.h.
#include "engine/plan.h"

#include <algorithm>

#include "engine/pieces.h"
#include "engine/strips.h"
#include "engine/tap_planes.h"
#include "kernels/sizes.h"
#include "threads/machine.h"

namespace sparsejax {
namespace {

constexpr int64_t kMostDepth = 4;  // of ring values that are computed from one another

// With strips of more pixels, where all channels of the widest value of this size have room.
PlanOptions options_of(const Program& program, const ImageSize& size, PlanOptions options) {
  if (size.width == 1) return options;
  int64_t widest = 1;
  for (const ImageSize& other : program.values)
    if (other.height == size.height && other.width == size.width)
      widest = std::max(widest, other.channels);
  options.strip_pixels = std::max(options.strip_pixels, options.strip_floats / widest);
  return options;
}

bool reads_whole(const Program& program, const Step& step) {
  if (step.op == Op::kPick) {  // unless strip after strip
    const Picks picks(step, program.values[step.output]);
    return !std::is_sorted(picks.rows, picks.row_parts);
  }
  return step.op == Op::kMean || step.op == Op::kFlatten || step.op == Op::kOutput ||
         step.op == Op::kAttention || step.op == Op::kJoin || step.op == Op::kRewrap ||
         step.op == Op::kMoments;
}

// Depthwise outputs that one product alone reads, as they are: a thread's strip of them stays in
// its own cache.
std::vector<bool> in_passing(const Program& program) {
  std::vector<int64_t> readers(program.values.size(), 0);
  std::vector<bool> direct(program.values.size(), false), depthwise = direct;
  for (const Step& step : program.steps) {
    if (step.output != kNone) depthwise[step.output] = step.op == Op::kDepthwise;
    for_each_input(step, [&](int64_t value) {
      readers[value]++;
      direct[value] =
          step.op == Op::kProduct && value == step.inputs[0] && reads_directly(program, step);
    });
  }
  for (size_t v = 0; v < depthwise.size(); v++)
    depthwise[v] = depthwise[v] && direct[v] && readers[v] == 1;
  return depthwise;
}

// Operands whose rows lie as they are read, by cached attention alone: its keys and values.
void mark_in_place(const Program& program, Plan& plan) {
  for (const Step& step : program.steps)
    if (step.op == Op::kInput && step.channels_last) plan.values[step.output].in_place = true;
  for (const Step& step : program.steps) {
    for (size_t i = 0; i < step.inputs.size(); i++)
      if (step.op != Op::kCachedAttention || (i != 1 && i != 2))
        plan.values[step.inputs[i]].in_place = false;
    for (int64_t value : {step.residual, step.gate})
      if (value != kNone) plan.values[value].in_place = false;
  }
  for (Strips& strips : plan.values)
    if (strips.in_place) strips.kept = true, strips.floats = 0;
}

// Values of one strip, those that are read as a whole, small maps, and what they are made from.
void mark_kept(const Program& program, Plan& plan) {
  const std::vector<bool> passing = in_passing(program);
  for (size_t v = 0; v < plan.values.size(); v++) {
    Strips& strips = plan.values[v];
    strips.kept = strips.count == 1 || (strips.small && !passing[v]);
  }
  for (const Step& step : program.steps) {
    const bool whole = reads_whole(program, step) || plan.values[step.output].count == 1 ||
                       plan.values[step.output].small;
    for_each_input(step,
                   [&](int64_t value) { plan.values[value].kept |= whole && !passing[value]; });
  }
  // Longer chains of rings would recompute much where threads meet (MobileNet-v1 on two
  // threads: 1.5x rather than 1.9x) and are no faster on one.
  std::vector<int64_t> depth(plan.values.size(), 0);
  for (const Step& step : program.steps) {
    if (step.output == kNone) continue;
    for_each_input(step, [&](int64_t value) {
      if (!plan.values[value].kept)
        depth[step.output] = std::max(depth[step.output], depth[value] + 1);
    });
    plan.values[step.output].kept |= depth[step.output] >= kMostDepth;
  }
  // A ring value has readers in one job only: job[v] is the kept value it leads to.
  for (bool changed = true; changed;) {
    changed = false;
    std::vector<int64_t> job(plan.values.size(), kNone);
    for (size_t i = program.steps.size(); i-- > 0;) {
      const Step& step = program.steps[i];
      if (step.output == kNone) continue;
      if (plan.values[step.output].kept) job[step.output] = step.output;
      for_each_input(step, [&](int64_t value) {
        Strips& strips = plan.values[value];
        if (strips.kept) return;
        if (job[value] == kNone) job[value] = job[step.output];
        if (job[value] == job[step.output]) return;
        strips.kept = changed = true;
      });
    }
  }
}

// Depthwise outputs whose mean is taken are summed as they are made; not in WebAssembly, whose
// modules are to be small.
void mark_summed(const Program& program, Plan& plan) {
  if (kWasm) return;
  for (const Step& step : program.steps) {
    if (step.op != Op::kMean) continue;
    Strips& strips = plan.values[step.inputs[0]];
    const Step& maker = program.steps[plan.maker[step.inputs[0]]];
    if (maker.op != Op::kDepthwise || strips.pitch == 1 || strips.sums > 0) continue;
    strips.sums = strips.floats;
    strips.floats += round_up(program.values[maker.output].channels, 16);
  }
}

// The longest time that a strip is needed decides its ring, wherever a thread begins.
void plan_rings(const Program& program, Plan& plan) {
  for (Strips& strips : plan.values) strips.ring = strips.kept ? strips.count : 1;
  for (const Job& job : plan.jobs) {
    const int64_t target = program.steps[job.step].output;
    if (target == kNone) continue;
    const int64_t count = plan.values[target].count, height = program.values[target].height;
    for (int64_t i = 0; i < (count > 1 ? kPieces : 1); i++) {
      Piece piece;
      begin_piece(program, plan, target, {piece_begin(program, plan, target, i), height}, piece);
      walk(program, plan, target, count, piece, [&](const Step& step, int64_t strip) {
        for_each_input(step, [&](int64_t value) {
          Strips& strips = plan.values[value];
          if (strips.kept) return;
          const int64_t low = strips_read(program, plan, step, value, strip).low;
          strips.ring = std::max(strips.ring, piece.done[value] - low);
        });
      });
    }
  }
}

// Floats that a product's columns take.
int64_t columns_floats(const Program& program, const Plan& plan, const Step& step) {
  if (step.output == kNone) return 0;
  const Strips& strips = plan.values[step.output];
  const int64_t taps = step.window.kernel_y * step.window.kernel_x;
  if (step.op == Op::kProduct && !reads_directly(program, step)) {
    const int64_t channels = program.values[step.inputs[0]].channels, cols = channels * taps;
    const TapPlanes planes = tap_planes(program, step, strips.rows);
    if (planes.used()) return channels * planes.places.channel * 4 + 2 * kSlack;
    // Vectors: as columns of 16 floats first.
    return cols * (strips.pitch == 1 ? 17 : strips.pitch) + 2 * kSlack;
  }
  if (strips.pitch == 1) return program.values[step.output].channels * 16 + 2 * kSlack;
  return 0;
}

// The steps that compute a kept value's first strip, in their order.
std::vector<int64_t> steps_of(const Program& program, const Plan& plan, int64_t target) {
  std::vector<int64_t> steps;
  Piece piece;
  begin_piece(program, plan, target, rows_of(program, plan, target, 0), piece);
  walk(program, plan, target, 1, piece,
       [&](const Step& step, int64_t) { steps.push_back(&step - program.steps.data()); });
  return steps;
}

void plan_job_memory(const Program& program, Plan& plan) {
  for (const Job& job : plan.jobs) {
    const int64_t target = program.steps[job.step].output;
    if (target == kNone) continue;
    int64_t next = kSlack;
    for (int64_t i : steps_of(program, plan, target)) {
      Strips& strips = plan.values[program.steps[i].output];
      if (strips.kept || strips.begin != 0) continue;
      strips.begin = next;
      next += strips.ring * strips.floats;
    }
    plan.columns_begin = std::max(plan.columns_begin, round_up(next + kSlack, 16));
  }
  int64_t columns = 0;
  for (const Step& step : program.steps)
    columns = std::max(columns, columns_floats(program, plan, step));
  plan.job_floats = round_up(plan.columns_begin + columns + kSlack, 16);
}

// First fit by begin, over values that are alive at the same time.
void plan_arena(const Program& program, Plan& plan) {
  struct Life {
    int64_t value, first, last, begin, end;
  };
  std::vector<int64_t> first(plan.values.size(), kNone), last(plan.values.size(), kNone);
  for (size_t j = 0; j < plan.jobs.size(); j++) {
    const int64_t now = static_cast<int64_t>(j);
    auto read = [&](int64_t value) {
      if (plan.values[value].kept) last[value] = now;
    };
    const Step& step = program.steps[plan.jobs[j].step];
    if (step.output == kNone) {
      for_each_input(step, read);
      continue;
    }
    first[step.output] = last[step.output] = now;
    for (int64_t i : steps_of(program, plan, step.output)) for_each_input(program.steps[i], read);
  }
  std::vector<Life> placed;
  for (size_t v = 0; v < plan.values.size(); v++) {
    Strips& strips = plan.values[v];
    if (!strips.kept) continue;
    Life life = {static_cast<int64_t>(v), first[v], last[v], kSlack, 0};
    const int64_t floats = strips.count * strips.floats;
    for (const Life& other : placed) {
      if (other.last < life.first || life.last < other.first) continue;
      if (other.begin >= life.begin + floats) break;
      life.begin = std::max(life.begin, other.end);
    }
    life.end = life.begin + floats;
    strips.begin = life.begin;
    plan.arena_floats = std::max(plan.arena_floats, life.end + kSlack);
    const auto before = [](const Life& a, const Life& b) { return a.begin < b.begin; };
    placed.insert(std::upper_bound(placed.begin(), placed.end(), life, before), life);
  }
  plan.arena_floats = round_up(plan.arena_floats + kSlack, 16);
}

}  // namespace

PlanOptions usual_plan() {
  if (kWasm) return {112, 0};
  return {112, 400, cache_bytes(2) / 4 / static_cast<int64_t>(sizeof(float))};
}

bool is_pointwise(const Program& program, const Step& step) {
  const Window& w = step.window;
  return w.kernel_y == 1 && w.kernel_x == 1 && w.stride_y == 1 && w.stride_x == 1 &&
         w.pad_left == 0 && step.pad_top == 0 &&
         program.values[step.inputs[0]].height == program.values[step.output].height &&
         program.values[step.inputs[0]].width == program.values[step.output].width;
}

bool reads_directly(const Program& program, const Step& step) {
  return step.gate == kNone && is_pointwise(program, step);
}

bool works_on_rows(const Program& program, const Step& step) {
  if (step.op == Op::kProduct) return reads_directly(program, step);
  return is_pixelwise(step.op) || step.op == Op::kAttention;
}

Plan make_plan(const Program& program, const PlanOptions& options) {
  Plan plan;
  plan.maker.assign(program.values.size(), kNone);
  const bool column = is_column(program);
  for (const ImageSize& size : program.values)
    plan.values.push_back(strips_of(size, column, options_of(program, size, options)));
  for (size_t i = 0; i < program.steps.size(); i++)
    if (program.steps[i].output != kNone)
      plan.maker[program.steps[i].output] = static_cast<int64_t>(i);
  mark_kept(program, plan);
  mark_in_place(program, plan);
  mark_summed(program, plan);
  for (size_t i = 0; i < program.steps.size(); i++) {
    const Step& step = program.steps[i];
    if (step.output == kNone ||
        (plan.values[step.output].kept && !plan.values[step.output].in_place))
      plan.jobs.push_back({static_cast<int64_t>(i)});
  }
  plan_rings(program, plan);
  plan_job_memory(program, plan);
  plan_arena(program, plan);
  return plan;
}

}  // namespace sparsejax
