// Norms and softmax over the channels of each pixel, fp32.
//
// x and out have [channels][pitch], pitch 1, 4, 8 or a multiple of 16; out may be x. Channels may
// be read and written in whole vectors up to `pixels` rounded up to 16, but not beyond the pitch.
#pragma once
#include <cstdint>

namespace sparsejax {

struct NormCall {
  const float* x;
  int64_t channels, pitch, pixels;
  float* out;
};

struct NormKernels {
  // (x - mean) / sqrt(variance + epsilon) * scale + shift, scale and shift one number a channel.
  void (*layer_norm)(const NormCall& call, const float* scale, const float* shift, float epsilon);
  // x / sqrt(mean of x^2 + epsilon) * scale + shift.
  void (*rms_norm)(const NormCall& call, const float* scale, const float* shift, float epsilon);
  // exp(x - largest) / sum; NaN where all are -inf, or one is inf or NaN.
  void (*softmax)(const NormCall& call);
};

}  // namespace sparsejax
