// Transposes of arrays of floats.
#pragma once
#include "simd/vectors.h"

namespace sparsejax::SPARSEJAX_TARGET {

template <class V>
SPARSEJAX_INLINE V shuffle_low(V a,
                               V b) {  // pairs of a and b interleaved, low half of each 4 lanes
  if constexpr (lanes_of<V> == 4)
    return __builtin_shufflevector(a, b, 0, 4, 1, 5);
  else
    return __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13);
}

template <class V>
SPARSEJAX_INLINE V shuffle_high(V a, V b) {
  if constexpr (lanes_of<V> == 4)
    return __builtin_shufflevector(a, b, 2, 6, 3, 7);
  else
    return __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
}

template <class V>
SPARSEJAX_INLINE V pairs_low(V a, V b) {
  if constexpr (lanes_of<V> == 4)
    return __builtin_shufflevector(a, b, 0, 1, 4, 5);
  else
    return __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13);
}

template <class V>
SPARSEJAX_INLINE V pairs_high(V a, V b) {
  if constexpr (lanes_of<V> == 4)
    return __builtin_shufflevector(a, b, 2, 3, 6, 7);
  else
    return __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
}

// Transposes 4 rows of V: r[j] becomes column j of each group of 4 lanes.
template <class V>
SPARSEJAX_INLINE void transpose4(V* r) {
  V a = shuffle_low(r[0], r[1]), b = shuffle_high(r[0], r[1]);
  V c = shuffle_low(r[2], r[3]), d = shuffle_high(r[2], r[3]);
  r[0] = pairs_low(a, c);
  r[1] = pairs_high(a, c);
  r[2] = pairs_low(b, d);
  r[3] = pairs_high(b, d);
}

constexpr int kSquare = kLanes < 8 ? 4 : 8;  // side of the block that is transposed in registers

template <class V>
SPARSEJAX_INLINE void transpose_square(const float* src, int64_t src_pitch, float* dst,
                                       int64_t dst_pitch) {
  constexpr int kSide = lanes_of<V>;
  V r[kSide];
  for (int i = 0; i < kSide; i++) r[i] = load<V>(src + i * src_pitch);
  transpose4(r);
  if constexpr (lanes_of<V> == 8) {
    transpose4(r + 4);
    for (int i = 0; i < 4; i++) {
      V low = __builtin_shufflevector(r[i], r[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
      r[i + 4] = __builtin_shufflevector(r[i], r[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
      r[i] = low;
    }
  }
  for (int i = 0; i < kSide; i++) store(dst + i * dst_pitch, r[i]);
}

// Rows [row, row_end) and columns [col, col_end), as many as whole squares have.
template <class V>
SPARSEJAX_INLINE void transpose_squares(const float* src, int64_t src_pitch, int64_t row,
                                        int64_t row_end, int64_t col, int64_t col_end, float* dst,
                                        int64_t dst_pitch) {
  constexpr int kSide = lanes_of<V>;
  for (int64_t r = row; r + kSide <= row_end; r += kSide)
    for (int64_t c = col; c + kSide <= col_end; c += kSide)
      transpose_square<V>(src + r * src_pitch + c, src_pitch, dst + c * dst_pitch + r, dst_pitch);
}

// dst[c][r] = src[r][c].
SPARSEJAX_INLINE void transpose(const float* src, int64_t src_pitch, int64_t rows, int64_t cols,
                                float* dst, int64_t dst_pitch) {
  const int64_t large_rows = rows - rows % kSquare, large_cols = cols - cols % kSquare;
  typedef VecOf<kSquare>::type Side;
  transpose_squares<Side>(src, src_pitch, 0, rows, 0, cols, dst, dst_pitch);
  if constexpr (kSquare > 4) {  // what is left on the right, and below
    transpose_squares<Vec4>(src, src_pitch, 0, large_rows, large_cols, cols, dst, dst_pitch);
    transpose_squares<Vec4>(src, src_pitch, large_rows, rows, 0, cols, dst, dst_pitch);
  }
  const int64_t whole_rows = rows - rows % 4, whole_cols = cols - cols % 4;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = r < whole_rows ? whole_cols : 0; c < cols; c++)
      dst[c * dst_pitch + r] = src[r * src_pitch + c];
}

}  // namespace sparsejax::SPARSEJAX_TARGET
