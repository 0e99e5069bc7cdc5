// Tiles of weights in blocks of neighbouring rows that share their columns; see product.h.
#include "kernels/product_tile.h"

namespace sparsejax::SPARSEJAX_TARGET {
namespace {

// A column of R rows, from row r on. Products that take one number out of a vector need one load
// for 4 weights.
template <int T, int R, int r, class V>
SPARSEJAX_INLINE void add_column(const float* w, const V* in, V (*sum)[T]) {
  V weight;
  if constexpr (kByElement && R % 4 == 0 && lanes_of<V> == 4)
    weight = weight_of<r % 4>(load_weights<V>(w + r / 4 * 4));
  else
    weight = splat<V>(w[r]);
#pragma GCC unroll 16
  for (int t = 0; t < T; t++) sum[r][t] += weight * in[t];
  if constexpr (r + 1 < R) add_column<T, R, r + 1>(w, in, sum);
}

// A column of 2 rows: two weights and one vector of x at a time beside the sums.
template <int T, class V>
SPARSEJAX_INLINE void add_two(const float* w, const float* x, V (*sum)[T]) {
  const V first = splat<V>(w[0]), second = splat<V>(w[1]);
#pragma GCC unroll 16
  for (int t = 0; t < T; t++) {
    const V in = load<V>(x + t * lanes_of<V>);
    sum[0][t] += first * in;
    sum[1][t] += second * in;
    load_behind(sum[0][t], x);
    load_behind(sum[1][t], x);
  }
}

// Rows [part, part + R) of blocks of B rows: each load of x feeds R products. P pixels behind the
// tile are multiplied by a vector of R rows.
template <int T, int R, int B, class V, int P = 0>
SPARSEJAX_INLINE void part_tile(const ProductChunk& chunk, const Tile& tile, int part) {
  const float* w = chunk.values + part;
  const uint16_t* number = chunk.columns;
  const int32_t* row = chunk.rows + part;
  for (int64_t run = 0; run < chunk.num_runs; run++) {
    const ProductRun runs = chunk.runs[run];
    for (int32_t group = 0; group < runs.groups; group++, row += B) {
      if (R < B && part > 0 && row[0] == row[-1]) {  // repeats a row of the part before
        w += runs.count * B;
        number += runs.count;
        continue;
      }
      V sum[R][T];
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) start_row<T>(tile, row[r], sum[r]);
      typedef Rows<(R < 4 ? 4 : R)> Tail;
      Tail tail[P + 1];
#pragma GCC unroll 4
      for (int p = 0; p < P; p++) tail[p] = start_pixel<Tail>(tile, T * lanes_of<V> + p, row);
      for (int32_t i = 0; i < runs.count; i++, w += B) {
        const float* x = column<V>(tile, *number++);
        fetch_ahead(w);
        if constexpr (kByElement) x = as_is(x);  // one addition for all loads
        if constexpr (kWasm && R == 2) {
          add_two<T>(w, x, sum);
        } else {
          V in[T];
#pragma GCC unroll 16
          for (int t = 0; t < T; t++) in[t] = load<V>(x + t * lanes_of<V>);
          add_column<T, R, 0>(w, in, sum);
#pragma GCC unroll 4
          for (int p = 0; p < P; p++)
            tail[p] += load<Tail>(w) * splat<Tail>(x[T * lanes_of<V> + p]);
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) finish_row<T>(tile, row[r], sum[r]);
#pragma GCC unroll 4
      for (int p = 0; p < P; p++) finish_pixel(tile, T * lanes_of<V> + p, row, tail[p]);
    }
  }
}

// On 16 registers, 4 x 3 twice beats 8 x 1; on 15 without operands from memory 2 x 6 beats both.
constexpr int kMostRows = kManyRegisters ? 8 : 4;
constexpr int kTwoRows = kManyRegisters ? 8 : kWasm ? 6 : 4;
constexpr int kFourRows = kByElement || kWasm ? 6 : kManyRegisters ? 5 : 3;
constexpr int kMostVectors[9] = {0, 0, kTwoRows, 0, kFourRows, 0, 0, 0, 3};

template <int T, int B, class V>
void blocks_tile(ProductChunk chunk, Tile tile) {
  constexpr int kMost = kWasm && T > 3 ? 2 : kMostRows;
  constexpr int R = B < kMost ? B : kMost;
  for (int part = 0; part < B; part += R) part_tile<T, R, B, V>(chunk, tile, part);
}

template <int B, int T>
TileKernel kernel(int64_t vectors) {
  if (vectors == 0) return blocks_tile<1, B, float>;
  if (vectors == T) return blocks_tile<T, B, Vec>;
  if constexpr (T > 1) return kernel<B, T - 1>(vectors);
  return nullptr;
}

template <int B, int T, int P>
void tailed_tile(ProductChunk chunk, Tile tile) {
  part_tile<T, B, B, Vec, P>(chunk, tile, 0);
}

// Half as many pixels as rows at most: pixels_behind.
template <int B, int T>
TileKernel tailed(int64_t vectors, int64_t pixels) {
  if (vectors < T) {
    if constexpr (T > 1) return tailed<B, T - 1>(vectors, pixels);
    return nullptr;
  }
  if (pixels == 1) return tailed_tile<B, T, 1>;
  return pixels == 2 ? tailed_tile<B, T, 2> : tailed_tile<B, T, B / 2>;
}

template <int B>
constexpr TileKernels kernels_of() {
  constexpr int kMost = kMostVectors[B < kMostRows ? B : kMostRows];
  return {kMost,
          kernel<B, kMost>,
          {kLanes > 4 ? blocks_tile<1, B, Vec4> : nullptr, kLanes > 8 ? blocks_tile < 1, B,
           VecOf<kLanes<8 ? 4 : 8>::type>                             : nullptr},
          kTails && B >= 4 ? tailed<B, kMost> : nullptr};
}

}  // namespace

TileKernels blocks_kernels(int64_t block) {
  if (block == 2) return kernels_of<2>();
  return block == 4 ? kernels_of<4>() : kernels_of<8>();
}

}  // namespace sparsejax::SPARSEJAX_TARGET
