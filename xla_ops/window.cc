// The table of window.h's kernels. Compiled once for each instruction set.
#include "window_rows.h"

namespace sparsejax::SPARSEJAX_TARGET {
namespace {

int64_t scratch_floats(const Window& window, int64_t) { return (window.out_width + 15) / 16 * 32; }

}  // namespace

extern const WindowKernels window = {scratch_floats, window_depthwise, window_columns,
                                     window_max_pool, window_average_pool};

}  // namespace sparsejax::SPARSEJAX_TARGET
