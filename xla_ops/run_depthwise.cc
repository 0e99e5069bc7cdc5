// Cuts depthwise convolution and its gradients into bands of rows; see run.h.
#include <algorithm>
#include <vector>

#include "run.h"
#include "scratch.h"

namespace sparsejax {
namespace {

// Outputs that a band should have: enough that claiming it costs nothing, few enough that threads
// share a layer.
constexpr int64_t kBandOutputs = 16384;
// Partial sums of the kernel's gradient: a fixed number, so that their order does not depend on the
// threads.
constexpr int64_t kPartials = 16;

void run_phase(const DepthwiseKernels& kernels, const Pool& pool, const DepthwiseCall& call,
               int64_t images, const float* x, float* out) {
  const int64_t row_outputs = std::max<int64_t>(1, call.x.out * call.channels);
  const int64_t band = std::max<int64_t>(1, kBandOutputs / row_outputs);
  const int64_t bands = (call.y.out + band - 1) / band;
  const int64_t image_size = call.y.in * call.x.in * call.channels;
  const int64_t out_size = call.y.out_size * call.x.out_size * call.channels;
  parallel_for(pool, images * bands, [&](int64_t item) {
    const int64_t image = item / bands, begin = item % bands * band;
    kernels.rows_channels_last(call, x + image * image_size, out + image * out_size, begin,
                               std::min(begin + band, call.y.out));
  });
}

}  // namespace

void run_depthwise(const DepthwiseKernels& kernels, const Pool& pool, const ConvSizes& sizes,
                   const float* kernel, const float* bias, Activation activation, const float* x,
                   float* out) {
  const DepthwiseCall call = {
      forward_axis(sizes.y), forward_axis(sizes.x), sizes.channels, kernel, bias, activation};
  run_phase(kernels, pool, call, sizes.images, x, out);
}

void run_depthwise_grad_x(const DepthwiseKernels& kernels, const Pool& pool, const ConvSizes& sizes,
                          const float* kernel, const float* grad_out, float* grad_x) {
  for (int64_t y = 0; y < std::min(sizes.y.stride, sizes.y.in); y++)
    for (int64_t x = 0; x < std::min(sizes.x.stride, sizes.x.in); x++) {
      const DepthwiseCall call = {
          grad_axis(sizes.y, y), grad_axis(sizes.x, x), sizes.channels, kernel, nullptr,
          Activation::kNone};
      run_phase(kernels, pool, call, sizes.images, grad_out, grad_x);
    }
}

void run_depthwise_grad_kernel(const DepthwiseKernels& kernels, const Pool& pool,
                               const ConvSizes& sizes, const float* x, const float* grad_out,
                               float* grad_kernel, float* grad_bias) {
  const DepthwiseCall call = {
      forward_axis(sizes.y), forward_axis(sizes.x), sizes.channels, nullptr, nullptr,
      Activation::kNone};
  const int64_t kernel_size = sizes.y.kernel * sizes.x.kernel * sizes.channels;
  const int64_t partial_size = kernel_size + sizes.channels;
  const int64_t rows = sizes.images * sizes.y.out, partials = std::min(kPartials, rows);
  std::vector<float> sums(partials * partial_size, 0.f);
  parallel_for(pool, partials, [&](int64_t part) {
    float* sum = sums.data() + part * partial_size;
    const int64_t last = rows * (part + 1) / partials;
    for (int64_t row = rows * part / partials; row < last;) {
      const int64_t image = row / sizes.y.out, begin = row % sizes.y.out;
      const int64_t end = std::min(sizes.y.out, begin + last - row);
      kernels.grad_kernel_channels_last(
          call, x + image * sizes.y.in * sizes.x.in * sizes.channels,
          grad_out + image * sizes.y.out * sizes.x.out * sizes.channels, begin, end, sum,
          sum + kernel_size);
      row += end - begin;
    }
  });
  std::fill_n(grad_kernel, kernel_size, 0.f);
  std::fill_n(grad_bias, sizes.channels, 0.f);
  for (int64_t part = 0; part < partials; part++) {
    const float* sum = sums.data() + part * partial_size;
    for (int64_t i = 0; i < kernel_size; i++) grad_kernel[i] += sum[i];
    for (int64_t c = 0; c < sizes.channels; c++) grad_bias[c] += sum[kernel_size + c];
  }
}

}  // namespace sparsejax
