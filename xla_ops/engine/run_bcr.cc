// Cuts products of matrices of runs into tiles and groups; see run.h.
#include <algorithm>

#include "engine/bcr_matrix.h"
#include "engine/run.h"
#include "kernels/sizes.h"
#include "threads/scratch.h"

namespace sparsejax {
namespace {

// Multiply-adds below which helping threads cost more than they bring, as for spmm.
constexpr int64_t kSmallWork = 100000;
// Floats of a packed tile and its sums: half of a second-level cache of 512 KB.
constexpr int64_t kTileFloats = 1 << 16;
constexpr int64_t kMostLanes = 16;

int64_t tile_pixels(const BcrKernels& kernels, const BcrMatrix& matrix) {
  int64_t pixels = kernels.tile_pixels;
  while (pixels > kMostLanes && pixels * (matrix.num_rows + matrix.num_cols) > kTileFloats)
    pixels /= 2;
  return pixels;
}

int64_t scratch_floats(const BcrMatrix& matrix, int64_t pixels) {
  return (matrix.num_rows + matrix.num_cols) * round_up(pixels, kMostLanes);
}

ThreadPool pool_for(const ThreadPool& pool, const BcrMatrix& matrix, int64_t pixels) {
  const double work = static_cast<double>(matrix.value_starts[matrix.num_runs]) * pixels;
  return work < kSmallWork ? ThreadPool{} : pool;
}

}  // namespace

void run_bcr(const Kernels& set, const ThreadPool& pool, const BcrCall& call, int64_t images,
             const float* x, float* y) {
  const BcrMatrix& matrix = call.matrix;
  if (images == 0 || call.pixels == 0 || matrix.num_rows == 0) return;
  const ThreadPool helpers = pool_for(pool, matrix, images * call.pixels);
  const int64_t most = tile_pixels(*set.bcr, matrix), tiles = divide_up(call.pixels, most);
  // Few tiles: threads share their rows instead.
  const BcrGroups groups = grouped(matrix, divide_up(helpers.num_threads, images * tiles));
  const int64_t num_groups = static_cast<int64_t>(groups.groups.size());
  parallel_for(helpers, images * tiles * num_groups, [&](int64_t item) {
    const int64_t tile = item / num_groups % tiles, image = item / num_groups / tiles;
    const int64_t first = call.pixels * tile / tiles, last = call.pixels * (tile + 1) / tiles;
    const Scratch memory(scratch_floats(matrix, most));
    set.bcr->tile(call, groups.groups[item % num_groups], x + image * matrix.num_cols * call.pixels,
                  y + image * matrix.num_rows * call.pixels, first, last - first, memory.data());
  });
}

void run_bcr_grad_values(const Kernels& set, const ThreadPool& pool, const BcrCall& call,
                         int64_t images, const float* x, const float* grad_y, float* grad_values) {
  const BcrMatrix& matrix = call.matrix;
  std::fill_n(grad_values, matrix.value_starts[matrix.num_runs], 0.f);
  if (images == 0 || call.pixels == 0 || matrix.num_runs == 0) return;
  const ThreadPool helpers = pool_for(pool, matrix, images * call.pixels);
  const int64_t most = tile_pixels(*set.bcr, matrix);
  const int64_t groups = std::min(matrix.num_runs, helpers.num_threads);
  // Each gradient is summed by one thread, in the order of the pixels.
  parallel_for(helpers, groups, [&](int64_t group) {
    const Scratch memory(scratch_floats(matrix, most));
    for (int64_t image = 0; image < images; image++)
      for (int64_t first = 0; first < call.pixels; first += most)
        set.bcr->grad_values_tile(call, matrix.num_runs * group / groups,
                                  matrix.num_runs * (group + 1) / groups,
                                  x + image * matrix.num_cols * call.pixels,
                                  grad_y + image * matrix.num_rows * call.pixels, first,
                                  std::min(most, call.pixels - first), grad_values, memory.data());
  });
}

}  // namespace sparsejax
