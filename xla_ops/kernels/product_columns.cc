// Dense weights times a strip with many zeros, which are skipped; see product.h.
//
// Zeros lie elsewhere in each pixel, so that vectors are of rows: the nonzeros of a pixel are
// listed, and each is multiplied with its column of weights. Sums are made pixel by pixel in the
// scratch, and turned at the end.
#include "kernels/elementwise.h"
#include "kernels/product_tile.h"
#include "kernels/sizes.h"

namespace sparsejax::SPARSEJAX_TARGET {

extern const ElementwiseKernels elementwise;

namespace {

constexpr int64_t kPixels = 112;  // that meet a chunk of weights while it is in the cache

struct Nonzero {
  float value;
  int32_t column;  // of the chunk
};
typedef uint64_t __attribute__((may_alias)) Bits;  // of a nonzero, value first

// Those of a pixel in a chunk.
struct List {
  Nonzero* nonzeros;
  int64_t count;
};

struct Sums {
  float* floats;  // [pixel][pitch]
  int64_t pitch, rows, pixels;
};

int64_t widest_chunk(const ProductMatrix& matrix) {
  int64_t most = 0;
  for (int64_t i = 0; i < matrix.num_parts * matrix.num_chunks; i++)
    for (int64_t r = 0; r < matrix.chunks[i].num_runs; r++)
      if (matrix.chunks[i].runs[r].count > most) most = matrix.chunks[i].runs[r].count;
  return most;
}

int64_t tallest_part(const ProductMatrix& matrix) {
  int64_t most = 0;
  for (int64_t p = 0; p < matrix.num_parts; p++) {
    const int64_t rows = matrix.part_rows[p + 1] - matrix.part_rows[p];
    if (rows > most) most = rows;
  }
  return round_up(most, 16);
}

// Lists the nonzeros of n pixels, as whole numbers: that takes fewest instructions. Behind a list's
// end one more is written, for the next to write over.
template <int n>
SPARSEJAX_INLINE void find_nonzeros(const ProductChunk& chunk, int64_t num_columns, const float* x,
                                    int64_t x_pitch, List* lists) {
  Bits* end[n];
  for (int p = 0; p < n; p++) end[p] = (Bits*)lists[p].nonzeros;
  for (int64_t c = 0; c < num_columns; c++) {
    const float* at = x + chunk.columns[c] * x_pitch;
#pragma GCC unroll 4
    for (int p = 0; p < n; p++) {
      uint32_t value;
      __builtin_memcpy(&value, at + p, sizeof(value));
      *end[p] = static_cast<uint64_t>(c) << 32 | value;
      end[p] += (value << 1) != 0;
    }
  }
  for (int p = 0; p < n; p++) lists[p].count = (Nonzero*)end[p] - lists[p].nonzeros;
}

void find_nonzeros(const ProductChunk& chunk, int64_t num_columns, const float* x, int64_t x_pitch,
                   int64_t pixels, Nonzero* nonzeros, List* lists) {
  for (int64_t p = 0; p < pixels; p++) lists[p].nonzeros = nonzeros + p * (num_columns + 1);
  int64_t p = 0;
  for (; p + 4 <= pixels; p += 4) find_nonzeros<4>(chunk, num_columns, x + p, x_pitch, lists + p);
  for (; p < pixels; p++) find_nonzeros<1>(chunk, num_columns, x + p, x_pitch, lists + p);
}

// Adds a pixel's products to V vectors of rows.
template <int V>
SPARSEJAX_INLINE void add_rows(const float* weights, const List& list, float* sums) {
  Vec sum[V];
#pragma GCC unroll 8
  for (int v = 0; v < V; v++) sum[v] = load<Vec>(sums + v * kLanes);
  for (int64_t i = 0; i < list.count; i++) {
    const Vec x = splat<Vec>(list.nonzeros[i].value);
    const float* w = weights + list.nonzeros[i].column * (V * kLanes);
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) sum[v] += x * load<Vec>(w + v * kLanes);
  }
#pragma GCC unroll 8
  for (int v = 0; v < V; v++) store(sums + v * kLanes, sum[v]);
}

// The same for all pixels, while V vectors of each column are in the cache; returns the next rows'
// weights.
template <int V>
const float* add_block(const float* weights, int64_t num_columns, const List* lists,
                       const Sums& sums, int64_t row) {
  for (int64_t p = 0; p < sums.pixels; p++)
    add_rows<V>(weights, lists[p], sums.floats + p * sums.pitch + row);
  return weights + num_columns * V * kLanes;
}

// Adds N of a pixel's products to all rows.
template <int N>
SPARSEJAX_INLINE void add_columns(const float* weights, const Nonzero* nonzeros, int64_t rows,
                                  float* sums) {
  Vec x[N];
  const float* w[N];
  for (int n = 0; n < N; n++) {
    x[n] = splat<Vec>(nonzeros[n].value);
    w[n] = weights + nonzeros[n].column * rows;
  }
  for (int64_t r = 0; r < rows; r += kLanes) {
    Vec sum = load<Vec>(sums + r);
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) sum += x[n] * load<Vec>(w[n] + r);
    store(sums + r, sum);
  }
}

