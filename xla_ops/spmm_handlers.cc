// spmm and its gradients as XLA custom calls.
#include <limits>

#include "ffi_arrays.h"
#include "kernels.h"
#include "run.h"

namespace sparsejax {
namespace {

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
      Transposed other = {};
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

using Any = ffi::AnyBuffer;

}  // namespace
}  // namespace sparsejax

using namespace sparsejax;

XLA_FFI_DEFINE_HANDLER_SYMBOL(sparsejax_spmm, Spmm,
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
XLA_FFI_DEFINE_HANDLER_SYMBOL(sparsejax_spmm_grad_values, SpmmGradValues,
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
