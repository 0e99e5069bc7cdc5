// Tiles of sparse matrix times activations; see spmm.h. Compiled once for each instruction set.
#include "kernels/spmm.h"

#include "kernels/pixels.h"
#include "kernels/relu.h"

namespace sparsejax::SPARSEJAX_TARGET {
namespace {

// `width` pixels of x packed as [chunk column][width], and where their outputs go.
struct Tile {
  const float* x;
  float* y;  // of row `row_begin`
  int64_t width, y_pitch;
  int64_t row_begin, row_end;  // block rows
};

struct Chunk {
  const SpmmCall* call;
  const int32_t *begins, *ends;
  int64_t first_col, num_cols;
  bool first, last;
};

template <int T, class V>
SPARSEJAX_INLINE void start_row(const Chunk& chunk, int64_t row, const float* y, V* sum) {
  V bias = splat<V>(chunk.call->bias ? chunk.call->bias[row] : 0.f);
#pragma GCC unroll 8
  for (int t = 0; t < T; t++) sum[t] = chunk.first ? bias : load<V>(y + t * lanes_of<V>);
}

template <int T, class V>
SPARSEJAX_INLINE void finish_row(const Chunk& chunk, float* y, const V* sum) {
  Activation activation = chunk.last ? chunk.call->activation : Activation::kNone;
  const V top = top_of<V>(activation);
#pragma GCC unroll 8
  for (int t = 0; t < T; t++) store(y + t * lanes_of<V>, activated(activation, sum[t], top));
}

// T vectors of pixels, one row at a time. FMAs of one row depend on each other, so short tiles keep
// several sums.
template <int T, class V>
void csr_rows(const Chunk& chunk, const Tile& tile, int64_t column) {
  constexpr int kSums = T >= 6 ? 1 : T >= 3 ? 2 : 4;
  const SparseMatrix& matrix = chunk.call->matrix;
  const float* x = tile.x + column - chunk.first_col * tile.width;
  for (int64_t row = tile.row_begin; row < tile.row_end; row++) {
    float* y = tile.y + (row - tile.row_begin) * tile.y_pitch + column;
    V sum[kSums][T] = {};
    start_row<T>(chunk, row, y, sum[0]);
    int64_t i = chunk.begins[row], end = chunk.ends[row];
    for (; i + kSums <= end; i += kSums) {
#pragma GCC unroll 4
      for (int s = 0; s < kSums; s++) {
        const float* p = x + matrix.indices[i + s] * tile.width;
        V w = splat<V>(matrix.values[i + s]);
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) sum[s][t] += w * load<V>(p + t * lanes_of<V>);
      }
    }
    for (; i < end; i++) {
      const float* p = x + matrix.indices[i] * tile.width;
      V w = splat<V>(matrix.values[i]);
#pragma GCC unroll 8
      for (int t = 0; t < T; t++) sum[0][t] += w * load<V>(p + t * lanes_of<V>);
    }
#pragma GCC unroll 4
    for (int s = 1; s < kSums; s++)
#pragma GCC unroll 8
      for (int t = 0; t < T; t++) sum[0][t] += sum[s][t];
    finish_row<T>(chunk, y, sum[0]);
  }
}

// R rows share their columns: each load of x feeds R FMAs. They are rows [part, part + R) of their
// blocks.
template <int T, int R, class V>
void block_rows(const Chunk& chunk, const Tile& tile, int64_t column, int64_t part) {
  const SparseMatrix& matrix = chunk.call->matrix;
  const int64_t block = matrix.block;
  const float* x = tile.x + column - chunk.first_col * tile.width;
  for (int64_t row = tile.row_begin; row < tile.row_end; row++) {
    float* y = tile.y + ((row - tile.row_begin) * block + part) * tile.y_pitch + column;
    V sum[R][T];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
      start_row<T>(chunk, row * block + part + r, y + r * tile.y_pitch, sum[r]);
    const int64_t end = chunk.ends[row];
    for (int64_t i = chunk.begins[row]; i < end; i++) {
      const float* p = x + matrix.indices[i] * tile.width;
      const float* w = matrix.values + i * block + part;
      V in[T];
#pragma GCC unroll 8
      for (int t = 0; t < T; t++) in[t] = load<V>(p + t * lanes_of<V>);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) sum[r][t] += splat<V>(w[r]) * in[t];
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) finish_row<T>(chunk, y + r * tile.y_pitch, sum[r]);
  }
}