// Whole columns one behind the other: the weights of few pixels come from memory.
void add_chunk_of_few(const float* weights, const List* lists, const Sums& sums) {
  for (int64_t p = 0; p < sums.pixels; p++) {
    const List& list = lists[p];
    float* own = sums.floats + p * sums.pitch;
    int64_t i = 0;
    for (; i + 4 <= list.count; i += 4) add_columns<4>(weights, list.nonzeros + i, sums.pitch, own);
    for (; i < list.count; i++) add_columns<1>(weights, list.nonzeros + i, sums.pitch, own);
  }
}

void add_chunk(const float* weights, int64_t num_columns, const List* lists, const Sums& sums) {
  int64_t row = 0;
  for (; row + 8 * kLanes <= sums.pitch; row += 8 * kLanes)
    weights = add_block<8>(weights, num_columns, lists, sums, row);
  for (; row < sums.pitch; row += kLanes)
    weights = add_block<1>(weights, num_columns, lists, sums, row);
}

// The bias, and the residual where there is one.
void begin(const ProductCall& call, int32_t first_row, int64_t pixel, const Sums& sums) {
  const int64_t floats = sums.pixels * sums.pitch;
  for (int64_t i = 0; i < floats; i++) sums.floats[i] = 0;
  if (call.residual)
    elementwise.turn(call.residual + first_row * call.residual_pitch + pixel, call.residual_pitch,
                     sums.rows, sums.pixels, sums.floats, sums.pitch);
  for (int64_t p = 0; p < sums.pixels; p++)
    for (int64_t r = 0; r < sums.rows; r++)
      sums.floats[p * sums.pitch + r] += call.bias[first_row + r];
}

}  // namespace

int64_t columns_scratch(const ProductMatrix& matrix) {
  return kPixels * (tallest_part(matrix) + 2 * (widest_chunk(matrix) + 1));
}

void multiply_columns(const ProductCall& call, int64_t part, int64_t first, int64_t count) {
  const ProductMatrix& matrix = *call.matrix;
  const int32_t row = matrix.part_rows[part];
  const int64_t rows = matrix.part_rows[part + 1] - row;
  List lists[kPixels];
  for (int64_t pixel = first, end = first + count; pixel < end; pixel += kPixels) {
    const int64_t pixels = end - pixel < kPixels ? end - pixel : kPixels;
    const Sums sums = {call.scratch, round_up(rows, 16), rows, pixels};
    begin(call, row, pixel, sums);
    for (int64_t c = 0; c < matrix.num_chunks; c++) {
      const ProductChunk& chunk = matrix.chunks[part * matrix.num_chunks + c];
      const int64_t num_columns = chunk.num_runs ? chunk.runs[0].count : 0;
      const float* x = call.x + chunk.first_col * call.x_pitch + pixel;
      Nonzero* nonzeros = (Nonzero*)(call.scratch + pixels * sums.pitch);
      find_nonzeros(chunk, num_columns, x, call.x_pitch, pixels, nonzeros, lists);
      if (matrix.tile == 1)
        add_chunk_of_few(chunk.values, lists, sums);
      else
        add_chunk(chunk.values, num_columns, lists, sums);
    }
    elementwise.activate(call.activation, sums.floats, pixels * sums.pitch, sums.floats);
    elementwise.turn(sums.floats, sums.pitch, pixels, rows, call.y + row * call.y_pitch + pixel,
                     call.y_pitch);
  }
}

}  // namespace sparsejax::SPARSEJAX_TARGET
