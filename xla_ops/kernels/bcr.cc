// Tiles of products whose rows share columns; see bcr.h. Compiled once for each instruction set.
#include "kernels/bcr.h"

#include "kernels/pixels.h"
#include "kernels/relu.h"

namespace sparsejax::SPARSEJAX_TARGET {
namespace {

struct Run {
  const float* values;  // [num_columns][num_rows]
  const int32_t *rows, *columns;
  int64_t num_rows, num_columns;
};

Run run_of(const BcrMatrix& m, int64_t r) {
  return {m.values + m.value_starts[r], m.rows + m.run_starts[r], m.columns + m.column_starts[r],
          m.run_starts[r + 1] - m.run_starts[r], m.column_starts[r + 1] - m.column_starts[r]};
}

// `width` pixels: x as [column][width], sums as [row][width].
struct Tile {
  const float* x;
  float* sums;
  int64_t width;
};

// Rows [row, row + R) of a run at T vectors of pixels: each load of x feeds R FMAs.
template <int T, int R>
void row_pass(const Run& run, const Tile& tile, int64_t row, int64_t pixel) {
  Vec sum[R][T];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int t = 0; t < T; t++)
      sum[r][t] = load<Vec>(tile.sums + run.rows[row + r] * tile.width + pixel + t * kLanes);
  for (int64_t c = 0; c < run.num_columns; c++) {
    const float* p = tile.x + run.columns[c] * tile.width + pixel;
    const float* w = run.values + c * run.num_rows + row;
    Vec in[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) in[t] = load<Vec>(p + t * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
      for (int t = 0; t < T; t++) sum[r][t] += splat<Vec>(w[r]) * in[t];
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int t = 0; t < T; t++)
      store(tile.sums + run.rows[row + r] * tile.width + pixel + t * kLanes, sum[r][t]);
}

template <int T, int R>
void all_pixels(const Run& run, const Tile& tile, int64_t row, int64_t pixel) {
  for (; pixel + T * kLanes <= tile.width; pixel += T * kLanes)
    row_pass<T, R>(run, tile, row, pixel);
  if constexpr (T > 1) all_pixels<T - 1, R>(run, tile, row, pixel);
}

// Sums, inputs and a weight must fit the registers, as in spmm.cc.
constexpr bool kManyRegisters = SPARSEJAX_REGISTERS >= 32;
constexpr int kMostRows = kManyRegisters ? 8 : 4;
constexpr int kMostVectors[9] = {0, 8, 4, 0, kManyRegisters ? 4 : 3, 0, 0, 0, 2};

template <int R>
void rows_of_run(const Run& run, const Tile& tile, int64_t row) {
  for (; row + R <= run.num_rows; row += R) all_pixels<kMostVectors[R], R>(run, tile, row, 0);
  if constexpr (R > 1) rows_of_run<R / 2>(run, tile, row);
}

// One pixel: U vectors of rows, and columns in turn to several sums, since FMAs of one sum depend
// on each other.
template <int U, class V>
SPARSEJAX_INLINE int64_t rows_of_pixel(const Run& run, const Tile& tile, int64_t row) {
  constexpr int kSums = 8 / U, kWidth = U * lanes_of<V>;
  for (; row + kWidth <= run.num_rows; row += kWidth) {
    const int32_t* rows = run.rows + row;
    const float* w = run.values + row;
    float part[kWidth];
    for (int i = 0; i < kWidth; i++) part[i] = tile.sums[rows[i]];
    V sum[kSums][U] = {};
    int64_t c = 0;
    for (; c + kSums <= run.num_columns; c += kSums)
#pragma GCC unroll 8
      for (int s = 0; s < kSums; s++) {
        V in = splat<V>(tile.x[run.columns[c + s]]);
#pragma GCC unroll 8
        for (int u = 0; u < U; u++)
          sum[s][u] += load<V>(w + (c + s) * run.num_rows + u * lanes_of<V>) * in;
      }
    for (; c < run.num_columns; c++)
#pragma GCC unroll 8
      for (int u = 0; u < U; u++)
        sum[0][u] +=
            load<V>(w + c * run.num_rows + u * lanes_of<V>) * splat<V>(tile.x[run.columns[c]]);
#pragma GCC unroll 8
    for (int u = 0; u < U; u++) {
#pragma GCC unroll 8
      for (int s = 1; s < kSums; s++) sum[0][u] += sum[s][u];
      float* to = part + u * lanes_of<V>;
      store(to, load<V>(to) + sum[0][u]);
    }
    for (int i = 0; i < kWidth; i++) tile.sums[rows[i]] = part[i];
  }
  return row;
}

void pixel_of_run(const Run& run, const Tile& tile) {
  int64_t row = rows_of_pixel<4, Vec>(run, tile, 0);
  row = rows_of_pixel<1, Vec>(run, tile, row);
  if constexpr (kLanes > 8) row = rows_of_pixel<1, Vec8>(run, tile, row);
  if constexpr (kLanes > 4) row = rows_of_pixel<1, Vec4>(run, tile, row);
  rows_of_pixel<1, float>(run, tile, row);
}

template <class V>
SPARSEJAX_INLINE void start_row(float* sums, int64_t width, float bias) {
  for (int64_t p = 0; p < width; p += lanes_of<V>) store(sums + p, splat<V>(bias));
}

template <class V>
SPARSEJAX_INLINE void finish_row(float* sums, int64_t width, Activation activation) {
  if (activation == Activation::kNone) return;
  const V top = top_of<V>(activation);
  for (int64_t p = 0; p < width; p += lanes_of<V>)
    store(sums + p, activated(activation, load<V>(sums + p), top));
}

// The sums of the group's rows to where they belong.
void write_rows(const BcrCall& call, const BcrGroup& group, const Tile& tile, float* y,
                int64_t first, int64_t count) {
  const int64_t num_rows = call.matrix.num_rows;
  if (call.channels_last && group.num_rows == num_rows)
    return transpose(tile.sums, tile.width, num_rows, count, y + first * num_rows, num_rows);
  for (int64_t i = 0; i < group.num_rows; i++) {
    const int64_t row = group.rows[i];
    const float* from = tile.sums + row * tile.width;
    if (call.channels_last) {
      for (int64_t p = 0; p < count; p++) y[(first + p) * num_rows + row] = from[p];
    } else {
      __builtin_memcpy(y + row * call.pixels + first, from, count * sizeof(float));
    }
  }
}

void tile(const BcrCall& call, const BcrGroup& group, const float* x, float* y, int64_t first,
          int64_t count, float* scratch) {
  const BcrMatrix& matrix = call.matrix;
  const int64_t width = count == 1 ? 1 : whole_vectors(count);
  const Tile tile = {scratch, scratch + matrix.num_cols * width, width};
  pack_pixels({x, matrix.num_cols, call.pixels, call.channels_last}, 0, matrix.num_cols, first,
              count, width, scratch);
  for (int64_t i = 0; i < group.num_rows; i++) {
    float* sums = tile.sums + group.rows[i] * width;
    const float bias = call.bias ? call.bias[group.rows[i]] : 0.f;
    width == 1 ? start_row<float>(sums, width, bias) : start_row<Vec>(sums, width, bias);
  }
  for (int64_t r = group.run_begin; r < group.run_end; r++) {
    const Run run = run_of(matrix, r);
    width == 1 ? pixel_of_run(run, tile) : rows_of_run<kMostRows>(run, tile, 0);
  }
  for (int64_t i = 0; i < group.num_rows; i++) {
    float* sums = tile.sums + group.rows[i] * width;
    width == 1 ? finish_row<float>(sums, width, call.activation)
               : finish_row<Vec>(sums, width, call.activation);
  }
  write_rows(call, group, tile, y, first, count);
}

// The gradients of one column's values in rows [row, row + R) of a run.
template <int R>
SPARSEJAX_INLINE void grad_rows(const Run& run, const float* x, const float* grads, int64_t width,
                                int64_t row, float* grad_values) {
  Vec sum[R] = {};
  for (int64_t t = 0; t < width; t += kLanes) {
    const Vec in = load<Vec>(x + t);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) sum[r] += load<Vec>(grads + run.rows[row + r] * width + t) * in;
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) grad_values[row + r] += sum_lanes(sum[r]);
}

void grad_values_tile(const BcrCall& call, int64_t run_begin, int64_t run_end, const float* x,
                      const float* grad_y, int64_t first, int64_t count, float* grad_values,
                      float* scratch) {
  const BcrMatrix& matrix = call.matrix;
  const int64_t width = whole_vectors(count);
  float* grads = scratch + matrix.num_cols * width;
  pack_pixels({x, matrix.num_cols, call.pixels, call.channels_last}, 0, matrix.num_cols, first,
              count, width, scratch);
  pack_pixels({grad_y, matrix.num_rows, call.pixels, call.channels_last}, 0, matrix.num_rows, first,
              count, width, grads);
  for (int64_t r = run_begin; r < run_end; r++) {
    const Run run = run_of(matrix, r);
    float* to = grad_values + matrix.value_starts[r];
    for (int64_t c = 0; c < run.num_columns; c++, to += run.num_rows) {
      const float* in = scratch + run.columns[c] * width;
      int64_t row = 0;
      for (; row + 4 <= run.num_rows; row += 4) grad_rows<4>(run, in, grads, width, row, to);
      for (; row < run.num_rows; row++) grad_rows<1>(run, in, grads, width, row, to);
    }
  }
}

}  // namespace

extern const BcrKernels bcr = {(kLanes == 4 ? 16 : 8) * kLanes, tile, grad_values_tile};

}  // namespace sparsejax::SPARSEJAX_TARGET
