// Binds the kernels to XLA's FFI and to Python; the only file that knows both.
//
// Every operand may carry leading dimensions in front of its own (vmap puts them there): each is 1
// or that of the result, and is broadcast.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <limits>
#include <string>
#include <vector>

#include "kernels.h"
#include "run.h"
#include "xla/ffi/api/ffi.h"

namespace nb = nanobind;
namespace ffi = xla::ffi;

namespace sparsejax {
namespace {

using Sizes = std::vector<int64_t>;

struct BadInput {
  std::string message;
};

void need(bool condition, const std::string& message) {
  if (!condition) throw BadInput{message};
}

std::string text(const Sizes& sizes) {
  std::string out = "(";
  for (size_t i = 0; i < sizes.size(); i++) out += (i ? ", " : "") + std::to_string(sizes[i]);
  return out + ")";
}

// An operand or result: leading dimensions and its own.
struct Array {
  std::string name;
  void* data;
  Sizes leading, sizes;
  int64_t slice_size = 1;

  template <class T>
  T* slice(int64_t i) const {
    return static_cast<T*>(data) + i * slice_size;
  }
};

Array read(const char* name, const ffi::AnyBuffer& buffer, ffi::DataType dtype, size_t rank) {
  const auto dims = buffer.dimensions();
  const Sizes sizes(dims.begin(), dims.end());
  need(buffer.element_type() == dtype,
       std::string(name) + " must be " + (dtype == ffi::F32 ? "float32" : "int32"));
  need(sizes.size() >= rank, std::string(name) + " must have at least " + std::to_string(rank) +
                                 " dimensions, got shape " + text(sizes));
  Array array = {name,
                 buffer.untyped_data(),
                 {sizes.begin(), sizes.end() - rank},
                 {sizes.end() - rank, sizes.end()}};
  for (int64_t size : array.sizes) array.slice_size *= size;
  return array;
}

int64_t product(const Sizes& sizes) {
  int64_t n = 1;
  for (int64_t size : sizes) n *= size;
  return n;
}

void need_sizes(const Array& array, const Sizes& sizes) {
  need(array.sizes == sizes,
       array.name + " must have shape " + text(sizes) + ", got " + text(array.sizes));
}

// Which slice of an array belongs to slice `index` of the result.
int64_t slice_for(const Array& array, const Sizes& leading, int64_t index) {
  need(array.leading.size() == leading.size(), array.name + " has too few or too many dimensions");
  int64_t slice = 0, stride = 1;
  for (size_t d = leading.size(); d-- > 0;) {
    const int64_t at = index % leading[d], size = array.leading[d];
    need(size == 1 || size == leading[d],
         array.name + " has a leading dimension that does not fit");
    slice += size == 1 ? 0 : at * stride;
    stride *= size;
    index /= leading[d];
  }
  return slice;
}

// Runs `body`, and turns what it throws into XLA's errors: nothing may unwind into XLA.
template <class F>
ffi::Error guarded(const char* op, const F& body) {
  try {
    body();
    return ffi::Error::Success();
  } catch (const BadInput& bad) {
    return ffi::Error::InvalidArgument(std::string(op) + ": " + bad.message + ".");
  } catch (const std::exception& error) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, std::string(op) + ": " + error.what());
  }
}

Pool pool_of(ffi::ThreadPool& threads) {
  return {threads.num_threads(),
          [&threads](std::function<void()> task) { threads.Schedule(std::move(task)); }};
}

Activation activation_of(int64_t code) {
  need(code >= 0 && code <= 2, "activation must be 0, 1 or 2, got " + std::to_string(code));
  return static_cast<Activation>(code);
}

// ---- spmm
// -----------------------------------------------------------------------------------------------------

struct MatrixArrays {
  Array indices, row_starts;
  int64_t rows, cols, block;

  Structure structure(const Sizes& leading, int64_t i) const {
    const Structure s = {rows,
                         cols,
                         block,
                         indices.sizes[0],
                         indices.slice<int32_t>(slice_for(indices, leading, i)),
                         row_starts.slice<int32_t>(slice_for(row_starts, leading, i))};
    const std::string wrong = problem(s);
    need(wrong.empty(), wrong);
    return s;
  }
};

