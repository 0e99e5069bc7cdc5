// Tiles of weights in groups of 4 rows, columns sorted by which of the rows use them; see
// product.h.
#include "kernels/product_tile.h"

namespace sparsejax::SPARSEJAX_TARGET {
namespace {

// The columns that exactly the rows of `mask` use, and then those of the masks after it.
template <int T, int mask, class V>
SPARSEJAX_INLINE void add_masks(const float* base, const ProductRun* runs, const float*& w,
                                const uint16_t*& offset, V (*sum)[T]) {
  for (int32_t i = 0; i < runs[mask - 1].count; i++) {
    const float* x = column<V>(base, *offset++);
    V in[T];
#pragma GCC unroll 16
    for (int t = 0; t < T; t++) in[t] = load<V>(x + t * lanes_of<V>);
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
      if (!(mask >> r & 1)) continue;
      const V weight = splat<V>(*w++);
#pragma GCC unroll 16
      for (int t = 0; t < T; t++) sum[r][t] += weight * in[t];
    }
  }
  if constexpr (mask < 15) add_masks<T, mask + 1>(base, runs, w, offset, sum);
}

template <int T, class V>
void masks_tile(ProductChunk chunk, Tile tile) {
  const float* w = chunk.values;
  const uint16_t* offset = chunk.offsets;
  for (int64_t group = 0; group < chunk.num_runs / 15; group++) {
    const int32_t* row = chunk.rows + 4 * group;
    V sum[4][T];
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) start_row<T>(tile, row[r], sum[r]);
    add_masks<T, 1>(tile.x, chunk.runs + 15 * group, w, offset, sum);
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) finish_row<T>(tile, row[r], sum[r]);
  }
}

template <int T>
TileKernel kernel(int64_t vectors) {
  if (vectors == 0) return masks_tile<1, float>;
  if (vectors == T) return masks_tile<T, Vec>;
  if constexpr (T > 1) return kernel<T - 1>(vectors);
  return nullptr;
}

}  // namespace

TileKernels masks_kernels() {
  constexpr int kMost = kManyRegisters ? 5 : 3;
  return {kMost, kernel<kMost>};
}

}  // namespace sparsejax::SPARSEJAX_TARGET
