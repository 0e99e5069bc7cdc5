// See tap_planes.h.
#include "engine/tap_planes.h"

#include <algorithm>

#include "engine/strips.h"

namespace sparsejax {
namespace {

constexpr int64_t kUnit = 4;         // floats that places count in
constexpr int64_t kMostWindow = 64;  // rows and columns of the window
constexpr int64_t kMostChannel = 32768;

// The plane that tap row `ky` can be read from, or a new one.
size_t plane_for(const Window& w, int64_t ky, int64_t width, std::vector<int64_t>& first_rows) {
  const int64_t row = ky * w.dilation_y;
  for (size_t plane = 0; plane < first_rows.size(); plane++) {
    const int64_t further = row - first_rows[plane];
    if (further % w.stride_y == 0 && further / w.stride_y * width % kUnit == 0) return plane;
  }
  first_rows.push_back(row);
  return first_rows.size() - 1;
}

}  // namespace

Window TapPlanes::window(const Window& own, int64_t rows) const {
  Window made = own;
  made.kernel_y = static_cast<int64_t>(first_rows.size());
  made.stride_y = 1;
  made.dilation_y = rows;
  return made;
}

TapPlanes tap_planes(const Program& program, const Step& step, int64_t strip_rows) {
  const Window& w = step.window;
  const ImageSize& out = program.values[step.output];
  TapPlanes planes;
  if (out.pixels() == 1 || w.kernel_y == 1) return planes;
  if (w.kernel_y > kMostWindow || w.kernel_x > kMostWindow) return planes;
  std::vector<int64_t> plane(w.kernel_y), shift(w.kernel_y);  // of each row of the window
  for (int64_t ky = 0; ky < w.kernel_y; ky++) {
    const size_t p = plane_for(w, ky, out.width, planes.first_rows);
    plane[ky] = static_cast<int64_t>(p);
    shift[ky] = (ky * w.dilation_y - planes.first_rows[p]) / w.stride_y;
  }
  planes.rows = strip_rows + *std::max_element(shift.begin(), shift.end());
  planes.pitch = pitch_of(planes.rows, out.width);
  const auto per_column = static_cast<int64_t>(planes.first_rows.size());
  const int64_t channel = per_column * w.kernel_x * (planes.pitch / kUnit);
  // As many rows as without planes: nothing is gained.
  if (per_column * planes.rows >= w.kernel_y * strip_rows || channel > kMostChannel) return planes;
  planes.places.channel = channel;
  for (int64_t ky = 0; ky < w.kernel_y; ky++)
    for (int64_t kx = 0; kx < w.kernel_x; kx++)
      planes.places.taps.push_back(
          ((plane[ky] * w.kernel_x + kx) * planes.pitch + shift[ky] * out.width) / kUnit);
  return planes;
}

}  // namespace sparsejax
