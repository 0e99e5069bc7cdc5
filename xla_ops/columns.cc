// im2col of strips; see window.h. Compiled once for each instruction set.
#include "window_rows.h"

namespace sparsejax::SPARSEJAX_TARGET {

void window_columns(const WindowCall& call, const float* gate) {
  const Window& window = call.window;
  for (int64_t c = call.channel_begin; c < call.channel_end; c++)
    for (int64_t ky = 0; ky < window.kernel_y; ky++)
      for (int64_t kx = 0; kx < window.kernel_x; kx++) {
        float* out =
            call.out + ((c * window.kernel_y + ky) * window.kernel_x + kx) * call.out_pitch;
        for (int64_t o = 0; o < call.out_rows; o++, out += window.out_width)
          tap_row(window, row_of(call, c, o, ky), kx, gate ? gate[c] : 1.f, 0.f, out);
      }
}

}  // namespace sparsejax::SPARSEJAX_TARGET
