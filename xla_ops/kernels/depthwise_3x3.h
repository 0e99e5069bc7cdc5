// The passes of depthwise_strips.cc for 3x3 windows that make few rows or step by 2, or for vectors
// of 16, with all weights in registers.
#pragma once
#include "kernels/depthwise_pass.h"

namespace sparsejax::SPARSEJAX_TARGET {

// What the three taps of an input row see from p on, in steps of 2.
template <class V, bool masked>
SPARSEJAX_INLINE void three_taps(const float* p, const float* masks, V& left, V& middle, V& right) {
  constexpr int kN = lanes_of<V>;
  const V a = in_register(load<V>(p)), b = in_register(load<V>(p + kN));
  left = every_second(a, b, 0), middle = every_second(a, b, 1);
  if constexpr (kN == 16)
    right = next_lanes(left, splat<V>(p[2 * kN]));
  else
    right = every_second(load<V>(p + 2), load<V>(p + 2 + kN), 0);
  if constexpr (masked) {
    left = cut(left, masks);
    middle = cut(middle, masks + kN);
    right = cut(right, masks + 2 * kN);
  }
}

// With few registers, what a row adds to a sum is made apart, so that no sum waits for nine
// products one after the other: 1.25x on Zen 3, whose additions do not compete with products.
#ifdef __wasm__
constexpr bool kApart = false;
#else
constexpr bool kApart = SPARSEJAX_REGISTERS == 16;
#endif

template <class V>
SPARSEJAX_INLINE V add_products(V sum, const V* w, V left, V middle, V right) {
  if constexpr (kApart) {
    V products = w[0] * left;
    products += w[1] * middle;
    products += w[2] * right;
    return sum + products;
  } else {
    sum += w[0] * left;
    sum += w[1] * middle;
    return sum + w[2] * right;
  }
}

// R rows of one vector in steps of 2: each input row goes into the up to two sums that are open.
template <class V, int R, bool masked>
SPARSEJAX_INLINE void every_second_of(const float* const* p, int64_t x, const V* w, V bias, V low,
                                      V high, const float* masks, float* out, int64_t width) {
  V sum[R];
#pragma GCC unroll 16
  for (int i = 0; i < 2 * R + 1; i++) {
    V left, middle, right;
    three_taps<V, masked>(p[i] + 2 * x, masks, left, middle, right);
#pragma GCC unroll 3
    for (int ky = 2; ky >= 0; ky--) {
      const int r = (i - ky) / 2;
      if (i < ky || (i - ky) % 2 != 0 || r >= R) continue;
      sum[r] = add_products(ky == 0 ? bias : sum[r], w + 3 * ky, left, middle, right);
      if (ky == 2) store(out + r * width + x, clamp(in_order(sum[r]), low, high));
    }
  }
}

// R rows of one vector, added up in the order of the passes of more rows: where a strip begins and
// ends changes no bit.
template <class V, int R, bool masked>
SPARSEJAX_INLINE void rows_of_one(const float* const* p, int64_t x, const V* w, V bias, V low,
                                  V high, const float* masks, float* out, int64_t width) {
  constexpr int kN = lanes_of<V>;
  V sum[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) sum[r] = bias;
#pragma GCC unroll 3
  for (int kx = 0; kx < 3; kx++)
#pragma GCC unroll 16
    for (int i = 0; i < R + 2; i++) {
      V in = load<V>(p[i] + x + kx);
      in = masked ? cut(in, masks + kx * kN) : in_register(in);
#pragma GCC unroll 3
      for (int ky = 0; ky < 3; ky++)
        if (i >= ky && i - ky < R) sum[i - ky] += w[3 * ky + kx] * in;
    }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) store(out + r * width + x, clamp(sum[r], low, high));
}

struct Yes {
  static constexpr bool value = true;
};
struct No {
  static constexpr bool value = false;
};

// Output rows [row, row + R) at all columns.
template <class V, int step, int R>
void three_rows(const Strip& strip, const Cut& cut, int64_t row) {
  constexpr int kRows = (R - 1) * step + 3, kN = lanes_of<V>;
  const int64_t width = strip.window.out_width, vectors = cut.vectors;
  const int64_t at = -strip.window.pad_left;
  const float* rows[kRows];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; i++)
    rows[i] = (const float*)(strip.rows[row * step + i] + strip.channel) + at;
  V w[9];
#pragma GCC unroll 9
  for (int t = 0; t < 9; t++) w[t] = splat<V>(strip.weights[t]);
  const V bias = splat<V>(strip.bias);
  const V low = splat<V>(strip.activation.low), high = splat<V>(strip.activation.high);
  float* out = strip.out + row * width;
  const auto vector = [&](int64_t x, const float* masks, auto masked) {
    if constexpr (step == 2)
      every_second_of<V, R, masked.value>(rows, x, w, bias, low, high, masks, out, width);
    else
      rows_of_one<V, R, masked.value>(rows, x, w, bias, low, high, masks, out, width);
  };
  const auto edge = [&](int64_t j) { vector(cut.at(j, kN), cut.masks + j * 3 * kN, Yes()); };
  int64_t j = 0;
  for (; j < cut.left; j++) edge(j);
  for (; j < cut.right; j++) vector(cut.at(j, kN), nullptr, No());
  for (; j < vectors; j++) edge(j);
}

}  // namespace sparsejax::SPARSEJAX_TARGET