// Sums, inputs and a weight must fit the registers: that bounds the rows of a block and the vectors
// of pixels that one pass takes. On 16 registers, 4 x 3 twice beats 8 x 1 for blocks of 8 rows
// (1.25x on AVX2).
constexpr bool kManyRegisters = SPARSEJAX_REGISTERS >= 32;
constexpr int kMostRows = kManyRegisters ? 8 : 4;
constexpr int kMostVectors[9] = {0, 8, kManyRegisters ? 8 : 4, 0, kManyRegisters ? 4 : 3, 0, 0,
                                 0, 2};

template <int T, int R, class V>
SPARSEJAX_INLINE void rows_of_block(const Chunk& chunk, const Tile& tile, int64_t column) {
  if constexpr (R == 1) {
    csr_rows<T, V>(chunk, tile, column);
  } else if constexpr (R > kMostRows) {
    rows_of_block<T, kMostRows, V>(chunk, tile, column);
  } else if constexpr (T <= kMostVectors[R]) {
    for (int64_t part = 0; part < chunk.call->matrix.block; part += R)
      block_rows<T, R, V>(chunk, tile, column, part);
  }
}

template <int R>
void passes(const Chunk& chunk, const Tile& tile) {
  constexpr int kMost = kMostVectors[R < kMostRows ? R : kMostRows];
  if (tile.width == 1) return rows_of_block<1, R, float>(chunk, tile, 0);  // 2x over a vector
  int64_t left = tile.width / kLanes;
  for (int64_t column = 0; left > 0;) {
    const int64_t num_passes = (left + kMost - 1) / kMost;
    const int64_t take = (left + num_passes - 1) / num_passes;
    switch (take) {
      case 1:
        rows_of_block<1, R, Vec>(chunk, tile, column);
        break;
      case 2:
        rows_of_block<2, R, Vec>(chunk, tile, column);
        break;
      case 3:
        rows_of_block<3, R, Vec>(chunk, tile, column);
        break;
      case 4:
        rows_of_block<4, R, Vec>(chunk, tile, column);
        break;
      case 5:
        rows_of_block<5, R, Vec>(chunk, tile, column);
        break;
      case 6:
        rows_of_block<6, R, Vec>(chunk, tile, column);
        break;
      case 7:
        rows_of_block<7, R, Vec>(chunk, tile, column);
        break;
      default:
        rows_of_block<8, R, Vec>(chunk, tile, column);
        break;
    }
    left -= take;
    column += take * kLanes;
  }
}

void chunk_rows(const Chunk& chunk, const Tile& tile) {
  switch (chunk.call->matrix.block) {
    case 1:
      passes<1>(chunk, tile);
      break;
    case 2:
      passes<2>(chunk, tile);
      break;
    case 4:
      passes<4>(chunk, tile);
      break;
    case 8:
      passes<8>(chunk, tile);
      break;
  }
}

// 64 pixels or more: the wider the tile, the longer the runs of memory that it reads.
constexpr int kTileVectors = kLanes == 4 ? 16 : 8;

Chunk chunk_of(const SpmmCall& call, int64_t c) {
  const SparseMatrix& matrix = call.matrix;
  const int64_t first = c * matrix.chunk_cols, left = matrix.cols - first;
  return {&call,
          matrix.begins + c * matrix.chunk_stride,
          matrix.ends + c * matrix.chunk_stride,
          first,
          left < matrix.chunk_cols ? left : matrix.chunk_cols,
          c == 0,
          c == matrix.num_chunks - 1};
}

