// Tiles of weights stored as rows of equal nonzero count, interleaved; see product.h.
#include "product_tile.h"

namespace sparsejax::SPARSEJAX_TARGET {
namespace {

// Groups of R rows, each with its own columns. A weight is broadcast once for T products that take
// x from memory; R rows are so many independent chains of sums.
template <int T, int R, class V>
void rows_tile(ProductChunk chunk, Tile tile) {
  const float* w = chunk.values;
  const uint16_t* offset = chunk.offsets;
  const int32_t* row = chunk.rows;
  for (int64_t run = 0; run < chunk.num_runs; run++) {
    const ProductRun runs = chunk.runs[run];
    for (int32_t group = 0; group < runs.groups; group++, row += R) {
      V sum[R][T];
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) start_row<T>(tile, row[r], sum[r]);
      for (int32_t i = 0; i < runs.count; i++, w += R, offset += R) {
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
          const float* x = column<V>(tile.x, offset[r]);
          const V weight = splat<V>(w[r]);
#pragma GCC unroll 16
          for (int t = 0; t < T; t++) sum[r][t] += weight * load<V>(x + t * lanes_of<V>);
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) finish_row<T>(tile, row[r], sum[r]);
    }
  }
}

// All sums stay in registers.
constexpr int kSums = kManyRegisters ? 28 : 14;

template <int R, int T>
TileKernel kernel(int64_t vectors) {
  if (vectors == 0) return rows_tile<1, R, float>;
  if (vectors == T) return rows_tile<T, R, Vec>;
  if constexpr (T > 1) return kernel<R, T - 1>(vectors);
  return nullptr;
}

template <int R>
constexpr TileKernels kernels_of() {
  constexpr int kMost = kSums / R < 14 ? kSums / R : 14;
  return {kMost, kernel<R, kMost>};
}

}  // namespace

TileKernels rows_kernels(int64_t block) {
  if (block == 1) return kernels_of<1>();
  if (block == 2) return kernels_of<2>();
  return block == 4 ? kernels_of<4>() : kernels_of<8>();
}

}  // namespace sparsejax::SPARSEJAX_TARGET
