// Tiles of weights stored as rows of equal nonzero count, interleaved; see product.h.
#include "product_tile.h"

namespace sparsejax::SPARSEJAX_TARGET {
namespace {

// The next n nonzeros of a group; nonzero i is of row i % R.
template <int T, int R, int n, class V>
SPARSEJAX_INLINE void add_nonzeros(const float* base, const float* w, const uint16_t* offset,
                                   V (*sum)[T]) {
  const Weights<n, V> weights(w);
#pragma GCC unroll 8
  for (int i = 0; i < n; i++) {
    const float* x = column<V>(base, offset[i]);
#ifdef __aarch64__  // after the sums so far: loads for more nonzeros would make GCC spill
#pragma GCC unroll 16
    for (int t = 0; t < T; t++) asm("" : "+r"(x), "+w"(sum[i % R][t]));
#endif
    const V weight = weights[i];
#pragma GCC unroll 16
    for (int t = 0; t < T; t++) sum[i % R][t] += weight * load<V>(x + t * lanes_of<V>);
  }
}

// Groups of R rows, each with its own columns. A weight is broadcast once for T products that take
// x from memory; R rows are so many independent chains of sums.
template <int T, int R, class V>
void rows_tile(ProductChunk chunk, Tile tile) {
  constexpr int kTurn = kByElement && R < 4 ? 4 / R : 1;
  const float* w = chunk.values;
  const uint16_t* offset = chunk.offsets;
  const int32_t* row = chunk.rows;
  for (int64_t run = 0; run < chunk.num_runs; run++) {
    const ProductRun runs = chunk.runs[run];
    for (int32_t group = 0; group < runs.groups; group++, row += R) {
      V sum[R][T];
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) start_row<T>(tile, row[r], sum[r]);
      int32_t i = 0;
      for (; i + kTurn <= runs.count; i += kTurn, w += kTurn * R, offset += kTurn * R)
        add_nonzeros<T, R, kTurn * R>(tile.x, w, offset, sum);
      for (; kTurn > 1 && i < runs.count; i++, w += R, offset += R)
        add_nonzeros<T, R, R>(tile.x, w, offset, sum);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) finish_row<T>(tile, row[r], sum[r]);
    }
  }
}

// All sums stay in registers, beside a weight or, where products take no operand from memory, a few
// of x.
constexpr int kSums = kByElement ? 24 : kManyRegisters ? 28 : 14;

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
