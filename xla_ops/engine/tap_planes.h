// How a product with a window reads its input: each channel is copied once for every column of the
// window, with zeros where the window leaves the image, and rows of the window begin at different
// places of such a plane. A plane serves those rows that begin a multiple of 4 floats apart.
#pragma once
#include "engine/plan.h"

namespace sparsejax {

struct TapPlanes {
  std::vector<int64_t> first_rows;  // of the input, in each plane of a column of the window
  int64_t rows = 0;                 // of a plane
  int64_t pitch = 0;                // floats of a plane
  ColumnPlaces places;              // none where the window's columns are copied one by one instead

  bool used() const { return !places.taps.empty(); }
  // What copies planes of `rows` rows from a list of the rows of one plane behind those of another.
  Window window(const Window& own, int64_t rows) const;
};

// Planes for strips of `strip_rows` rows of a step's output.
TapPlanes tap_planes(const Program& program, const Step& step, int64_t strip_rows);

}  // namespace sparsejax
