// See run_pick.h.
#include "engine/run_pick.h"

#include <cstring>

namespace sparsejax {

void run_pick(const Frame& frame, const Step& step, const PickedRows& to, int64_t begin,
              int64_t end) {
  const int64_t value = step.inputs[0], width = to.size.width;
  const Strips& from = frame.executable->plan().values[value];
  const int64_t from_width = frame.executable->program().values[value].width;
  const Picks picks(step, to.size);
  std::vector<int64_t> places(width);  // of a row's floats, from channel and column 0
  bool together = true;
  for (int64_t x = 0; x < width; x++) {
    places[x] = picks.column_parts[x] * from.pitch + picks.columns[x];
    together &= places[x] == places[0] + x;
  }
  for (int64_t c = begin; c < end; c++)
    for (int64_t o = 0; o < to.rows; o++) {
      const int64_t y = to.first_row + o, row = picks.rows[y] + picks.below[c];
      const float* in = frame.strip(value, row / from.rows) + row % from.rows * from_width +
                        (picks.channels[c] + picks.row_parts[y]) * from.pitch + picks.right[c];
      float* out = to.out + c * to.pitch + o * width;
      if (together)
        std::memcpy(out, in + places[0], width * sizeof(float));
      else
        for (int64_t x = 0; x < width; x++) out[x] = in[places[x]];
    }
}

}  // namespace sparsejax
