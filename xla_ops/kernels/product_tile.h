// What the kernels of product.h share: a tile of pixels, how its sums start and how they end.
#pragma once
#include "kernels/product.h"
#include "simd/vectors.h"

namespace sparsejax::SPARSEJAX_TARGET {

// Passed by value, so that it stays in registers: stores of floats could change what lies in
// memory.
struct Tile {
  const float* x;  // of the chunk's first column
  int64_t x_pitch;
  float* y;  // of row 0
  int64_t y_pitch;
  const float* bias;      // null after the first chunk: sums go on from y
  const float* residual;  // of row 0, null before the last chunk
  int64_t residual_pitch;
  bool clamps;
  float low, high;
};

// Are there registers for the sums of a tile and of a few pixels behind it?
constexpr bool kTails = kLanes == 16;

// Adds one chunk to a tile.
typedef void (*TileKernel)(ProductChunk chunk, Tile tile);

// Kernels for 1 ... most_vectors vectors of pixels; 0 is for strips of one pixel. `narrow` are for
// strips of at most 4 and of at most 8 pixels, null where a vector is no wider.
struct TileKernels {
  int64_t most_vectors;
  TileKernel (*kernel)(int64_t vectors);
  TileKernel narrow[2];
  // With that many pixels behind the vectors, so that weights are read once for both; null unless
  // kTails.
  TileKernel (*with_tail)(int64_t vectors, int64_t pixels) = nullptr;
};
TileKernels rows_kernels(int64_t block);
TileKernels blocks_kernels(int64_t block);
TileKernels masks_kernels();

// Of kColumns: all chunks of one part, and the floats of scratch that it takes.
void multiply_columns(const ProductCall& call, int64_t part, int64_t first, int64_t count);
int64_t columns_scratch(const ProductMatrix& matrix);

// For strips of one pixel, where there is something better than kernel(0); else null.
TileKernel vector_kernel(Storage storage, int64_t block);
// The same for strips of 2 to 4 pixels at a pitch of 4.
TileKernel few_kernel(Storage storage, int64_t block, int64_t pixels);

constexpr bool kManyRegisters = SPARSEJAX_REGISTERS >= 32;
// Whether a multiplication can take one number out of a vector: 4 weights are one load then.
#ifdef __aarch64__
constexpr bool kByElement = true;
#else
constexpr bool kByElement = false;
#endif

// Keeps what is loaded from x behind the sum so far: compilers would load for more nonzeros at a
// time and spill.
template <class V>
SPARSEJAX_INLINE void load_behind([[maybe_unused]] V& sum, [[maybe_unused]] const float*& x) {
#if defined(__aarch64__)
  asm("" : "+r"(x), "+w"(sum));
#elif defined(__wasm__)
  asm("" : "+r"(x), "+r"(sum));
#endif
}

// A column of x.
template <class V>
SPARSEJAX_INLINE const float* column(const Tile& tile, uint16_t number) {
  return tile.x + (lanes_of<V> == 1 ? 1 : tile.x_pitch) * number;
}

// Up to four columns of x, in 16 bits each: where they begin, in units of 16 bytes. One product for
// all of them; aarch64 multiplies and adds at once, which saves it.
template <int n>
SPARSEJAX_INLINE uint64_t places_of([[maybe_unused]] const Tile& tile, const uint16_t* columns) {
  uint64_t numbers = 0;
  __builtin_memcpy(&numbers, columns, n * sizeof(uint16_t));
#ifndef __aarch64__
  numbers *= static_cast<uint64_t>(tile.x_pitch / 4);
#endif
  return numbers;
}

// The i-th of them.
template <int i>
SPARSEJAX_INLINE const float* place(const Tile& tile, uint64_t places) {
#ifdef __aarch64__
  const uint32_t number = places >> 16 * i & 0xffff, bytes = 4 * tile.x_pitch;
  return reinterpret_cast<const float*>(reinterpret_cast<const char*>(tile.x) +
                                        uint64_t{number} * bytes);
#else  // twice the place, so that an address is that times 8
  const uint64_t twice = i == 0 ? places << 1 : places >> (16 * i - (i > 0));
  return tile.x + 2 * (twice & 0x1fffe);
#endif
}

// Asks for weights two pages ahead: each is read once, perhaps from the memory, and CPUs' own
// prefetchers stop at the end of a page (dense on Zen 5: ResNet-50 in 0.85 of the time,
// MobileNet-v1 in 0.94; no difference to rows of few nonzeros).
SPARSEJAX_INLINE void fetch_ahead([[maybe_unused]] const float* weights) {
#ifdef __x86_64__
  __builtin_prefetch(weights + 2048);
#endif
}

// An address as it is: GCC would compute those of a whole row early and spill them.
template <class P>
SPARSEJAX_INLINE P* as_is(P* p) {
  asm("" : "+r"(p));
  return p;
}

// 4 weights in each 4 lanes; GCC would take them through integers behind `load`.
typedef float UnalignedVec4 __attribute__((vector_size(16), aligned(4), may_alias));

template <class V>
SPARSEJAX_INLINE V load_weights(const float* weights) {
#ifdef __AVX512F__
  if constexpr (lanes_of<V> == 16) {
    // GCC 12 would write 4 lanes to the stack and read 16: 5 cycles a nonzero, at one pixel.
    V all;
    asm("vbroadcastf32x4 %1, %0"
        : "=v"(all)
        : "m"(*reinterpret_cast<const UnalignedVec4*>(weights)));
    return all;
  }
#endif
  const Vec4 w = *reinterpret_cast<const UnalignedVec4*>(weights);
  if constexpr (lanes_of<V> == 4) return w;
  if constexpr (lanes_of<V> == 8) return __builtin_shufflevector(w, w, 0, 1, 2, 3, 0, 1, 2, 3);
  if constexpr (lanes_of<V> == 16)
    return __builtin_shufflevector(w, w, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3);
}

// Weight i of the 4 in all lanes.
template <int i, class V>
SPARSEJAX_INLINE V weight_of(V w) {
  if constexpr (lanes_of<V> == 4) return __builtin_shufflevector(w, w, i, i, i, i);
  if constexpr (lanes_of<V> == 8)
    return __builtin_shufflevector(w, w, i, i, i, i, i + 4, i + 4, i + 4, i + 4);
  if constexpr (lanes_of<V> == 16)
    return __builtin_shufflevector(w, w, i, i, i, i, i + 4, i + 4, i + 4, i + 4, i + 8, i + 8,
                                   i + 8, i + 8, i + 12, i + 12, i + 12, i + 12);
}

template <int T, class V>
SPARSEJAX_INLINE void start_row(const Tile& tile, int64_t row, V* sum) {
  if (tile.bias) {
    const V bias = splat<V>(tile.bias[row]);
#pragma GCC unroll 16
    for (int t = 0; t < T; t++) sum[t] = bias;
  } else {
    const float* y = as_is(tile.y + row * tile.y_pitch);
#pragma GCC unroll 16
    for (int t = 0; t < T; t++) sum[t] = load<V>(y + t * lanes_of<V>);
  }
}

template <int T, class V>
SPARSEJAX_INLINE void finish_row(const Tile& tile, int64_t row, V* sum) {
  float* y = as_is(tile.y + row * tile.y_pitch);
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

// R rows in vectors of their own number or of what the registers hold.
template <int R>
using Rows = typename VecOf<(R < kLanes   ? R
                             : kLanes < 8 ? kLanes
                                          : 8)>::type;

template <class V>
SPARSEJAX_INLINE V floats_at(const float* x, const int32_t* index) {
  if constexpr (lanes_of<V> == 4)
    return V{x[index[0]], x[index[1]], x[index[2]], x[index[3]]};
  else
    return V{x[index[0]], x[index[1]], x[index[2]], x[index[3]],
             x[index[4]], x[index[5]], x[index[6]], x[index[7]]};
}

// Of the rows of a vector, the floats at one pixel.
template <class V>
SPARSEJAX_INLINE V gather_rows(const float* y, int64_t pitch, const int32_t* row) {
  float floats[lanes_of<V>];
#pragma GCC unroll 8
  for (int r = 0; r < lanes_of<V>; r++) floats[r] = y[row[r] * pitch];
  return load<V>(floats);
}

template <class V>
SPARSEJAX_INLINE V start_pixel(const Tile& tile, int64_t pixel, const int32_t* row) {
  return tile.bias ? floats_at<V>(tile.bias, row)
                   : gather_rows<V>(tile.y + pixel, tile.y_pitch, row);
}

template <class V>
SPARSEJAX_INLINE void finish_pixel(const Tile& tile, int64_t pixel, const int32_t* row, V sum) {
  if (tile.residual) sum += gather_rows<V>(tile.residual + pixel, tile.residual_pitch, row);
  if (tile.clamps) sum = clamp(sum, splat<V>(tile.low), splat<V>(tile.high));
  for (int r = 0; r < lanes_of<V>; r++) tile.y[row[r] * tile.y_pitch + pixel] = sum[r];
}

}  // namespace sparsejax::SPARSEJAX_TARGET
