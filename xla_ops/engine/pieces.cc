// See pieces.h.
#include "engine/pieces.h"

#include <algorithm>

#include "engine/strips.h"
#include "kernels/sizes.h"

namespace sparsejax {
namespace {

bool is_windowed(const Step& step) {
  return step.op == Op::kProduct || step.op == Op::kDepthwise || step.op == Op::kPool ||
         step.op == Op::kPad;
}

// The rows of `value` that rows `out` of a step's output read.
Range rows_read(const Program& program, const Step& step, int64_t value, Range out) {
  const ImageSize& size = program.values[step.output];
  if (step.op == Op::kPick) {
    const Picks picks(step, size);
    const auto rows = std::minmax_element(picks.rows + out.low, picks.rows + out.high);
    const auto below = std::minmax_element(picks.below, picks.below + size.channels);
    return {*rows.first + *below.first, *rows.second + *below.second + 1};
  }
  if (!is_windowed(step) || value != step.inputs[0]) return out;
  const Window& w = step.window;
  const int64_t first = out.low * w.stride_y - step.pad_top;
  const int64_t last = (out.high - 1) * w.stride_y - step.pad_top + (w.kernel_y - 1) * w.dilation_y;
  const int64_t height = program.values[value].height;
  const Range range = {std::clamp<int64_t>(first, 0, height - 1),
                       std::clamp<int64_t>(last, 0, height - 1) + 1};
  if (value != step.residual) return range;
  // The residual of a product may be its own input.
  return {std::min(range.low, out.low), std::max(range.high, out.high)};
}

// Is each strip computed by one thread, all of it?
bool is_computed_whole(const Step& step, const Strips& strips) {
  return step.op == Op::kAttention || strips.sums > 0;
}

// Where to begin to compute, at `row` or before it, so that kernels compute the same pixels
// together as in a whole strip: whole vectors, and pixels behind the last one keep a vector before
// them.
int64_t whole_begin(const Program& program, const Plan& plan, const Step& step, int64_t row) {
  const Strips& strips = plan.values[step.output];
  const int64_t width = program.values[step.output].width, strip = row / strips.rows;
  const Range all = rows_of(program, plan, step.output, strip);
  if (is_computed_whole(step, strips)) return all.low;
  row = std::min(row, std::max(all.high - divide_up(32, width), all.low));
  return row - (row - all.low) % rows_of_vectors(width);
}

// The same for the end, at `row` or behind it.
int64_t whole_end(const Program& program, const Plan& plan, const Step& step, int64_t row) {
  const Strips& strips = plan.values[step.output];
  const Range all = rows_of(program, plan, step.output, (row - 1) / strips.rows);
  if (is_computed_whole(step, strips)) return all.high;
  const int64_t rows = rows_of_vectors(program.values[step.output].width);
  return std::min(all.low + round_up(row - all.low, rows), all.high);
}

}  // namespace

Range rows_of(const Program& program, const Plan& plan, int64_t value, int64_t strip) {
  const int64_t rows = plan.values[value].rows;
  return {strip * rows, std::min((strip + 1) * rows, program.values[value].height)};
}

Range strips_read(const Program& program, const Plan& plan, const Step& step, int64_t value,
                  int64_t strip) {
  const Strips& in = plan.values[value];
  if (in.count == 1) return {0, 1};
  const Range rows = rows_read(program, step, value, rows_of(program, plan, step.output, strip));
  return {rows.low / in.rows, (rows.high - 1) / in.rows + 1};
}

int64_t piece_begin(const Program& program, const Plan& plan, int64_t value, int64_t piece) {
  const ImageSize& size = program.values[value];
  if (piece == 0) return 0;
  if (piece == kPieces) return size.height;
  const Step& step = program.steps[plan.maker[value]];
  const int64_t rows = plan.values[value].rows;
  // Kernels that go row by row write a vector of a narrow row. Strips that go through no window are
  // cut nowhere else, too: their weights would be read once more.
  const bool whole = size.width < 16 || is_computed_whole(step, plan.values[value]);
  const int64_t cut = whole ? rows : std::min(rows, rows_of_vectors(size.width));
  const int64_t row = std::min(size.height * piece / kPieces + cut / 2, size.height - 1);
  return whole ? row / rows * rows : whole_begin(program, plan, step, row);
}

void begin_piece(const Program& program, const Plan& plan, int64_t value, Range rows,
                 Piece& piece) {
  piece.rows.assign(plan.values.size(), {INT64_MAX, 0});
  piece.done.assign(plan.values.size(), 0);
  piece.rows[value] = rows;
  for (int64_t i = plan.maker[value]; i >= 0; i--) {
    const Step& step = program.steps[i];
    if (step.output == kNone || piece.rows[step.output].high == 0) continue;
    Range& computed = piece.rows[step.output];
    computed = {whole_begin(program, plan, step, computed.low),
                whole_end(program, plan, step, computed.high)};
    piece.done[step.output] = computed.low / plan.values[step.output].rows;
    for_each_input(step, [&](int64_t input) {
      if (plan.values[input].kept) return;
      const Range read = rows_read(program, step, input, computed);
      Range& all = piece.rows[input];
      all = {std::min(all.low, read.low), std::max(all.high, read.high)};
    });
  }
}

}  // namespace sparsejax
