// Tiles of weights in groups of 4 rows, columns sorted by which of the rows use them; see
// product.h.
#include "kernels/product_tile.h"

namespace sparsejax::SPARSEJAX_TARGET {
namespace {

// The columns that exactly the rows of `mask` use, and then those of the masks after it.
template <int T, int mask, class V>
SPARSEJAX_INLINE void add_masks(const Tile& tile, const ProductRun* runs, const float*& w,
                                const uint16_t*& number, V (*sum)[T]) {
  for (int32_t i = 0; i < runs[mask - 1].count; i++) {
    const float* x = column<V>(tile, *number++);
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
  if constexpr (mask < 15) add_masks<T, mask + 1>(tile, runs, w, number, sum);
}

template <int T, class V>
void masks_tile(ProductChunk chunk, Tile tile) {
  const float* w = chunk.values;
  const uint16_t* number = chunk.columns;
  for (int64_t group = 0; group < chunk.num_runs / 15; group++) {
    const int32_t* row = chunk.rows + 4 * group;
    V sum[4][T];
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) start_row<T>(tile, row[r], sum[r]);
    add_masks<T, 1>(tile, chunk.runs + 15 * group, w, number, sum);
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
  return {kMost,
          kernel<kMost>,
          {kLanes > 4 ? masks_tile<1, Vec4> : nullptr, kLanes > 8 ? masks_tile < 1,
           VecOf<kLanes<8 ? 4 : 8>::type>                         : nullptr}};
}

}  // namespace sparsejax::SPARSEJAX_TARGET
