// See strips.h.
#include "engine/strips.h"

#include <algorithm>
#include <numeric>

#include "kernels/sizes.h"

namespace sparsejax {
namespace {

// At most `fit` rows, of an even number of strips, and where these are more than two whole vectors.
int64_t rows_of_strip(int64_t fit, const ImageSize& size) {
  if (fit >= size.height) return size.height;
  const int64_t count = round_up(divide_up(size.height, fit), 2);
  const int64_t rows = divide_up(size.height, count);
  const int64_t whole = round_up(rows, rows_of_vectors(size.width));
  const bool even = divide_up(size.height, whole) % 2 == 0;
  return count > 2 && even && whole <= fit ? whole : rows;
}

// Rows (width 1) have one pitch for any number of them, so that shapes share packed weights.
int64_t pitch_of_rows(const PlanOptions& options) {
  return pitch_of(std::clamp<int64_t>(options.strip_pixels, 2, 1 << 12), 1);
}

// Several strips are of whole vectors, so that only the last has pixels behind them.
void cut_rows(int64_t height, const PlanOptions& options, Strips& strips) {
  const int64_t fit = std::clamp<int64_t>(options.strip_pixels, 2, 1 << 12);
  const int64_t count = divide_up(height, fit);
  strips.rows = count > 1 ? round_up(divide_up(height, round_up(count, 2)), 16) : height;
  strips.pitch = pitch_of_rows(options);
}

// A column of 1 pixel or more is packed as one of many.
void choose_packed(const ImageSize& size, bool column, const PlanOptions& options, Strips& strips) {
  const bool rows = column || (size.width == 1 && size.height > 1);
  strips.packed_pitch = rows ? pitch_of_rows(options) : strips.pitch;
  strips.packed_pixels = rows ? strips.packed_pitch - 16 : strips.rows * size.width;
}

}  // namespace

int64_t rows_of_vectors(int64_t width) { return 16 / std::gcd(width, int64_t{16}); }

int64_t pitch_of(int64_t rows, int64_t width) {
  const int64_t floats = (rows - 1) * width + std::max<int64_t>(width, 16);
  const int64_t lines = divide_up(floats, 16);
  return 16 * (lines >= 4 && lines % 2 == 0 ? lines + 1 : lines);
}

bool is_column(const Program& program) {
  for (const ImageSize& size : program.values)
    if (size.width != 1 || size.height != program.values[0].height) return false;
  for (const Step& step : program.steps)
    if (!works_on_rows(program, step)) return false;
  return true;
}

Strips strips_of(const ImageSize& size, bool column, const PlanOptions& options) {
  Strips strips = {};
  strips.small = size.pixels() > 1 && size.pixels() <= options.whole_pixels;
  if (size.pixels() == 1) {
    strips.rows = strips.count = strips.pitch = 1;
  } else if (column && size.height <= kFewPixels) {
    strips.rows = size.height;
    strips.count = 1;
    strips.pitch = size.height <= 4 ? 4 : size.height <= 8 ? 8 : 16;
  } else if (size.width == 1) {
    cut_rows(size.height, options, strips);
    strips.count = divide_up(size.height, strips.rows);
  } else {
    const int64_t fit = std::max<int64_t>(options.strip_pixels / size.width, 2);
    const int64_t most = strips.small ? std::max(fit, divide_up(size.height, 2)) : fit;
    strips.rows = rows_of_strip(most, size);
    strips.count = divide_up(size.height, strips.rows);
    strips.pitch = pitch_of(strips.rows, size.width);
  }
  choose_packed(size, column, options, strips);
  strips.floats = round_up(size.channels * strips.pitch + kSlack, 16);
  return strips;
}

}  // namespace sparsejax
