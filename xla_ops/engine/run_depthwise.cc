// Cuts depthwise convolution and its gradients into bands of rows; see run.h.
#include <algorithm>
#include <vector>

#include "engine/run.h"
#include "kernels/sizes.h"
#include "threads/scratch.h"

namespace sparsejax {
namespace {

// Outputs that a band should have: enough that claiming it costs nothing, few enough that threads
// share a layer.
constexpr int64_t kBandOutputs = 16384;
// Partial sums of the kernel's gradient: a fixed number, so that their order does not depend on the
// threads.
constexpr int64_t kPartials = 16;

std::vector<float> packed_taps(const float* kernel, const ConvSizes& sizes) {
  const int64_t taps = sizes.y.kernel * sizes.x.kernel;
  std::vector<float> packed(round_up(sizes.channels, kLine) * taps, 0.f);
  for (int64_t t = 0; t < taps; t++)
    for (int64_t c = 0; c < sizes.channels; c++)
      packed[(c / kLine * taps + t) * kLine + c % kLine] = kernel[t * sizes.channels + c];
  return packed;
}

void run_bands(const DepthwiseKernels& kernels, const ThreadPool& pool, const DepthwiseCall& call,
               int64_t images, const float* x, float* out) {
  if (images == 0 || call.x.out == 0 || call.channels == 0) return;
  const int64_t row_outputs = call.x.out * call.channels;
  const int64_t band = std::max<int64_t>(1, kBandOutputs / row_outputs);
  const int64_t bands = divide_up(call.y.out, band);
  const int64_t image_size = call.y.in * call.x.in * call.channels;
  const int64_t out_size = call.y.out_size * call.x.out_size * call.channels;
  parallel_for(pool, images * bands, [&](int64_t item) {
    const int64_t image = item / bands, begin = item % bands * band;
    kernels.rows(call, x + image * image_size, out + image * out_size, begin,
                 std::min(begin + band, call.y.out));
  });
}

bool run_planes(const DepthwisePlaneKernels& kernels, const ThreadPool& pool,
                const DepthwiseCall& call, int64_t images, const float* x, float* out) {
  const int64_t planes = images * call.channels;
  if (planes == 0 || call.y.out == 0 || call.x.out == 0) return true;
  const int64_t out_size = call.y.out * call.x.out;
  // Items of about kBandOutputs: a small plane takes less time than its claim.
  const int64_t group = std::max<int64_t>(1, kBandOutputs / std::max<int64_t>(1, out_size));
  const int64_t floats = kernels.scratch_floats(call);
  if (floats > kMaxScratch) return false;
  parallel_for(pool, divide_up(planes, group), [&](int64_t item) {
    const Scratch memory(floats);
    kernels.planes(call, item * group, std::min((item + 1) * group, planes), x, out, memory.data());
  });
  return true;
}

void grad_kernel_channels_last(const DepthwiseKernels& kernels, const ThreadPool& pool,
                               const DepthwiseCall& call, int64_t images, const float* x,
                               const float* grad_out, float* grad_kernel, float* grad_bias) {
  const int64_t taps = call.y.kernel_size * call.x.kernel_size;
  const int64_t kernel_size = round_up(call.channels, kLine) * taps;
  const int64_t partial_size = kernel_size + call.channels;
  if (images == 0 || call.x.out == 0) return;
  const int64_t rows = images * call.y.out, partials = std::min(kPartials, rows);
  std::vector<float> sums(partials * partial_size, 0.f);
  parallel_for(pool, partials, [&](int64_t part) {
    float* sum = sums.data() + part * partial_size;
    const int64_t last = rows * (part + 1) / partials;
    for (int64_t row = rows * part / partials; row < last;) {
      const int64_t image = row / call.y.out, begin = row % call.y.out;
      const int64_t end = std::min(call.y.out, begin + last - row);
      kernels.grad_kernel_rows(call, x + image * call.y.in * call.x.in * call.channels,
                               grad_out + image * call.y.out * call.x.out * call.channels, begin,
                               end, sum, sum + kernel_size);
      row += end - begin;
    }
  });
  for (int64_t part = 0; part < partials; part++) {
    const float* sum = sums.data() + part * partial_size;
    for (int64_t t = 0; t < taps; t++)
      for (int64_t c = 0; c < call.channels; c++)
        grad_kernel[t * call.channels + c] += sum[(c / kLine * taps + t) * kLine + c % kLine];
    for (int64_t c = 0; c < call.channels; c++) grad_bias[c] += sum[kernel_size + c];
  }
}

bool grad_kernel_planes(const DepthwisePlaneKernels& kernels, const ThreadPool& pool,
                        const DepthwiseCall& call, int64_t images, const float* x,
                        const float* grad_out, float* grad_kernel, float* grad_bias) {
  if (images == 0 || call.y.out == 0 || call.x.out == 0) return true;
  const int64_t taps = call.y.num_taps * call.x.num_taps;
  const int64_t floats = kernels.grad_scratch_floats(call);
  if (floats > kMaxScratch) return false;
  parallel_for(pool, call.channels, [&](int64_t c) {
    const Scratch memory(taps + 16 + floats);
    float* sums = memory.data();
    kernels.grad_kernel_channel(call, c, images, x, grad_out, sums, grad_bias + c,
                                sums + round_up(taps, 16));
    for (int64_t t = 0; t < taps; t++) grad_kernel[t * call.channels + c] = sums[t];
  });
  return true;
}

}  // namespace

bool run_depthwise(const Kernels& kernels, const ThreadPool& pool, const ConvSizes& sizes,
                   const float* kernel, const float* bias, Activation activation, const float* x,
                   float* out) {
  DepthwiseCall call = {
      forward_axis(sizes.y), forward_axis(sizes.x), sizes.channels, kernel, bias, activation};
  if (!sizes.channels_last)
    return run_planes(*kernels.depthwise_planes, pool, call, sizes.images, x, out);
  const std::vector<float> packed = packed_taps(kernel, sizes);
  call.kernel = packed.data();
  run_bands(*kernels.depthwise, pool, call, sizes.images, x, out);
  return true;
}

bool run_depthwise_grad_x(const Kernels& kernels, const ThreadPool& pool, const ConvSizes& sizes,
                          const float* kernel, const float* grad_out, float* grad_x) {
  if (sizes.images == 0 || sizes.channels == 0) return true;
  const std::vector<float> packed = packed_taps(kernel, sizes);
  for (int64_t y = 0; y < std::min(sizes.y.stride, sizes.y.in); y++)
    for (int64_t x = 0; x < std::min(sizes.x.stride, sizes.x.in); x++) {
      DepthwiseCall call = {
          grad_axis(sizes.y, y), grad_axis(sizes.x, x), sizes.channels, kernel, nullptr,
          Activation::kNone};
      if (sizes.channels_last) {
        call.kernel = packed.data();
        run_bands(*kernels.depthwise, pool, call, sizes.images, grad_out, grad_x);
      } else if (!run_planes(*kernels.depthwise_planes, pool, call, sizes.images, grad_out,
                             grad_x)) {
        return false;
      }
    }
  return true;
}

bool run_depthwise_grad_kernel(const Kernels& kernels, const ThreadPool& pool,
                               const ConvSizes& sizes, const float* x, const float* grad_out,
                               float* grad_kernel, float* grad_bias) {
  const DepthwiseCall call = {
      forward_axis(sizes.y), forward_axis(sizes.x), sizes.channels, nullptr, nullptr,
      Activation::kNone};
  std::fill_n(grad_kernel, sizes.y.kernel * sizes.x.kernel * sizes.channels, 0.f);
  std::fill_n(grad_bias, sizes.channels, 0.f);
  if (!sizes.channels_last)
    return grad_kernel_planes(*kernels.depthwise_planes, pool, call, sizes.images, x, grad_out,
                              grad_kernel, grad_bias);
  grad_kernel_channels_last(*kernels.depthwise, pool, call, sizes.images, x, grad_out, grad_kernel,
                            grad_bias);
  return true;
}

}  // namespace sparsejax