MatrixArrays read_matrix(const ffi::AnyBuffer& indices, const ffi::AnyBuffer& row_starts,
                         int64_t rows, int64_t cols, int64_t block) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  need(block == 1 || block == 2 || block == 4 || block == 8,
       "block must have 1, 2, 4 or 8 rows, got " + std::to_string(block));
  need(rows >= 0 && cols >= 0 && rows <= kMax && cols <= kMax && rows % block == 0,
       "matrix_shape must be within int32 and a multiple of the block, got " + text({rows, cols}));
  MatrixArrays m = {read("indices", indices, ffi::S32, 1),
                    read("row_starts", row_starts, ffi::S32, 1), rows, cols, block};
  need(m.indices.sizes[0] * block <= kMax, "values has too many elements for int32 indices");
  need_sizes(m.row_starts, {rows / block + 1});
  return m;
}

// x is (images, channels, pixels) or, channels last, (pixels, channels).
Sizes activations(bool channels_last, int64_t images, int64_t channels, int64_t pixels) {
  return channels_last ? Sizes{pixels, channels} : Sizes{images, channels, pixels};
}

ffi::Error Spmm(ffi::ThreadPool threads, ffi::AnyBuffer values_buffer, ffi::AnyBuffer indices,
                ffi::AnyBuffer row_starts, ffi::AnyBuffer bias_buffer, ffi::AnyBuffer x_buffer,
                ffi::Result<ffi::AnyBuffer> y_buffer, int64_t rows, int64_t cols, int64_t block,
                int64_t activation, bool channels_last, bool transpose) {
  return guarded("spmm", [&] {
    const MatrixArrays m = read_matrix(indices, row_starts, rows, cols, block);
    const Array values = read("values", values_buffer, ffi::F32, 2);
    const Array bias = read("bias", bias_buffer, ffi::F32, 1);
    const size_t rank = channels_last ? 2 : 3;
    const Array x = read("x", x_buffer, ffi::F32, rank), y = read("y", *y_buffer, ffi::F32, rank);
    need_sizes(values, {m.indices.sizes[0], block});
    const int64_t out = transpose ? cols : rows, in = transpose ? rows : cols;
    if (bias.sizes[0] != 0) need_sizes(bias, {out});
    int64_t images = channels_last ? 1 : x.sizes[0], pixels = x.sizes[channels_last ? 0 : 2];
    need_sizes(x, activations(channels_last, images, in, pixels));
    need_sizes(y, activations(channels_last, images, out, pixels));
    // One matrix for all slices: they are so many more images or pixels.
    int64_t slices = product(y.leading);
    const bool shared = product(values.leading) == 1 && product(m.indices.leading) == 1 &&
                        product(m.row_starts.leading) == 1 && product(bias.leading) == 1;
    if (shared && x.leading == y.leading && slices > 0) {
      (channels_last ? pixels : images) *= slices;
      slices = 1;
    }
    const int64_t chunk_cols = kernels().spmm->chunk_cols;
    for (int64_t i = 0; i < slices; i++) {
      Structure structure = m.structure(y.leading, i);
      const float* weights = values.slice<float>(slice_for(values, y.leading, i));
      Transposed other;
      if (transpose) {
        other = transposed(structure, weights);
        structure = {cols,
                     rows,
                     1,
                     static_cast<int64_t>(other.indices.size()),
                     other.indices.data(),
                     other.row_starts.data()};
        weights = other.values.data();
      }
      const ChunkedMatrix matrix = chunked(structure, weights, chunk_cols);
      const float* b = bias.sizes[0] ? bias.slice<float>(slice_for(bias, y.leading, i)) : nullptr;
      const SpmmCall call = {matrix.matrix, b, activation_of(activation), channels_last, pixels};
      run_spmm(kernels(), pool_of(threads), call, images,
               x.slice<float>(slice_for(x, y.leading, i)), y.slice<float>(i));
    }
  });
}