void tile(const SpmmCall& call, const float* x, float* y, int64_t first, int64_t count,
          int64_t row_begin, int64_t row_end, float* scratch) {
  const SparseMatrix& matrix = call.matrix;
  const int64_t width = count == 1 ? 1 : whole_vectors(count);
  const int64_t row = row_begin * matrix.block, rows = (row_end - row_begin) * matrix.block;
  float *packed = scratch, *out = scratch + matrix.chunk_cols * width;
  const Pixels image = {x, matrix.cols, call.pixels, call.channels_last};
  const bool direct = !call.channels_last && count == width;
  Tile tile = {packed, out, width, width, row_begin, row_end};
  if (direct) {
    tile.y = y + row * call.pixels + first;
    tile.y_pitch = call.pixels;
  }
  for (int64_t c = 0; c < matrix.num_chunks; c++) {
    Chunk chunk = chunk_of(call, c);
    pack_pixels(image, chunk.first_col, chunk.num_cols, first, count, width, packed);
    chunk_rows(chunk, tile);
  }
  if (call.channels_last) {
    transpose(out, width, rows, count, y + first * matrix.rows + row, matrix.rows);
  } else if (!direct) {
    for (int64_t m = 0; m < rows; m++)
      __builtin_memcpy(y + (row + m) * call.pixels + first, out + m * width, count * sizeof(float));
  }
}

// One nonzero's R gradients: R rows of grad_y times one row of x.
template <int R>
SPARSEJAX_INLINE void grad_row(const SparseMatrix& matrix, const Chunk& chunk, int64_t row,
                               const float* x, const float* grad_y, int64_t width,
                               float* grad_values) {
  for (int64_t i = chunk.begins[row]; i < chunk.ends[row]; i++) {
    const float* p = x + (matrix.indices[i] - chunk.first_col) * width;
    Vec sum[R] = {};
    for (int64_t t = 0; t < width; t += kLanes) {
      Vec in = load<Vec>(p + t);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) sum[r] += load<Vec>(grad_y + r * width + t) * in;
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) grad_values[i * R + r] += sum_lanes(sum[r]);
  }
}

void grad_values_tile(const SpmmCall& call, const float* x, const float* grad_y, int64_t first,
                      int64_t count, int64_t row_begin, int64_t row_end, float* grad_values,
                      float* grad_bias, float* scratch) {
  const SparseMatrix& matrix = call.matrix;
  const int64_t width = whole_vectors(count);
  const int64_t row = row_begin * matrix.block, rows = (row_end - row_begin) * matrix.block;
  float *packed = scratch, *grads = scratch + matrix.chunk_cols * width;
  const Pixels image = {x, matrix.cols, call.pixels, call.channels_last};
  const Pixels grad_image = {grad_y, matrix.rows, call.pixels, call.channels_last};
  pack_pixels(grad_image, row, rows, first, count, width, grads);
  for (int64_t m = 0; m < rows; m++) {
    Vec sum = {};
    for (int64_t t = 0; t < width; t += kLanes) sum += load<Vec>(grads + m * width + t);
    grad_bias[row + m] += sum_lanes(sum);
  }
  for (int64_t c = 0; c < matrix.num_chunks; c++) {
    const Chunk chunk = chunk_of(call, c);
    pack_pixels(image, chunk.first_col, chunk.num_cols, first, count, width, packed);
    for (int64_t r = row_begin; r < row_end; r++) {
      const float* g = grads + (r - row_begin) * matrix.block * width;
      switch (matrix.block) {
        case 1:
          grad_row<1>(matrix, chunk, r, packed, g, width, grad_values);
          break;
        case 2:
          grad_row<2>(matrix, chunk, r, packed, g, width, grad_values);
          break;
        case 4:
          grad_row<4>(matrix, chunk, r, packed, g, width, grad_values);
          break;
        case 8:
          grad_row<8>(matrix, chunk, r, packed, g, width, grad_values);
          break;
      }
    }
  }
}

}  // namespace

// 256 KB for a packed tile: chunks for the first-level cache cost more in boundaries than they
// saved in misses.
extern const SpmmKernels spmm = {kTileVectors * kLanes, 256 * 1024 / (4 * kTileVectors * kLanes),
                                 tile, grad_values_tile};

}  // namespace sparsejax::SPARSEJAX_TARGET
