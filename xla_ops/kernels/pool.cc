// Max and average pooling of strips; see window.h. Compiled once for each instruction set.
//
// The rows of a window are combined into one row first, which has what lies outside of the image on
// both sides; then the columns: 6 steps instead of 9 for a 3x3 window of stride 2, and no masks.
#include "kernels/window_vectors.h"

namespace sparsejax::SPARSEJAX_TARGET {
namespace {

int64_t row_list_floats(const Window& window) {
  return (window.kernel_y * sizeof(Address) / sizeof(float) + 15) / 16 * 16;
}

int64_t row_floats(const Window& window) {
  const int64_t taps =
      (window.out_width - 1) * window.stride_x + (window.kernel_x - 1) * window.dilation_x + 1;
  const int64_t row = window.pad_left + window.in_width;
  return ((taps > row ? taps : row) + 2 * 16 + 15) / 16 * 16;
}

struct Larger {  // NaN if one of them is
  template <class T>
  SPARSEJAX_INLINE T operator()(T a, T b) const {
    const T larger = a > b ? a : b;
    return a != a ? a : larger;
  }
};

struct Plus {
  template <class T>
  SPARSEJAX_INLINE T operator()(T a, T b) const {
    return a + b;
  }
};

// n rows, of which `count` are known when this is compiled, or 0.
template <int count, class V, class Combine>
SPARSEJAX_INLINE void combine_rows(const Address* rows, int64_t n, int64_t x, V start,
                                   const Combine& combine, float* out) {
  V sum = start;
#pragma GCC unroll 3
  for (int64_t i = 0; i < (count ? count : n); i++)
    sum = combine(sum, load<V>((const float*)rows[i] + x));
  store(out + x, sum);
}

template <int count, class Combine>
SPARSEJAX_INLINE void combined_row(const Address* rows, int64_t n, int64_t width, float start,
                                   const Combine& combine, float* out) {
  const int64_t last = width - kLanes;
  const Vec from = splat<Vec>(start);
  for (int64_t x = 0; x < last; x += kLanes) combine_rows<count>(rows, n, x, from, combine, out);
  if (last >= 0)
    combine_rows<count>(rows, n, last, from, combine, out);
  else {  // one vector, and the junk behind the row away again
    combine_rows<count>(rows, n, 0, from, combine, out);
    store(out + width, from);
  }
}

template <class V, int step, class Combine>
SPARSEJAX_INLINE V combine_columns(const Window& window, const float* p, V start,
                                   const Combine& combine) {
  V sum = start;
  for (int64_t kx = 0; kx < window.kernel_x; kx++, p += window.dilation_x)
    if constexpr (step == 1)
      sum = combine(sum, load<V>(p));
    else
      sum = combine(sum, every_second(load<V>(p), load<V>(p + lanes_of<V>), 0));
  return step == 2 ? in_order(sum) : sum;
}

// From the combined rows, position 0 being the leftmost tap of output 0; exactly out_width floats,
// or with `room` behind them one vector.
template <int step, class Combine>
SPARSEJAX_INLINE void output_row(const Window& window, const float* combined, const float* scale,
                                 bool room, float start, const Combine& combine, float* out) {
  const int64_t last = window.out_width - kLanes;
  const auto outputs = [&](int64_t x) {
    const Vec sum = combine_columns<Vec, step ? step : 1>(window, combined + x * step,
                                                          splat<Vec>(start), combine);
    store(out + x, scale ? sum * load<Vec>(scale + x) : sum);
  };
  if (step && (last >= 0 || (room && !scale))) {
    for (int64_t x = 0; x < last; x += kLanes) outputs(x);
    return outputs(last > 0 ? last : 0);
  }
  for (int64_t x = 0; x < window.out_width; x++) {
    float sum = start;
    for (int64_t kx = 0; kx < window.kernel_x; kx++)
      sum = combine(sum, combined[x * window.stride_x + kx * window.dilation_x]);
    out[x] = scale ? sum * scale[x] : sum;
  }
}

template <int step, class Combine>
void pool_rows(const WindowCall& call, const float* scale, float start, const Combine& combine) {
  const Window& window = call.window;
  Address* rows = (Address*)call.scratch;
  float *combined = call.scratch + row_list_floats(window), *inside = combined + window.pad_left;
  fill(combined, row_floats(window), start);
  const bool room = call.out_pitch >= (call.out_rows - 1) * window.out_width + kLanes;
  for (int64_t c = call.channel_begin; c < call.channel_end; c++)
    for (int64_t o = 0; o < call.out_rows; o++) {
      int64_t n = 0;
      for (int64_t ky = 0; ky < window.kernel_y; ky++)
        if (const float* row = row_of(call, c, o, ky)) rows[n++] = (Address)row;
      if (n == 3)
        combined_row<3>(rows, n, window.in_width, start, combine, inside);
      else if (n == 2)
        combined_row<2>(rows, n, window.in_width, start, combine, inside);
      else
        combined_row<0>(rows, n, window.in_width, start, combine, inside);
      const int64_t at = o * window.out_width;
      output_row<step>(window, combined, scale ? scale + at : nullptr, room, start, combine,
                       call.out + c * call.out_pitch + at);
    }
}

// step 0 stands for any other.
template <class Combine>
void pool(const WindowCall& call, const float* scale, float start, const Combine& combine) {
  if (call.window.stride_x == 1)
    pool_rows<1>(call, scale, start, combine);
  else if (call.window.stride_x == 2)
    pool_rows<2>(call, scale, start, combine);
  else
    pool_rows<0>(call, scale, start, combine);
}

}  // namespace

int64_t pool_scratch_floats(const Window& window) {
  return row_list_floats(window) + row_floats(window);
}

void window_max_pool(const WindowCall& call) { pool(call, nullptr, -__builtin_inff(), Larger()); }

void window_average_pool(const WindowCall& call, const float* scale) {
  pool(call, scale, 0.f, Plus());
}

}  // namespace sparsejax::SPARSEJAX_TARGET
