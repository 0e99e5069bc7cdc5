// What slides a window over rows of planes, fp32: depthwise convolution, im2col, pooling.
//
// Rows of a channel-major image may lie anywhere: rows[i] points to row i of channel 0, null where
// the row lies outside of the image, and channel c is `pitch` floats further. 16 floats before and
// behind every row can be read (their content is junk, NaN perhaps). Results are
// [channel][out_pitch] with row o at o * out_width; rows narrower than 16 may be written as 16
// floats, so that up to 16 - out_width floats behind the last row are overwritten, and none where
// rows are wider.
#pragma once
#include <cstdint>

#include "kernels/activation.h"

namespace sparsejax {

struct Window {
  int64_t kernel_y, kernel_x, stride_y, stride_x, dilation_y, dilation_x;
  int64_t pad_left;  // >= 0; what lies right of the row counts as outside, too
  int64_t in_width, out_width;
};

// Output row o reads rows[o * stride_y + ky * dilation_y].
struct WindowCall {
  Window window;
  const float* const* rows;
  int64_t pitch;
  int64_t channel_begin, channel_end;
  float* out;  // of channel 0
  int64_t out_pitch, out_rows;
  float* scratch;  // scratch_floats(window, out_rows), 64-byte aligned
};

struct WindowKernels {
  int64_t (*scratch_floats)(const Window& window, int64_t out_rows);
  // out[c] = activation(bias[c] + sum_t weights[c][t] x[c] at tap t). Functions other than a clamp
  // go over whole vectors: out_pitch has room for the rows' floats rounded up to 16. sums[c] = the
  // sum of out[c], unless null.
  void (*depthwise)(const WindowCall& call, const float* weights, const float* bias,
                    const ActivationCall& activation, float* sums);
  // out[(c * kernel_y + ky) * kernel_x + kx] = gate[c] * x[c] at tap (ky, kx); gate may be null.
  void (*columns)(const WindowCall& call, const float* gate);
  // out[c] = max over the taps inside the image; NaN if there is one among them.
  void (*max_pool)(const WindowCall& call);
  // out[c] = sum over the taps inside the image, times scale[o * out_width + x].
  void (*average_pool)(const WindowCall& call, const float* scale);
};

}  // namespace sparsejax