ffi::Error SpmmGradValues(ffi::ThreadPool threads, ffi::AnyBuffer indices,
                          ffi::AnyBuffer row_starts, ffi::AnyBuffer x_buffer,
                          ffi::AnyBuffer grad_y_buffer,
                          ffi::Result<ffi::AnyBuffer> grad_values_buffer,
                          ffi::Result<ffi::AnyBuffer> grad_bias_buffer, int64_t rows, int64_t cols,
                          int64_t block, bool channels_last) {
  return guarded("spmm gradient", [&] {
    const MatrixArrays m = read_matrix(indices, row_starts, rows, cols, block);
    const size_t rank = channels_last ? 2 : 3;
    const Array x = read("x", x_buffer, ffi::F32, rank);
    const Array grad_y = read("grad_y", grad_y_buffer, ffi::F32, rank);
    const Array grad_values = read("grad_values", *grad_values_buffer, ffi::F32, 2);
    const Array grad_bias = read("grad_bias", *grad_bias_buffer, ffi::F32, 1);
    need_sizes(grad_values, {m.indices.sizes[0], block});
    need_sizes(grad_bias, {rows});
    const int64_t images = channels_last ? 1 : x.sizes[0], pixels = x.sizes[channels_last ? 0 : 2];
    need_sizes(x, activations(channels_last, images, cols, pixels));
    need_sizes(grad_y, activations(channels_last, images, rows, pixels));
    const int64_t chunk_cols = kernels().spmm->chunk_cols;
    const Sizes& leading = grad_values.leading;
    for (int64_t i = 0; i < product(leading); i++) {
      const ChunkedMatrix matrix = chunked(m.structure(leading, i), nullptr, chunk_cols);
      const SpmmCall call = {matrix.matrix, nullptr, Activation::kNone, channels_last, pixels};
      run_spmm_grad_values(kernels(), pool_of(threads), call, images,
                           x.slice<float>(slice_for(x, leading, i)),
                           grad_y.slice<float>(slice_for(grad_y, leading, i)),
                           grad_values.slice<float>(i), grad_bias.slice<float>(i));
    }
  });
}

// ---- depthwise
// ------------------------------------------------------------------------------------------------

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
  need(kernel >= 1 && kernel <= kMaxTaps, "kernel must have 1 to " + std::to_string(kMaxTaps) +
                                              " taps an axis, got " + std::to_string(kernel));
  need(s.stride >= 1 && s.stride <= kMax && s.dilation >= 1 && s.dilation <= kMax &&
           s.pad_low >= -kMax && s.pad_low <= kMax && in <= kMax && out <= kMax,
       "strides, dilation, padding and sizes must be within int32");
  return s;
}

ConvSizes conv_sizes(const Window& window, const Array& x, const Array& kernel, const Array& y) {
  need(window.strides.size() == 2 && window.dilation.size() == 2 && window.pads.size() == 2,
       "strides, dilation and padding must have two numbers");
  const int row = window.channels_last ? 1 : 2, channel = window.channels_last ? 3 : 1;
  need_sizes(kernel, {kernel.sizes[0], kernel.sizes[1], x.sizes[channel]});
  need(y.sizes[0] == x.sizes[0] && y.sizes[channel] == x.sizes[channel],
       y.name + " must have the images and channels of " + x.name);
  return {x.sizes[0], x.sizes[channel],
          axis_sizes(window, 0, x.sizes[row], y.sizes[row], kernel.sizes[0]),
          axis_sizes(window, 1, x.sizes[row + 1], y.sizes[row + 1], kernel.sizes[1]),
          window.channels_last};
}

ffi::Error Depthwise(ffi::ThreadPool threads, ffi::AnyBuffer kernel_buffer,
                     ffi::AnyBuffer bias_buffer, ffi::AnyBuffer x_buffer,
                     ffi::Result<ffi::AnyBuffer> y_buffer, Ints strides, Ints dilation, Ints pads,
                     int64_t activation, bool channels_last) {
  return guarded("depthwise_conv2d", [&] {
    const Array kernel = read("kernel", kernel_buffer, ffi::F32, 3);
    const Array bias = read("bias", bias_buffer, ffi::F32, 1);
    const Array x = read("x", x_buffer, ffi::F32, 4), y = read("y", *y_buffer, ffi::F32, 4);
    ConvSizes sizes = conv_sizes({strides, dilation, pads, channels_last}, x, kernel, y);
    if (bias.sizes[0] != 0) need_sizes(bias, {sizes.channels});
    for (int64_t i = 0; i < product(y.leading); i++) {
      const float* b = bias.sizes[0] ? bias.slice<float>(slice_for(bias, y.leading, i)) : nullptr;
      run_depthwise(kernels(), pool_of(threads), sizes,
                    kernel.slice<float>(slice_for(kernel, y.leading, i)), b,
                    activation_of(activation), x.slice<float>(slice_for(x, y.leading, i)),
                    y.slice<float>(i));
    }
  });
}

