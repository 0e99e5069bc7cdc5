// A strip of the output of a pick.
#pragma once
#include "engine/executable.h"

namespace sparsejax {

struct PickedRows {
  ImageSize size;  // of the whole output
  int64_t first_row, rows;
  float* out;  // [channel][pitch]
  int64_t pitch;
};

// Channels [begin, end) of these rows.
void run_pick(const Frame& frame, const Step& step, const PickedRows& to, int64_t begin,
              int64_t end);

}  // namespace sparsejax
