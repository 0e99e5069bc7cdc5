// depthwise_conv2d and its gradients as XLA custom calls.
#include <limits>

#include "bind/arrays.h"
#include "engine/run.h"
#include "kernels/kernels.h"

namespace sparsejax {
namespace {

using Ints = ffi::Span<const int64_t>;

// Attributes hold two numbers each, y before x.
struct Window {
  Ints strides, dilation, pads;
  bool channels_last;
};

AxisSizes axis_sizes(const Window& window, int axis, int64_t in, int64_t out, int64_t kernel) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  const AxisSizes s = {
      in, out, kernel, window.strides[axis], window.dilation[axis], window.pads[axis]};
  need(kernel >= 1 && kernel <= kMaxTaps, [&] {
    return std::string("kernel must have 1 to " + std::to_string(kMaxTaps) + " taps an axis, got " +
                       std::to_string(kernel));
  });
  need(s.stride >= 1 && s.stride <= kMax && s.dilation >= 1 && s.dilation <= kMax &&
           s.pad_low >= -kMax && s.pad_low <= kMax && in <= kMax && out <= kMax,
       [&] { return std::string("strides, dilation, padding and sizes must be within int32"); });
  return s;
}

ConvSizes conv_sizes(const Window& window, const Array& x, const Array& kernel, const Array& y) {
  need(window.strides.size() == 2 && window.dilation.size() == 2 && window.pads.size() == 2,
       [&] { return std::string("strides, dilation and padding must have two numbers"); });
  const int row = window.channels_last ? 1 : 2, channel = window.channels_last ? 3 : 1;
  need_sizes(kernel, {kernel.sizes[0], kernel.sizes[1], x.sizes[channel]});
  need(y.sizes[0] == x.sizes[0] && y.sizes[channel] == x.sizes[channel],
       [&] { return std::string(y.name + " must have the images and channels of " + x.name); });
  return {x.sizes[0], x.sizes[channel],
          axis_sizes(window, 0, x.sizes[row], y.sizes[row], kernel.sizes[0]),
          axis_sizes(window, 1, x.sizes[row + 1], y.sizes[row + 1], kernel.sizes[1]),
          window.channels_last};
}

void need_scratch(bool computed) {
  need(computed, [] {
    return "dilation or padding (or a plane) is too large: it takes more than " +
           std::to_string(kMaxScratch / (1 << 18)) + " MB a thread";
  });
}

ffi::Error Depthwise(ffi::ThreadPool threads, ffi::AnyBuffer kernel_buffer,
                     ffi::AnyBuffer bias_buffer, ffi::AnyBuffer x_buffer,
                     ffi::Result<ffi::AnyBuffer> y_buffer, Ints strides, Ints dilation, Ints pads,
                     int64_t activation, bool channels_last) {
  return guarded("depthwise_conv2d", [&] {
    const Array kernel("kernel", kernel_buffer, ffi::F32, 3);
    const Array bias("bias", bias_buffer, ffi::F32, 1);
    const Array x("x", x_buffer, ffi::F32, 4), y("y", *y_buffer, ffi::F32, 4);
    const ConvSizes sizes = conv_sizes({strides, dilation, pads, channels_last}, x, kernel, y);
    if (bias.sizes[0] != 0) need_sizes(bias, {sizes.channels});
    const Activation after = activation_of(activation);
    const Batch batch({&y}, {&kernel, &bias, &x});
    for (int64_t i = 0; i < batch.size(); i++)
      need_scratch(run_depthwise(kernels(), pool_of(threads), sizes, batch.at<float>(kernel, i),
                                 bias.sizes[0] ? batch.at<float>(bias, i) : nullptr, after,
                                 batch.at<float>(x, i), batch.at<float>(y, i)));
  });
}

ffi::Error DepthwiseGradX(ffi::ThreadPool threads, ffi::AnyBuffer kernel_buffer,
                          ffi::AnyBuffer grad_y_buffer, ffi::Result<ffi::AnyBuffer> grad_x_buffer,
                          Ints strides, Ints dilation, Ints pads, bool channels_last) {
  return guarded("depthwise_conv2d gradient in x", [&] {
    const Array kernel("kernel", kernel_buffer, ffi::F32, 3);
    const Array grad_y("grad_y", grad_y_buffer, ffi::F32, 4);
    const Array grad_x("grad_x", *grad_x_buffer, ffi::F32, 4);
    const ConvSizes sizes =
        conv_sizes({strides, dilation, pads, channels_last}, grad_x, kernel, grad_y);
    const Batch batch({&grad_x}, {&kernel, &grad_y});
    for (int64_t i = 0; i < batch.size(); i++)
      need_scratch(run_depthwise_grad_x(kernels(), pool_of(threads), sizes,
                                        batch.at<float>(kernel, i), batch.at<float>(grad_y, i),
                                        batch.at<float>(grad_x, i)));
  });
}

ffi::Error DepthwiseGradKernel(ffi::ThreadPool threads, ffi::AnyBuffer x_buffer,
                               ffi::AnyBuffer grad_y_buffer,
                               ffi::Result<ffi::AnyBuffer> grad_kernel_buffer,
                               ffi::Result<ffi::AnyBuffer> grad_bias_buffer, Ints strides,
                               Ints dilation, Ints pads, bool channels_last) {
  return guarded("depthwise_conv2d gradient in kernel", [&] {
    const Array x("x", x_buffer, ffi::F32, 4), grad_y("grad_y", grad_y_buffer, ffi::F32, 4);
    const Array grad_kernel("grad_kernel", *grad_kernel_buffer, ffi::F32, 3);
    const Array grad_bias("grad_bias", *grad_bias_buffer, ffi::F32, 1);
    const ConvSizes sizes =
        conv_sizes({strides, dilation, pads, channels_last}, x, grad_kernel, grad_y);
    need_sizes(grad_bias, {sizes.channels});
    const Batch batch({&grad_kernel, &grad_bias}, {&x, &grad_y});
    for (int64_t i = 0; i < batch.size(); i++)
      need_scratch(run_depthwise_grad_kernel(
          kernels(), pool_of(threads), sizes, batch.at<float>(x, i), batch.at<float>(grad_y, i),
          batch.at<float>(grad_kernel, i), batch.at<float>(grad_bias, i)));
  });
}

using Any = ffi::AnyBuffer;

}  // namespace
}  // namespace sparsejax

using namespace sparsejax;

XLA_FFI_DEFINE_HANDLER_SYMBOL(sparsejax_depthwise, Depthwise,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Any>()
                                  .Arg<Any>()
                                  .Arg<Any>()
                                  .Ret<Any>()
                                  .Attr<Ints>("strides")
                                  .Attr<Ints>("dilation")
                                  .Attr<Ints>("pads")
                                  .Attr<int64_t>("activation")
                                  .Attr<bool>("channels_last"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(sparsejax_depthwise_grad_x, DepthwiseGradX,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Any>()
                                  .Arg<Any>()
                                  .Ret<Any>()
                                  .Attr<Ints>("strides")
                                  .Attr<Ints>("dilation")
                                  .Attr<Ints>("pads")
                                  .Attr<bool>("channels_last"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(sparsejax_depthwise_grad_kernel, DepthwiseGradKernel,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Any>()
                                  .Arg<Any>()
                                  .Ret<Any>()
                                  .Ret<Any>()
                                  .Attr<Ints>("strides")
                                  .Attr<Ints>("dilation")
                                  .Attr<Ints>("pads")
                                  .Attr<bool>("channels_last"));
