// The 3x3 passes of depthwise_rows.cc.
#pragma once
#include "depthwise_pass.h"

namespace sparsejax::SPARSEJAX_TARGET {

// What the three taps of an input row see from p on.
template <class V, int step, bool masked>
SPARSEJAX_INLINE void three_taps(const float* p, const float* masks, V& left, V& middle, V& right) {
  constexpr int kN = lanes_of<V>;
  if constexpr (step == 1) {
    left = load<V>(p), middle = load<V>(p + 1), right = load<V>(p + 2);
  } else {
    const V a = load<V>(p), b = load<V>(p + kN);
    left = every_second(a, b, 0), middle = every_second(a, b, 1);
    right = every_second(load<V>(p + 2), load<V>(p + 2 + kN), 0);
  }
  if constexpr (masked) {
    left = cut(left, masks);
    middle = cut(middle, masks + kN);
    right = cut(right, masks + 2 * kN);
  }
}

// R rows of one vector of a 3x3 window, all weights in registers: each input row goes into the up
// to three sums that are open.
template <class V, int step, int R, bool masked>
SPARSEJAX_INLINE void three_by_three(const float* const* p, const V* w, V bias, V low, V high,
                                     const float* masks, float* out, int64_t width) {
  V sum[R];
#pragma GCC unroll 16
  for (int i = 0; i < (R - 1) * step + 3; i++) {
    V left, middle, right;
    three_taps<V, step, masked>(p[i], masks, left, middle, right);
#pragma GCC unroll 3
    for (int ky = 2; ky >= 0; ky--) {
      const int r = (i - ky) / step;
      if (i < ky || (i - ky) % step != 0 || r >= R) continue;
      if (ky == 0) sum[r] = bias;
      sum[r] += w[3 * ky] * left;
      sum[r] += w[3 * ky + 1] * middle;
      sum[r] += w[3 * ky + 2] * right;
      if (ky == 2) store(out + r * width, clamp(step == 2 ? in_order(sum[r]) : sum[r], low, high));
    }
  }
}

// Output rows [row, row + R) at all columns.
template <class V, int step, int R>
void three_rows(const Strip& strip, int64_t row, const Cut& cut) {
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
    const float* p[kRows];
#pragma GCC unroll 16
    for (int i = 0; i < kRows; i++) p[i] = rows[i] + x * step;
    three_by_three<V, step, R, masked.value>(p, w, bias, low, high, masks, out + x, width);
  };
  const auto edge = [&](int64_t j) {
    vector(j + 1 < vectors ? j * kN : cut.last, cut.masks + j * 3 * kN, Bool<true>());
  };
  int64_t j = 0;
  for (; j < cut.left; j++) edge(j);
  for (; j < cut.right; j++) vector(j + 1 < vectors ? j * kN : cut.last, nullptr, Bool<false>());
  for (; j < vectors; j++) edge(j);
}

template <class V, int step>
void three_plane(const Strip& strip, int64_t out_rows, const Cut& cut) {
  int64_t row = 0;
  if constexpr (step == 1)
    for (; out_rows - row >= 7 && out_rows - row != 8; row += 7)
      three_rows<V, step, 7>(strip, row, cut);
  for (; out_rows - row >= 4 && out_rows - row != 5; row += 4)
    three_rows<V, step, 4>(strip, row, cut);
  for (; out_rows - row >= 3; row += 3) three_rows<V, step, 3>(strip, row, cut);
  if (out_rows - row == 2) three_rows<V, step, 2>(strip, row, cut);
  if (out_rows - row == 1) three_rows<V, step, 1>(strip, row, cut);
}

}  // namespace sparsejax::SPARSEJAX_TARGET
