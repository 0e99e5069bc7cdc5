// Cuts spmm and its gradient into tiles; see run.h.
#include <algorithm>

#include "engine/run.h"
#include "kernels/sizes.h"
#include "threads/scratch.h"

namespace sparsejax {
namespace {

// Rows that one tile takes at most: with the widest tile (128 pixels) its scratch stays under 1 MB.
constexpr int64_t kMaxRows = 1024;
// Multiply-adds below which helping threads cost more than they bring (a wake-up is about 2 us).
constexpr int64_t kSmallWork = 100000;

int64_t scratch_floats(const SpmmKernels& kernels, const SparseMatrix& matrix, int64_t block_rows) {
  return (matrix.chunk_cols + block_rows * matrix.block) * kernels.tile_pixels;
}

int64_t num_nonzeros(const SparseMatrix& matrix) {
  const int64_t block_rows = matrix.rows / matrix.block;
  return block_rows ? matrix.ends[(matrix.num_chunks - 1) * matrix.chunk_stride + block_rows - 1]
                    : 0;
}

ThreadPool pool_for(const ThreadPool& pool, const SparseMatrix& matrix, int64_t pixels) {
  const double work = static_cast<double>(num_nonzeros(matrix) * matrix.block) * pixels;
  return work < kSmallWork ? ThreadPool{} : pool;
}

}  // namespace

void run_spmm(const Kernels& set, const ThreadPool& pool, const SpmmCall& call, int64_t images,
              const float* x, float* y) {
  const SpmmKernels& kernels = *set.spmm;
  const SparseMatrix& matrix = call.matrix;
  if (images == 0 || call.pixels == 0 || matrix.rows == 0) return;
  const ThreadPool helpers = pool_for(pool, matrix, images * call.pixels);
  const int64_t tiles = divide_up(call.pixels, kernels.tile_pixels);
  const int64_t block_rows = matrix.rows / matrix.block;
  // Few tiles: threads share their rows instead.
  const int64_t row_groups =
      std::max(divide_up(matrix.rows, kMaxRows),
               std::min(block_rows, divide_up(helpers.num_threads, images * tiles)));
  const int64_t group_rows = divide_up(block_rows, row_groups);
  parallel_for(helpers, images * tiles * row_groups, [&](int64_t item) {
    const int64_t group = item % row_groups, tile = item / row_groups % tiles;
    const int64_t image = item / row_groups / tiles;
    const int64_t row_begin = std::min(group * group_rows, block_rows);
    const int64_t row_end = std::min(row_begin + group_rows, block_rows);
    const int64_t first = call.pixels * tile / tiles, last = call.pixels * (tile + 1) / tiles;
    const Scratch memory(scratch_floats(kernels, matrix, group_rows));
    kernels.tile(call, x + image * matrix.cols * call.pixels, y + image * matrix.rows * call.pixels,
                 first, last - first, row_begin, row_end, memory.data());
  });
}

void run_spmm_grad_values(const Kernels& set, const ThreadPool& pool, const SpmmCall& call,
                          int64_t images, const float* x, const float* grad_y, float* grad_values,
                          float* grad_bias) {
  const SpmmKernels& kernels = *set.spmm;
  const SparseMatrix& matrix = call.matrix;
  std::fill_n(grad_values, num_nonzeros(matrix) * matrix.block, 0.f);
  std::fill_n(grad_bias, matrix.rows, 0.f);
  if (images == 0 || call.pixels == 0 || matrix.rows == 0) return;
  const ThreadPool helpers = pool_for(pool, matrix, images * call.pixels);
  const int64_t block_rows = matrix.rows / matrix.block;
  // Each gradient is summed by one thread, in the order of the pixels, however the rows are shared
  // out.
  const int64_t groups =
      std::max(divide_up(matrix.rows, kMaxRows), std::min(block_rows, helpers.num_threads));
  const int64_t group_rows = divide_up(block_rows, groups);
  parallel_for(helpers, groups, [&](int64_t group) {
    const int64_t row_begin = std::min(group * group_rows, block_rows);
    const int64_t row_end = std::min(row_begin + group_rows, block_rows);
    const Scratch memory(scratch_floats(kernels, matrix, group_rows));
    for (int64_t image = 0; image < images; image++)
      for (int64_t first = 0; first < call.pixels; first += kernels.tile_pixels)
        kernels.grad_values_tile(call, x + image * matrix.cols * call.pixels,
                                 grad_y + image * matrix.rows * call.pixels, first,
                                 std::min(kernels.tile_pixels, call.pixels - first), row_begin,
                                 row_end, grad_values, grad_bias, memory.data());
  });
}

}  // namespace sparsejax