ffi::Error DepthwiseGradX(ffi::ThreadPool threads, ffi::AnyBuffer kernel_buffer,
                          ffi::AnyBuffer grad_y_buffer, ffi::Result<ffi::AnyBuffer> grad_x_buffer,
                          Ints strides, Ints dilation, Ints pads, bool channels_last) {
  return guarded("depthwise_conv2d gradient in x", [&] {
    const Array kernel = read("kernel", kernel_buffer, ffi::F32, 3);
    const Array grad_y = read("grad_y", grad_y_buffer, ffi::F32, 4);
    const Array grad_x = read("grad_x", *grad_x_buffer, ffi::F32, 4);
    const ConvSizes sizes =
        conv_sizes({strides, dilation, pads, channels_last}, grad_x, kernel, grad_y);
    for (int64_t i = 0; i < product(grad_x.leading); i++)
      run_depthwise_grad_x(kernels(), pool_of(threads), sizes,
                           kernel.slice<float>(slice_for(kernel, grad_x.leading, i)),
                           grad_y.slice<float>(slice_for(grad_y, grad_x.leading, i)),
                           grad_x.slice<float>(i));
  });
}

ffi::Error DepthwiseGradKernel(ffi::ThreadPool threads, ffi::AnyBuffer x_buffer,
                               ffi::AnyBuffer grad_y_buffer,
                               ffi::Result<ffi::AnyBuffer> grad_kernel_buffer,
                               ffi::Result<ffi::AnyBuffer> grad_bias_buffer, Ints strides,
                               Ints dilation, Ints pads, bool channels_last) {
  return guarded("depthwise_conv2d gradient in kernel", [&] {
    const Array x = read("x", x_buffer, ffi::F32, 4);
    const Array grad_y = read("grad_y", grad_y_buffer, ffi::F32, 4);
    const Array grad_kernel = read("grad_kernel", *grad_kernel_buffer, ffi::F32, 3);
    const Array grad_bias = read("grad_bias", *grad_bias_buffer, ffi::F32, 1);
    const ConvSizes sizes =
        conv_sizes({strides, dilation, pads, channels_last}, x, grad_kernel, grad_y);
    need_sizes(grad_bias, {sizes.channels});
    const Sizes& leading = grad_kernel.leading;
    for (int64_t i = 0; i < product(leading); i++)
      run_depthwise_grad_kernel(kernels(), pool_of(threads), sizes,
                                x.slice<float>(slice_for(x, leading, i)),
                                grad_y.slice<float>(slice_for(grad_y, leading, i)),
                                grad_kernel.slice<float>(i), grad_bias.slice<float>(i));
  });
}

using Any = ffi::AnyBuffer;

XLA_FFI_DEFINE_HANDLER(kSpmm, Spmm,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<Any>()
                           .Arg<Any>()
                           .Arg<Any>()
                           .Arg<Any>()
                           .Arg<Any>()
                           .Ret<Any>()
                           .Attr<int64_t>("rows")
                           .Attr<int64_t>("cols")
                           .Attr<int64_t>("block")
                           .Attr<int64_t>("activation")
                           .Attr<bool>("channels_last")
                           .Attr<bool>("transpose"));
XLA_FFI_DEFINE_HANDLER(kSpmmGradValues, SpmmGradValues,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<Any>()
                           .Arg<Any>()
                           .Arg<Any>()
                           .Arg<Any>()
                           .Ret<Any>()
                           .Ret<Any>()
                           .Attr<int64_t>("rows")
                           .Attr<int64_t>("cols")
                           .Attr<int64_t>("block")
                           .Attr<bool>("channels_last"));
XLA_FFI_DEFINE_HANDLER(kDepthwise, Depthwise,
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
XLA_FFI_DEFINE_HANDLER(kDepthwiseGradX, DepthwiseGradX,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<Any>()
                           .Arg<Any>()
                           .Ret<Any>()
                           .Attr<Ints>("strides")
                           .Attr<Ints>("dilation")
                           .Attr<Ints>("pads")
                           .Attr<bool>("channels_last"));
XLA_FFI_DEFINE_HANDLER(kDepthwiseGradKernel, DepthwiseGradKernel,
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

template <class Handler>
nb::capsule capsule(Handler* handler) {
  return nb::capsule(reinterpret_cast<void*>(handler));
}

}  // namespace
}  // namespace sparsejax

NB_MODULE(_xla_ops, m) {
  using namespace sparsejax;
  m.def("targets", [] {
    nb::dict d;
    d["spmm"] = capsule(kSpmm);
    d["spmm_grad_values"] = capsule(kSpmmGradValues);
    d["depthwise"] = capsule(kDepthwise);
    d["depthwise_grad_x"] = capsule(kDepthwiseGradX);
    d["depthwise_grad_kernel"] = capsule(kDepthwiseGradKernel);
    return d;
  });
  m.def("isa", [] { return std::string(kernels().isa); });
  m.def("usable_isas", [] {
    nb::list names;
    for (const Kernels& set : usable_kernels()) names.append(set.isa);
    return names;
  });
  m.def("use", &use);
}
