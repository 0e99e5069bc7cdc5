// Tiles of weights in blocks of neighbouring rows that share their columns; see product.h.
#include "product_tile.h"

namespace sparsejax::SPARSEJAX_TARGET {
namespace {

// Rows [part, part + R) of blocks of B rows: each load of x feeds R products.
template <int T, int R, int B, class V>
SPARSEJAX_INLINE void part_tile(const ProductChunk& chunk, const Tile& tile, int part) {
  const float* w = chunk.values + part;
  const uint16_t* offset = chunk.offsets;
  const int32_t* row = chunk.rows + part;
  for (int64_t run = 0; run < chunk.num_runs; run++) {
    const ProductRun runs = chunk.runs[run];
    for (int32_t group = 0; group < runs.groups; group++, row += B) {
      if (R < B && part > 0 && row[0] == row[-1]) {  // repeats a row of the part before
        w += runs.count * B;
        offset += runs.count;
        continue;
      }
      V sum[R][T];
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) start_row<T>(tile, row[r], sum[r]);
      for (int32_t i = 0; i < runs.count; i++, w += B) {
        const float* x = column<V>(tile.x, *offset++);
        V in[T];
#pragma GCC unroll 16
        for (int t = 0; t < T; t++) in[t] = load<V>(x + t * lanes_of<V>);
        const Weights<R, V> weights(w);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
          const V weight = weights[r];
#pragma GCC unroll 16
          for (int t = 0; t < T; t++) sum[r][t] += weight * in[t];
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) finish_row<T>(tile, row[r], sum[r]);
    }
  }
}

// On 16 registers, 4 x 3 twice beats 8 x 1.
constexpr int kMostRows = kManyRegisters ? 8 : 4;
constexpr int kMostVectors[9] = {0, 0, kManyRegisters ? 8 : 4, 0, kManyRegisters ? 5 : 3, 0, 0,
                                 0, 3};

template <int T, int B, class V>
void blocks_tile(ProductChunk chunk, Tile tile) {
  constexpr int R = B < kMostRows ? B : kMostRows;
  for (int part = 0; part < B; part += R) part_tile<T, R, B, V>(chunk, tile, part);
}

template <int B, int T>
TileKernel kernel(int64_t vectors) {
  if (vectors == 0) return blocks_tile<1, B, float>;
  if (vectors == T) return blocks_tile<T, B, Vec>;
  if constexpr (T > 1) return kernel<B, T - 1>(vectors);
  return nullptr;
}

template <int B>
constexpr TileKernels kernels_of() {
  constexpr int kMost = kMostVectors[B < kMostRows ? B : kMostRows];
  return {kMost, kernel<B, kMost>};
}

}  // namespace

TileKernels blocks_kernels(int64_t block) {
  if (block == 2) return kernels_of<2>();
  return block == 4 ? kernels_of<4>() : kernels_of<8>();
}

}  // namespace sparsejax::SPARSEJAX_TARGET
