// The passes of depthwise_rows.cc: a vector of outputs in up to 7 rows, from rows at any address.
#pragma once
#include "window_vectors.h"

namespace sparsejax::SPARSEJAX_TARGET {

typedef uintptr_t __attribute__((may_alias)) Address;

// What the passes over one channel have in common.
struct Strip {
  const Window& window;
  const Address* rows;   // of the current channel less `channel` bytes; missing ones are zeros
  Address channel;       // bytes from channel 0 to the current one
  const float* weights;  // [kernel_y][kernel_x]
  float bias;
  ActivationCall activation;  // kClamp
  float* out;
};

template <bool b>
struct Bool {
  static constexpr bool value = b;
};

// Adds what input row i says to the sums of the pass's R output rows.
template <int K, int step, int R, class V>
SPARSEJAX_INLINE void add_row(int i, V x, const V (&w)[K], V (&sum)[R]) {
#pragma GCC unroll 8
  for (int ky = 0; ky < K; ky++)
    if ((i - ky) % step == 0 && i >= ky && (i - ky) / step < R) sum[(i - ky) / step] += w[ky] * x;
}

template <int K, class V>
SPARSEJAX_INLINE void kernel_column(const Strip& strip, int64_t kx, V (&w)[K]) {
#pragma GCC unroll 8
  for (int ky = 0; ky < K; ky++) w[ky] = splat<V>(strip.weights[ky * strip.window.kernel_x + kx]);
}

// Output rows [row, row + R) at column x. masks: one vector for each column of the kernel.
template <class V, int K, int step, int R, bool masked>
void pass(const Strip& strip, int64_t row, int64_t x, const float* masks) {
  constexpr int kRows = (R - 1) * step + K, kN = lanes_of<V>;
  const Address* rows = strip.rows + row * step;
  const Window& window = strip.window;
  Address at = strip.channel + (x * step - window.pad_left) * sizeof(float);
  V sum[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) sum[r] = splat<V>(strip.bias);
  int64_t kx = 0;
  if constexpr (step == 2)
    for (; kx + 2 <= window.kernel_x; kx += 2, at += 2 * sizeof(float)) {
      V even_w[K], odd_w[K];
      kernel_column(strip, kx, even_w);
      kernel_column(strip, kx + 1, odd_w);
#pragma GCC unroll 32
      for (int i = 0; i < kRows; i++) {
        const float* p = (const float*)(rows[i] + at);
        const V a = load<V>(p), b = load<V>(p + kN);
        V even = every_second(a, b, 0), odd = every_second(a, b, 1);
        if constexpr (masked) {
          even = cut(even, masks + kx * kN);
          odd = cut(odd, masks + (kx + 1) * kN);
        }
        add_row<K, step>(i, even, even_w, sum);
        add_row<K, step>(i, odd, odd_w, sum);
      }
    }
  for (; kx < window.kernel_x; kx++, at += sizeof(float)) {
    V w[K];
    kernel_column(strip, kx, w);
#pragma GCC unroll 32
    for (int i = 0; i < kRows; i++) {
      const float* p = (const float*)(rows[i] + at);
      V in = load<V>(p);
      if constexpr (step == 2) in = every_second(in, load<V>(p + kN), 0);
      if constexpr (masked) in = cut(in, masks + kx * kN);
      add_row<K, step>(i, in, w, sum);
    }
  }
  const V low = splat<V>(strip.activation.low), high = splat<V>(strip.activation.high);
  const int64_t width = window.out_width;
  float* out = strip.out + row * width + x;
#pragma GCC unroll 8
  for (int r = 0; r < R; r++, out += width) {
    if constexpr (step == 2) sum[r] = in_order(sum[r]);
    store(out, clamp(sum[r], low, high));
  }
}

}  // namespace sparsejax::SPARSEJAX_TARGET
