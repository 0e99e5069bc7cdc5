// Depthwise convolution of strips; see window.h. Compiled once for each instruction set.
#include "elementwise.h"
#include "window_rows.h"

namespace sparsejax::SPARSEJAX_TARGET {

extern const ElementwiseKernels elementwise;

namespace {

// Tap by tap, for windows of any shape; exactly the strip is written.
void any_window(const WindowCall& call, int64_t channel, const float* weights, float bias,
                const ActivationCall& activation, float* out) {
  const Window& window = call.window;
  float* taps = call.scratch;
  float* sums = call.scratch + (window.out_width + 15) / 16 * 16;
  for (int64_t o = 0; o < call.out_rows; o++, out += window.out_width) {
    fill(sums, window.out_width, bias);
    for (int64_t t = 0; t < window.kernel_y * window.kernel_x; t++) {
      const float* row = row_of(call, channel, o, t / window.kernel_x);
      if (!row) continue;
      const float weight = weights[t];
      tap_row(window, row, t % window.kernel_x, 1.f, 0.f, taps);
      for (int64_t x = 0; x < window.out_width; x++) sums[x] += weight * taps[x];
    }
    elementwise.activate(activation, sums, window.out_width, sums);
    copy_scaled(sums, 1, window.out_width, 1.f, out);
  }
}

}  // namespace

void window_depthwise(const WindowCall& call, const float* weights, const float* bias,
                      const ActivationCall& activation) {
  const int64_t taps = call.window.kernel_y * call.window.kernel_x;
  for (int64_t c = call.channel_begin; c < call.channel_end; c++)
    any_window(call, c, weights + c * taps, bias[c], activation, call.out + c * call.out_pitch);
}

}  // namespace sparsejax::SPARSEJAX_TARGET
