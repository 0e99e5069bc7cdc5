// Rows of outputs by whole vectors: edges are cut by masks, row ends overlap or spill.
#pragma once
#include "kernels/window_rows.h"

namespace sparsejax::SPARSEJAX_TARGET {

typedef uintptr_t __attribute__((may_alias)) Address;  // of a row, in scratch

// Lanes in an order in which a stride of 2 costs one shuffle; `in_order` undoes it.
template <class V>
SPARSEJAX_INLINE V every_second(V a, V b, int odd) {
  if constexpr (lanes_of<V> == 8)
    return odd ? __builtin_shufflevector(a, b, 1, 3, 9, 11, 5, 7, 13, 15)
               : __builtin_shufflevector(a, b, 0, 2, 8, 10, 4, 6, 12, 14);
  else
    return odd ? odd_lanes(a, b) : even_lanes(a, b);
}

template <class V>
SPARSEJAX_INLINE V in_order(V a) {
  if constexpr (lanes_of<V> == 8)
    return __builtin_shufflevector(a, a, 0, 1, 4, 5, 2, 3, 6, 7);
  else
    return a;
}

template <class V>
SPARSEJAX_INLINE V cut_lanes(V x, V mask) {
  typedef decltype(x < x) Ints;
  return (V)((Ints)x & (Ints)mask);
}

template <class V>
SPARSEJAX_INLINE V cut(V x, const float* mask) {
  return cut_lanes(x, load<V>(mask));
}

// How a row of outputs is cut into vectors: the last one overlaps its neighbour, or spills.
struct Cut {
  int64_t vectors, last;  // last: where the last vector begins
  int64_t left, right;    // vectors before `left` and from `right` on need masks
  float* masks;           // [vectors][kernel_x][lanes]
  int64_t at(int64_t j, int64_t lanes) const { return j + 1 < vectors ? j * lanes : last; }
  bool whole(int64_t j) const { return j >= left && j < right; }
};

// The lanes of a vector at output x for which a tap `to_right` of the window's left edge is inside.
template <class V>
inline V inside_mask(const Window& window, int64_t x, int64_t to_right) {
  typedef decltype(V{} < V{}) Ints;
  Ints at;
#pragma GCC unroll 16
  for (int i = 0; i < lanes_of<V>; i++) at[i] = i;
  at = at * (int32_t)window.stride_x + (int32_t)(x * window.stride_x + to_right - window.pad_left);
  const V mask = (V)((at >= 0) & (at < (int32_t)window.in_width));
  return window.stride_x == 2 ? in_order(mask) : mask;
}

// Whether every tap of the outputs [x, x + lanes) of the row is inside.
inline bool is_whole(const Window& window, int64_t x, int64_t lanes) {
  const int64_t end = x + lanes < window.out_width ? x + lanes : window.out_width;
  const int64_t reach = (window.kernel_x - 1) * window.dilation_x - window.pad_left;
  return x * window.stride_x >= window.pad_left &&
         (end - 1) * window.stride_x + reach < window.in_width;
}

template <class V>
inline Cut cut_row(const Window& window, float* masks) {
  constexpr int kN = lanes_of<V>;
  const int64_t vectors = (window.out_width + kN - 1) / kN;
  const int64_t last = window.out_width > kN ? window.out_width - kN : 0;
  Cut cut = {vectors, last, 0, vectors, masks};
  for (int64_t j = 0; j < vectors; j++) {
    for (int64_t kx = 0; kx < window.kernel_x; kx++, masks += kN)
      store(masks, inside_mask<V>(window, cut.at(j, kN), kx * window.dilation_x));
    const bool whole = is_whole(window, cut.at(j, kN), kN);
    if (!whole && j == cut.left)
      cut.left++;
    else if (!whole && j < cut.right)
      cut.right = j;
  }
  return cut;
}

// Whether rows may be read and written by vectors of so many lanes, steps of 1 or 2.
inline bool suits(const WindowCall& call, int64_t lanes) {
  const Window& w = call.window;
  const int64_t last = w.out_width > lanes ? w.out_width - lanes : 0;
  const int64_t reach = (w.kernel_x - 1) * w.dilation_x;
  const int64_t end = (last + lanes) * w.stride_x + reach - w.pad_left;
  if (w.stride_x > 2 || w.pad_left > 16 || end > w.in_width + 16) return false;
  return w.out_width >= lanes || call.out_pitch >= (call.out_rows - 1) * w.out_width + lanes;
}

// Calls f with a vector of a type that suits; false if none does.
template <class F>
SPARSEJAX_INLINE bool with_vectors(const WindowCall& call, const F& f) {
  typedef VecOf<kLanes == 16 ? 8 : kLanes>::type Narrow;
  constexpr int kNarrow = lanes_of<Narrow>;
  if ((call.window.out_width > kNarrow || kNarrow == kLanes) && suits(call, kLanes)) {
    f(Vec{});
    return true;
  }
  if (kNarrow != kLanes && suits(call, kNarrow)) {
    f(Narrow{});
    return true;
  }
  return false;
}

}  // namespace sparsejax::SPARSEJAX_TARGET
