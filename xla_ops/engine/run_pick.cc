// See run_pick.h.
#include "engine/run_pick.h"

#include <cstring>

namespace sparsejax {
namespace {

// Floats that lie one behind the other in both images.
struct Run {
  int64_t from, to, count;
};

// Do rows and channels change places, and nothing else?
bool is_turn(const Picks& picks, const ImageSize& in, const ImageSize& out) {
  if (in.width != 1 || out.width != 1 || in.channels != out.height || in.height != out.channels)
    return false;
  for (int64_t y = 0; y < out.height; y++)
    if (picks.rows[y] != 0 || picks.row_parts[y] != y) return false;
  for (int64_t c = 0; c < out.channels; c++)
    if (picks.channels[c] != 0 || picks.below[c] != c) return false;
  return true;
}

// Channels [begin, end) of the output, which are rows of the input.
void turn(const Frame& frame, int64_t value, const PickedRows& to, int64_t begin, int64_t end) {
  const Strips& from = frame.executable->plan().values[value];
  const auto turned = frame.executable->kernels().elementwise->turn;
  for (int64_t row = begin; row < end;) {
    const int64_t inside = row % from.rows, count = std::min(end - row, from.rows - inside);
    const float* in = frame.strip(value, row / from.rows) + to.first_row * from.pitch + inside;
    turned(in, from.pitch, to.rows, count, to.out + row * to.pitch, to.pitch);
    row += count;
  }
}

}  // namespace

void run_pick(const Frame& frame, const Step& step, const PickedRows& to, int64_t begin,
              int64_t end) {
  const int64_t value = step.inputs[0], width = to.size.width;
  const Strips& from = frame.executable->plan().values[value];
  const int64_t from_width = frame.executable->program().values[value].width;
  const Picks picks(step, to.size);
  if (is_turn(picks, frame.executable->program().values[value], to.size))
    return turn(frame, value, to, begin, end);
  std::vector<int64_t> places(width);  // of a row's floats, from channel and column 0
  std::vector<Run> runs;
  for (int64_t x = 0; x < width; x++) {
    places[x] = picks.column_parts[x] * from.pitch + picks.columns[x];
    if (x > 0 && places[x] == places[x - 1] + 1)
      runs.back().count++;
    else
      runs.push_back({places[x], x, 1});
  }
  const bool long_runs = static_cast<int64_t>(runs.size()) * 4 <= width;
  for (int64_t c = begin; c < end; c++)
    for (int64_t o = 0; o < to.rows; o++) {
      const int64_t y = to.first_row + o, row = picks.rows[y] + picks.below[c];
      const float* in = frame.strip(value, row / from.rows) + row % from.rows * from_width +
                        (picks.channels[c] + picks.row_parts[y]) * from.pitch + picks.right[c];
      float* out = to.out + c * to.pitch + o * width;
      const bool again = o > 0 && picks.rows[y] == picks.rows[y - 1] &&
                         picks.row_parts[y] == picks.row_parts[y - 1];
      if (again)
        std::memcpy(out, out - width, width * sizeof(float));
      else if (long_runs)
        for (const Run& run : runs)
          std::memcpy(out + run.to, in + run.from, run.count * sizeof(float));
      else
        for (int64_t x = 0; x < width; x++) out[x] = in[places[x]];
    }
}

}  // namespace sparsejax
