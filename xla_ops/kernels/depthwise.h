// Depthwise convolution, fp32: each channel is convolved with its own taps; and its gradient in the
// taps.
//
// An axis says where each tap reads: output position o (written at out_first + o * out_step) reads
// input position o * step + offset[t] with the kernel's tap index[t]; positions outside [0, in)
// count as zero. So one kernel serves every size, stride, padding and dilation, and the gradient in
// x too (one call for each phase of the stride).
#pragma once
#include <cstdint>

#include "kernels/activation.h"

namespace sparsejax {

constexpr int64_t kMaxTaps = 32;  // on one axis

struct Axis {
  int64_t out, in, step;
  int64_t out_first, out_step, out_size;  // out_size: extent of the written array
  int64_t num_taps, kernel_size;
  int64_t index[kMaxTaps], offset[kMaxTaps];
  int64_t whole_begin, whole_end;  // outputs for which every tap is inside
};

constexpr int64_t kLine = 16;  // floats of a cache line

// Taps [y.kernel_size][x.kernel_size][channels] as the channels-last kernels want them: by lines of
// channels,
// [(channels + 15) / 16][y.kernel_size][x.kernel_size][16].
struct DepthwiseCall {
  Axis y, x;
  int64_t channels;
  const float* kernel;  // packed as above for channels-last, plain for planes
  const float* bias;    // [channels], may be null
  Activation activation;
};

struct DepthwiseKernels {
  // Output rows [begin, end) of one image [in y][in x][channels] -> [out_size y][out_size
  // x][channels].
  void (*rows)(const DepthwiseCall& call, const float* image, float* out, int64_t begin,
               int64_t end);
  // Adds what output rows [begin, end) of one image say to grad_kernel (packed as above) and
  // grad_bias.
  void (*grad_kernel_rows)(const DepthwiseCall& call, const float* image, const float* grad_out,
                           int64_t begin, int64_t end, float* grad_kernel, float* grad_bias);
};

// The same on channel-major images, plane by plane: [in y][in x] -> [out_size y][out_size x].
// Scratch is 64-byte aligned; taps that lie far apart need much of it.
struct DepthwisePlaneKernels {
  int64_t (*scratch_floats)(const DepthwiseCall& call);
  // Planes [begin, end) of all images; plane i is channel i % channels.
  void (*planes)(const DepthwiseCall& call, int64_t begin, int64_t end, const float* in, float* out,
                 float* scratch);
  int64_t (*grad_scratch_floats)(const DepthwiseCall& call);
  // grad_kernel as sums[y.num_taps][x.num_taps] and *grad_bias of one channel, over all images.
  void (*grad_kernel_channel)(const DepthwiseCall& call, int64_t channel, int64_t images,
                              const float* in, const float* grad_out, float* sums, float* grad_bias,
                              float* scratch);
};

}  // namespace sparsejax
