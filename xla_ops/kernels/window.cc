// The table of window.h's kernels. Compiled once for each instruction set.
#include "kernels/window_rows.h"

namespace sparsejax::SPARSEJAX_TARGET {
namespace {

int64_t scratch_floats(const Window& window, int64_t out_rows) {
  const int64_t depthwise = depthwise_scratch_floats(window, out_rows);  // columns need less
  const int64_t pool = pool_scratch_floats(window);
  return depthwise > pool ? depthwise : pool;
}

}  // namespace

extern const WindowKernels window = {scratch_floats, window_depthwise, window_columns,
                                     window_max_pool, window_average_pool};

}  // namespace sparsejax::SPARSEJAX_TARGET
