// Tiles of weights stored as rows of equal nonzero count, interleaved; see product.h.
#include "kernels/product_tile.h"

namespace sparsejax::SPARSEJAX_TARGET {
namespace {

template <int T, class V>
SPARSEJAX_INLINE void add_nonzero(const float* x, V weight, V* sum) {
#pragma GCC unroll 16
  for (int t = 0; t < T; t++) load_behind(sum[t], x);
#pragma GCC unroll 16
  for (int t = 0; t < T; t++) sum[t] += weight * load<V>(x + t * lanes_of<V>);
}

// 4 nonzeros, i and those behind it; nonzero i is of row i % R. Weights and columns are one load
// for all 4: loads are what this kernel is short of (1.1x on AVX2).
template <int T, int R, int i, class V>
SPARSEJAX_INLINE void add_four(const Tile& tile, V weights, uint64_t places, V (*sum)[T]) {
  add_nonzero<T>(place<i>(tile, places), weight_of<i>(weights), sum[i % R]);
  if constexpr (i < 3) add_four<T, R, i + 1>(tile, weights, places, sum);
}

// n nonzeros of as many rows, i and those behind it.
template <int T, int n, int i, class V>
SPARSEJAX_INLINE void add_some(const Tile& tile, const float* w, uint64_t places, V (*sum)[T]) {
  add_nonzero<T>(place<i>(tile, places), splat<V>(w[i]), sum[i]);
  if constexpr (i + 1 < n) add_some<T, n, i + 1>(tile, w, places, sum);
}

// One nonzero of each of R rows.
template <int T, int R, class V>
SPARSEJAX_INLINE void add_each(const Tile& tile, const float* w, const uint16_t* number,
                               V (*sum)[T]) {
  constexpr int n = R < 4 ? R : 4;
  if constexpr (lanes_of<V> == 1) {
    for (int r = 0; r < R; r++) sum[r][0] += w[r] * *column<V>(tile, number[r]);
  } else {
    add_some<T, n, 0>(tile, w, places_of<n>(tile, number), sum);
    if constexpr (R > 4) add_each<T, R - 4>(tile, w + 4, number + 4, sum + 4);
  }
}

// `count` nonzeros of each of R rows.
template <int T, int R, class V>
SPARSEJAX_INLINE void add_group(const Tile& tile, const float* w, const uint16_t* number,
                                int32_t count, V (*sum)[T]) {
  const float* const end = w + static_cast<int64_t>(count) * R;
  if constexpr (lanes_of<V> > 1 && R <= 4) {
    for (; w + 4 <= end; w += 4, number += 4)
      add_four<T, R, 0>(tile, load_weights<V>(w), places_of<4>(tile, number), sum);
  }
  for (; w < end; w += R, number += R) add_each<T, R>(tile, w, number, sum);
}

// Groups of R rows, each with its own columns: so many independent chains of sums.
template <int T, int R, class V>
void rows_tile(ProductChunk chunk, Tile tile) {
  const float* w = chunk.values;
  const uint16_t* number = chunk.columns;
  const int32_t* row = chunk.rows;
  for (int64_t run = 0; run < chunk.num_runs; run++) {
    const ProductRun runs = chunk.runs[run];
    for (int32_t group = 0; group < runs.groups; group++, row += R) {
      V sum[R][T];
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) start_row<T>(tile, row[r], sum[r]);
      add_group<T, R>(tile, w, number, runs.count, sum);
      w += static_cast<int64_t>(runs.count) * R;
      number += static_cast<int64_t>(runs.count) * R;
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) finish_row<T>(tile, row[r], sum[r]);
    }
  }
}

// P of the 8 rows of each group, from row `part` on.
template <int T, int P, class V>
SPARSEJAX_INLINE void part_tile(const ProductChunk& chunk, const Tile& tile, int part) {
  const float* w = chunk.values + part;
  const uint16_t* number = chunk.columns + part;
  const int32_t* row = chunk.rows + part;
  for (int64_t run = 0; run < chunk.num_runs; run++) {
    const ProductRun runs = chunk.runs[run];
    for (int32_t group = 0; group < runs.groups; group++, row += 8) {
      if (part > 0 && row[0] == row[-1]) {  // repeats a row of the part before
        w += runs.count * 8;
        number += runs.count * 8;
        continue;
      }
      V sum[P][T];
#pragma GCC unroll 8
      for (int r = 0; r < P; r++) start_row<T>(tile, row[r], sum[r]);
      for (int32_t i = 0; i < runs.count; i++, w += 8, number += 8) {
        const uint64_t places = places_of<P>(tile, number);
        if constexpr (P == 4)
          add_four<T, 4, 0>(tile, load_weights<V>(w), places, sum);
        else
          add_some<T, P, 0>(tile, w, places, sum);
      }
#pragma GCC unroll 8
      for (int r = 0; r < P; r++) finish_row<T>(tile, row[r], sum[r]);
    }
  }
}

// Tiles that are too wide for the sums of 8 rows: what suits few pixels best serves many so, too
// (2048 x 2048 at 90 %, 64 pixels on AVX2: 1.2 of the best time, where one vector a pass took 1.8).
template <int T, int P, class V>
void parts_tile(ProductChunk chunk, Tile tile) {
  for (int part = 0; part < 8; part += P) part_tile<T, P, V>(chunk, tile, part);
}

// All sums stay in registers, beside weights and, where products take no operand from memory, some
// of x.
template <int R>
constexpr int kSums = kByElement       ? 24
                      : kManyRegisters ? 28
                      : R == 1         ? (kWasm ? 12 : 14)
                                       : 12;
template <int R>
constexpr int kMost = kSums<R> / R < 14 ? kSums<R> / R : 14;

template <int R, int T>
TileKernel kernel(int64_t vectors) {
  if (vectors == 0) return rows_tile<1, R, float>;
  if (vectors == T) return rows_tile<T, R, Vec>;
  if constexpr (T > 1) return kernel<R, T - 1>(vectors);
  return nullptr;
}

template <int T>
TileKernel kernel_of_8(int64_t vectors) {
  if (vectors == T) return parts_tile<T, (T > kMost<4> ? 2 : 4), Vec>;
  if constexpr (T - 1 > kMost<8>) return kernel_of_8<T - 1>(vectors);
  return kernel<8, kMost<8>>(vectors);
}

template <int R>
constexpr TileKernels kernels_of() {
  return {R == 8 ? kMost<2> : kMost<R>,
          R == 8 ? kernel_of_8<kMost<2>> : kernel<R, kMost<R>>,
          {kLanes > 4 ? rows_tile<1, R, Vec4> : nullptr, kLanes > 8 ? rows_tile < 1, R,
           VecOf<kLanes<8 ? 4 : 8>::type>                           : nullptr}};
}

}  // namespace

TileKernels rows_kernels(int64_t block) {
  if (block == 1) return kernels_of<1>();
  if (block == 2) return kernels_of<2>();
  return block == 4 ? kernels_of<4>() : kernels_of<8>();
}

}  // namespace sparsejax::SPARSEJAX_TARGET
