// Weights times a strip of one to four pixels: vectors run over the rows of a group; see product.h.
#include "kernels/product_tile.h"

namespace sparsejax::SPARSEJAX_TARGET {
namespace {

// Of 4 or 8 columns, read 4 at once: loads are what this kernel is short of.
template <class V>
SPARSEJAX_INLINE V gather(const float* x, const uint16_t* number) {
  int32_t index[lanes_of<V>];
#pragma GCC unroll 2
  for (int i = 0; i < lanes_of<V>; i += 4) {
    uint64_t four;
    __builtin_memcpy(&four, number + i, sizeof(four));
    index[i] = four & 0xffff;
    index[i + 1] = four >> 16 & 0xffff;
    index[i + 2] = four >> 32 & 0xffff;
    index[i + 3] = four >> 48;
  }
  return floats_at<V>(x, index);
}

template <class V>
SPARSEJAX_INLINE void finish(const Tile& tile, const int32_t* row, V sum) {
  if (tile.residual) sum += floats_at<V>(tile.residual, row);
  if (tile.clamps) sum = clamp(sum, splat<V>(tile.low), splat<V>(tile.high));
  for (int r = 0; r < lanes_of<V>; r++) tile.y[row[r]] = sum[r];
}

#if SPARSEJAX_LANES == 16
// Of 16 columns that lie in the four vectors from column `start` on.
SPARSEJAX_INLINE Vec16 pick(const float* x, int32_t start, const uint16_t* number) {
  x += start;
  const Ints16 at = widened(number) - start;
  const Vec16 near = lanes_at(load<Vec16>(x), load<Vec16>(x + 16), at);
  const Vec16 far = lanes_at(load<Vec16>(x + 32), load<Vec16>(x + 48), at);
  return (at & 32) != 0 ? far : near;
}

// The sums of 8 rows in their windows; what belongs to these is passed.
SPARSEJAX_INLINE Vec8 add_windows(const float* x, const uint16_t*& window, const float*& w,
                                  const uint16_t*& number) {
  Vec16 sum[2] = {};
  const uint16_t* end = window + 1 + *window;
  for (window++; window + 2 <= end; window += 2, w += 32, number += 32)
#pragma GCC unroll 2
    for (int s = 0; s < 2; s++) {
      fetch_ahead(w + 16 * s);
      sum[s] += load<Vec16>(w + 16 * s) * pick(x, window[s], number + 16 * s);
    }
  for (; window < end; window++, w += 16, number += 16)
    sum[0] += load<Vec16>(w) * pick(x, *window, number);
  sum[0] += sum[1];
  return __builtin_shufflevector(sum[0], sum[0], 0, 1, 2, 3, 4, 5, 6, 7) +
         __builtin_shufflevector(sum[0], sum[0], 8, 9, 10, 11, 12, 13, 14, 15);
}
#endif

// Groups of 8 rows, each with its own columns.
void rows_vector(ProductChunk chunk, Tile tile) {
  typedef Rows<8> V;
  constexpr int kParts = 8 / lanes_of<V>;
  const float* w = chunk.values;
  const uint16_t* number = chunk.columns;
  const int32_t* row = chunk.rows;
  [[maybe_unused]] const uint16_t* window = chunk.windows;
  for (int64_t run = 0; run < chunk.num_runs; run++) {
    const ProductRun runs = chunk.runs[run];
    for (int32_t group = 0; group < runs.groups; group++, row += 8) {
      int32_t i = 0;
      V sum[kParts];
#pragma GCC unroll 2
      for (int p = 0; p < kParts; p++)
        sum[p] = floats_at<V>(tile.bias ? tile.bias : tile.y, row + p * lanes_of<V>);
#if SPARSEJAX_LANES == 16
      if (window) {
        i = 2 * *window;
        sum[0] += add_windows(tile.x, window, w, number);
      }
#endif
      for (; i < runs.count; i++, w += 8, number += 8) {
        fetch_ahead(w);
#pragma GCC unroll 2
        for (int p = 0; p < kParts; p++)
          sum[p] += load<V>(w + p * lanes_of<V>) * gather<V>(tile.x, number + p * lanes_of<V>);
      }
#pragma GCC unroll 2
      for (int p = 0; p < kParts; p++) finish(tile, row + p * lanes_of<V>, sum[p]);
    }
  }
}

// Blocks of B rows: a weight is used once, so 4 chains of sums keep up with the memory.
template <int B>
void blocks_vector(ProductChunk chunk, Tile tile) {
  typedef Rows<B> V;
  constexpr int kParts = B / lanes_of<V>;
  const float* w = chunk.values;
  const uint16_t* number = chunk.columns;
  const int32_t* row = chunk.rows;
  for (int64_t run = 0; run < chunk.num_runs; run++) {
    const ProductRun runs = chunk.runs[run];
    for (int32_t group = 0; group < runs.groups; group++, row += B) {
      V sum[4][kParts] = {};
#pragma GCC unroll 2
      for (int p = 0; p < kParts; p++)
        sum[0][p] = floats_at<V>(tile.bias ? tile.bias : tile.y, row + p * lanes_of<V>);
      int32_t i = 0;
      for (; i + 4 <= runs.count; i += 4, w += 4 * B, number += 4) {
        for (int ahead = 0; ahead < 4 * B; ahead += 16) fetch_ahead(w + ahead);
#pragma GCC unroll 4
        for (int s = 0; s < 4; s++)
#pragma GCC unroll 2
          for (int p = 0; p < kParts; p++)
            sum[s][p] += load<V>(w + s * B + p * lanes_of<V>) * splat<V>(tile.x[number[s]]);
      }
      for (; i < runs.count; i++, w += B, number++)
#pragma GCC unroll 2
        for (int p = 0; p < kParts; p++)
          sum[0][p] += load<V>(w + p * lanes_of<V>) * splat<V>(tile.x[*number]);
#pragma GCC unroll 2
      for (int p = 0; p < kParts; p++)
        finish(tile, row + p * lanes_of<V>, (sum[0][p] + sum[1][p]) + (sum[2][p] + sum[3][p]));
    }
  }
}

// A column of a block at P pixels.
template <int P, class V, int kParts>
SPARSEJAX_INLINE void add_few(const float* w, const float* x, V (*sum)[kParts]) {
#pragma GCC unroll 2
  for (int q = 0; q < kParts; q++) {
    const V weights = load<V>(w + q * lanes_of<V>);
#pragma GCC unroll 4
    for (int p = 0; p < P; p++) sum[p][q] += weights * splat<V>(x[p]);
  }
}

// Blocks of B rows at P pixels: a load of weights serves all pixels, in about 8 chains of sums.
template <int B, int P>
void blocks_few(ProductChunk chunk, Tile tile) {
  typedef Rows<B> V;
  constexpr int kParts = B / lanes_of<V>, kChains = 8 / (P * kParts) > 0 ? 8 / (P * kParts) : 1;
  const float* w = chunk.values;
  const uint16_t* number = chunk.columns;
  const int32_t* row = chunk.rows;
  for (int64_t run = 0; run < chunk.num_runs; run++) {
    const ProductRun runs = chunk.runs[run];
    for (int32_t group = 0; group < runs.groups; group++, row += B) {
      V sum[kChains][P][kParts] = {};
#pragma GCC unroll 4
      for (int p = 0; p < P; p++)
#pragma GCC unroll 2
        for (int q = 0; q < kParts; q++)
          sum[0][p][q] = start_pixel<V>(tile, p, row + q * lanes_of<V>);
      int32_t i = 0;
      for (; i + kChains <= runs.count; i += kChains, w += kChains * B, number += kChains) {
        for (int ahead = 0; ahead < kChains * B; ahead += 16) fetch_ahead(w + ahead);
#pragma GCC unroll 4
        for (int s = 0; s < kChains; s++)
          add_few<P, V, kParts>(w + s * B, column<V>(tile, number[s]), sum[s]);
      }
      for (; i < runs.count; i++, w += B, number++)
        add_few<P, V, kParts>(w, column<V>(tile, *number), sum[0]);
#pragma GCC unroll 4
      for (int p = 0; p < P; p++)
#pragma GCC unroll 2
        for (int q = 0; q < kParts; q++) {
          for (int s = 1; s < kChains; s++) sum[0][p][q] += sum[s][p][q];
          finish_pixel(tile, p, row + q * lanes_of<V>, sum[0][p][q]);
        }
    }
  }
}

template <int B>
TileKernel few_blocks(int64_t pixels) {
  if (pixels <= 2) return blocks_few<B, 2>;
  return pixels == 3 ? blocks_few<B, 3> : blocks_few<B, 4>;
}

}  // namespace

TileKernel few_kernel(Storage storage, int64_t block, int64_t pixels) {
  if (storage != Storage::kBlocks || block < 4 || pixels > 4) return nullptr;
  return block == 4 ? few_blocks<4>(pixels) : few_blocks<8>(pixels);
}

TileKernel vector_kernel(Storage storage, int64_t block) {
  if (storage == Storage::kRows && block == 8) return rows_vector;
  if (storage != Storage::kBlocks || block < 4) return nullptr;
  return block == 4 ? blocks_vector<4> : blocks_vector<8>;
}

}  // namespace sparsejax::SPARSEJAX_TARGET
