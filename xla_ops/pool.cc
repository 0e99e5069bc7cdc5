// Max and average pooling of strips; see window.h. Compiled once for each instruction set.
#include "window_vectors.h"

namespace sparsejax::SPARSEJAX_TARGET {
namespace {

struct Larger {  // NaN if one of them is
  template <class T>
  SPARSEJAX_INLINE T operator()(T a, T b) const {
    return (a > b) | (a != a) ? a : b;
  }
};

struct Plus {
  template <class T>
  SPARSEJAX_INLINE T operator()(T a, T b) const {
    return a + b;
  }
};

template <class V, int step>
SPARSEJAX_INLINE V tap(const float* p) {
  if constexpr (step == 1)
    return load<V>(p);
  else
    return every_second(load<V>(p), load<V>(p + lanes_of<V>), 0);
}

// One vector of outputs, from `start` on; scale may be null.
template <class V, int step, bool masked, class Combine>
SPARSEJAX_INLINE V pool_vector(const WindowCall& call, int64_t channel, int64_t o, int64_t x,
                               const float* masks, float start, const Combine& combine) {
  const Window& window = call.window;
  const V outside = splat<V>(start);
  V sum = outside;
  for (int64_t ky = 0; ky < window.kernel_y; ky++) {
    const float* p = row_of(call, channel, o, ky);
    if (!p) continue;
    p += x * step - window.pad_left;
    for (int64_t kx = 0; kx < window.kernel_x; kx++, p += window.dilation_x) {
      V value = tap<V, step>(p);
      if constexpr (masked) value = choose(load<V>(masks + kx * lanes_of<V>), value, outside);
      sum = combine(sum, value);
    }
  }
  return step == 2 ? in_order(sum) : sum;
}

// By whole vectors, at strides of 1 or 2.
template <class V, int step, class Combine>
void pool_vectors(const WindowCall& call, const float* scale, float start, const Combine& combine) {
  const Window& window = call.window;
  const Cut cut = cut_row<V>(window, call.scratch);
  for (int64_t c = call.channel_begin; c < call.channel_end; c++)
    for (int64_t o = 0; o < call.out_rows; o++)
      for (int64_t j = 0; j < cut.vectors; j++) {
        const int64_t x = cut.at(j, lanes_of<V>), at = o * window.out_width + x;
        const float* masks = cut.masks + j * window.kernel_x * lanes_of<V>;
        V sum = cut.whole(j) ? pool_vector<V, step, false>(call, c, o, x, masks, start, combine)
                             : pool_vector<V, step, true>(call, c, o, x, masks, start, combine);
        if (scale) sum *= first_lanes<V>(scale + at, window.out_width - x);
        store(call.out + c * call.out_pitch + at, sum);
      }
}

// Windows of any shape, float by float; exactly the strip is written.
template <class Combine>
void pool_any(const WindowCall& call, const float* scale, float start, const Combine& combine) {
  const Window& window = call.window;
  for (int64_t c = call.channel_begin; c < call.channel_end; c++)
    for (int64_t o = 0; o < call.out_rows; o++) {
      float* out = call.out + c * call.out_pitch + o * window.out_width;
      fill(out, window.out_width, start);
      for (int64_t t = 0; t < window.kernel_y * window.kernel_x; t++) {
        const float* row = row_of(call, c, o, t / window.kernel_x);
        if (!row) continue;
        tap_row(window, row, t % window.kernel_x, 1.f, start, call.scratch);
        for (int64_t x = 0; x < window.out_width; x++) out[x] = combine(out[x], call.scratch[x]);
      }
      for (int64_t x = 0; scale && x < window.out_width; x++)
        out[x] *= scale[o * window.out_width + x];
    }
}

template <class Combine>
void pool(const WindowCall& call, const float* scale, float start, const Combine& combine) {
  const auto by_vectors = [&](auto v) {
    if (call.window.stride_x == 1)
      pool_vectors<decltype(v), 1>(call, scale, start, combine);
    else
      pool_vectors<decltype(v), 2>(call, scale, start, combine);
  };
  if (!with_vectors(call, by_vectors)) pool_any(call, scale, start, combine);
}

}  // namespace

void window_max_pool(const WindowCall& call) { pool(call, nullptr, -__builtin_inff(), Larger()); }

void window_average_pool(const WindowCall& call, const float* scale) {
  pool(call, scale, 0.f, Plus());
}

}  // namespace sparsejax::SPARSEJAX_TARGET
