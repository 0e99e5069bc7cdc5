// What the kernels of window.h share: rows as one tap sees them, and the families' entry points.
#pragma once
#include "kernels/activation.h"
#include "kernels/window.h"
#include "simd/vectors.h"

namespace sparsejax::SPARSEJAX_TARGET {

// Outputs [begin, end) of a row for which tap kx lies inside the input row.
struct Inside {
  int64_t begin, end, first;  // first: input position of output 0, outside perhaps
};

inline Inside inside(const Window& window, int64_t kx) {
  const int64_t step = window.stride_x, first = kx * window.dilation_x - window.pad_left;
  const int64_t room = window.in_width - first;
  int64_t begin = first >= 0 ? 0 : (-first + step - 1) / step;
  int64_t end = room > 0 ? (room + step - 1) / step : 0;
  if (end > window.out_width) end = window.out_width;
  if (begin > end) begin = end;
  return {begin, end, first};
}

// Row of channel c that tap ky of output row o reads; null outside the image.
inline const float* row_of(const WindowCall& call, int64_t channel, int64_t o, int64_t ky) {
  const float* row = call.rows[o * call.window.stride_y + ky * call.window.dilation_y];
  return row ? row + channel * call.pitch : nullptr;
}

// to[i] = scale * from[i * step], exactly n of them.
SPARSEJAX_INLINE void copy_scaled(const float* from, int64_t step, int64_t n, float scale,
                                  float* to) {
  const Vec factor = splat<Vec>(scale);
  int64_t i = 0;
  if (step == 1)
    for (; i + kLanes <= n; i += kLanes) store(to + i, factor * load<Vec>(from + i));
  if (step == 2)
    for (; i + kLanes < n; i += kLanes)  // of the last pair only the first float is surely there
      store(to + i, factor * even_lanes(load<Vec>(from + 2 * i), load<Vec>(from + 2 * i + kLanes)));
  for (; i < n; i++) to[i] = scale * from[i * step];
}

SPARSEJAX_INLINE void fill(float* to, int64_t n, float value) {
  const Vec all = splat<Vec>(value);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(to + i, all);
  for (; i < n; i++) to[i] = value;
}

// to[x] = scale * what tap kx of output x sees of a row, `outside` where that is nothing; exactly
// out_width floats.
SPARSEJAX_INLINE void tap_row(const Window& window, const float* row, int64_t kx, float scale,
                              float outside, float* to) {
  const Inside in = row ? inside(window, kx) : Inside{0, 0, 0};
  fill(to, in.begin, outside);
  fill(to + in.end, window.out_width - in.end, outside);
  if (in.begin < in.end)
    copy_scaled(row + in.first + in.begin * window.stride_x, window.stride_x, in.end - in.begin,
                scale, to + in.begin);
}

int64_t depthwise_scratch_floats(const Window& window, int64_t out_rows);
void window_depthwise(const WindowCall& call, const float* weights, const float* bias,
                      const ActivationCall& activation, float* sums);
int64_t pool_scratch_floats(const Window& window);
void window_columns(const WindowCall& call, const float* gate);
void window_max_pool(const WindowCall& call);
void window_average_pool(const WindowCall& call, const float* scale);

}  // namespace sparsejax::SPARSEJAX_TARGET
