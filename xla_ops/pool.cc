// Max and average pooling of strips; see window.h. Compiled once for each instruction set.
#include "window_rows.h"

namespace sparsejax::SPARSEJAX_TARGET {
namespace {

// out[x] = combine(out[x], tap[x]) over all taps of an output row, from `start` on.
template <class Combine>
SPARSEJAX_INLINE void pool_row(const WindowCall& call, int64_t channel, int64_t o, float start,
                               const Combine& combine, float* out) {
  const Window& window = call.window;
  fill(out, window.out_width, start);
  for (int64_t ky = 0; ky < window.kernel_y; ky++) {
    const float* row = row_of(call, channel, o, ky);
    if (!row) continue;
    for (int64_t kx = 0; kx < window.kernel_x; kx++) {
      tap_row(window, row, kx, 1.f, start, call.scratch);
      for (int64_t x = 0; x < window.out_width; x++) out[x] = combine(out[x], call.scratch[x]);
    }
  }
}

}  // namespace

void window_max_pool(const WindowCall& call) {
  const auto larger = [](float a, float b) { return a > b || a != a ? a : b; };
  for (int64_t c = call.channel_begin; c < call.channel_end; c++)
    for (int64_t o = 0; o < call.out_rows; o++)
      pool_row(call, c, o, -__builtin_inff(), larger,
               call.out + c * call.out_pitch + o * call.window.out_width);
}

void window_average_pool(const WindowCall& call, const float* scale) {
  const int64_t width = call.window.out_width;
  const auto add = [](float a, float b) { return a + b; };
  for (int64_t c = call.channel_begin; c < call.channel_end; c++)
    for (int64_t o = 0; o < call.out_rows; o++) {
      float* out = call.out + c * call.out_pitch + o * width;
      pool_row(call, c, o, 0.f, add, out);
      for (int64_t x = 0; x < width; x++) out[x] *= scale[o * width + x];
    }
}

}  // namespace sparsejax::SPARSEJAX_TARGET
