// What the kernels of product.h share: a tile of pixels, how its sums start and how they end.
#pragma once
#include "product.h"
#include "simd.h"

namespace sparsejax::SPARSEJAX_TARGET {

// Passed by value, so that it stays in registers: stores of floats could change what lies in
// memory.
struct Tile {
  const float* x;  // of the chunk's first column
  float* y;        // of row 0
  int64_t y_pitch;
  const float* bias;      // null after the first chunk: sums go on from y
  const float* residual;  // of row 0, null before the last chunk
  int64_t residual_pitch;
  bool clamps;
  float low, high;
};

// Adds one chunk to a tile.
typedef void (*TileKernel)(ProductChunk chunk, Tile tile);

// Kernels for 1 ... most_vectors vectors of pixels; 0 is for strips of one pixel.
struct TileKernels {
  int64_t most_vectors;
  TileKernel (*kernel)(int64_t vectors);
};
TileKernels rows_kernels(int64_t block);
TileKernels blocks_kernels(int64_t block);
TileKernels masks_kernels();

// For strips of one pixel, where there is something better than kernel(0); else null.
TileKernel vector_kernel(Storage storage, int64_t block);

constexpr bool kManyRegisters = SPARSEJAX_REGISTERS >= 32;

// Columns of x: offsets count 8 bytes, but floats in a vector of one pixel.
template <class V>
SPARSEJAX_INLINE const float* column(const float* x, uint16_t offset) {
  return x + (lanes_of<V> == 1 ? 1 : 2) * static_cast<int64_t>(offset);
}

template <int T, class V>
SPARSEJAX_INLINE void start_row(const Tile& tile, int64_t row, V* sum) {
  if (tile.bias) {
    const V bias = splat<V>(tile.bias[row]);
#pragma GCC unroll 16
    for (int t = 0; t < T; t++) sum[t] = bias;
  } else {
    const float* y = tile.y + row * tile.y_pitch;
#pragma GCC unroll 16
    for (int t = 0; t < T; t++) sum[t] = load<V>(y + t * lanes_of<V>);
  }
}

template <int T, class V>
SPARSEJAX_INLINE void finish_row(const Tile& tile, int64_t row, V* sum) {
  float* y = tile.y + row * tile.y_pitch;
  if (tile.residual) {
    const float* residual = tile.residual + row * tile.residual_pitch;
#pragma GCC unroll 16
    for (int t = 0; t < T; t++) sum[t] += load<V>(residual + t * lanes_of<V>);
  }
  if (tile.clamps) {
    const V low = splat<V>(tile.low), high = splat<V>(tile.high);
#pragma GCC unroll 16
    for (int t = 0; t < T; t++) sum[t] = clamp(sum[t], low, high);
  }
#pragma GCC unroll 16
  for (int t = 0; t < T; t++) store(y + t * lanes_of<V>, sum[t]);
}

}  // namespace sparsejax::SPARSEJAX_TARGET
