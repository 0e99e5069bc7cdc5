// spmm and its gradients as XLA custom calls.
#include <limits>

#include "bind/arrays.h"
#include "engine/run.h"
#include "kernels/kernels.h"

namespace sparsejax {
namespace {

struct MatrixArrays {
  Array indices, row_starts;
  int64_t rows, cols, block;

  // The matrix of a slice, checked.
  Structure structure(const Batch& batch, int64_t i) const {
    const Structure s = {rows,
                         cols,
                         block,
                         indices.sizes[0],
                         batch.at<int32_t>(indices, i),
                         batch.at<int32_t>(row_starts, i)};
    const std::string wrong = problem(s);
    need(wrong.empty(), [&] { return std::string(wrong); });
    return s;
  }
};

MatrixArrays read_matrix(const ffi::AnyBuffer& indices, const ffi::AnyBuffer& row_starts,
                         int64_t rows, int64_t cols, int64_t block) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  need(block == 1 || block == 2 || block == 4 || block == 8, [&] {
    return std::string("block must have 1, 2, 4 or 8 rows, got " + std::to_string(block));
  });
  need(rows >= 0 && cols >= 0 && rows <= kMax && cols <= kMax && rows % block == 0, [&] {
    return std::string("matrix_shape must be within int32 and a multiple of the block, got " +
                       text({rows, cols}));
  });
  MatrixArrays m = {Array("indices", indices, ffi::S32, 1),
                    Array("row_starts", row_starts, ffi::S32, 1), rows, cols, block};
  need(m.indices.sizes[0] * block <= kMax,
       [&] { return std::string("values has too many elements for int32 indices"); });
  need_sizes(m.row_starts, {rows / block + 1});
  return m;
}

struct Operands {
  MatrixArrays matrix;
  Array values, bias, x, y;
  int64_t images, pixels;
  Activation activation;
  bool channels_last, transpose;

  // One matrix for all slices: they are so many more images or pixels.
  bool one_matrix() const {
    for (const Array* array : {&values, &bias, &matrix.indices, &matrix.row_starts})
      if (product(array->leading) != 1) return false;
    return x.leading == y.leading;
  }
};

void run_slice(const Operands& o, const Batch& batch, const ThreadPool& pool, int64_t i,
               int64_t images, int64_t pixels) {
  Structure structure = o.matrix.structure(batch, i);
  if (o.y.slice_size == 0) return;
  const float* weights = batch.at<float>(o.values, i);
  Transposed other = {};
  if (o.transpose) {
    other = transposed(structure, weights);
    structure = other.structure();
    weights = other.values.data();
  }
  const ChunkedMatrix matrix = chunked(structure, weights, kernels().spmm->chunk_cols);
  const SpmmCall call = {matrix.matrix, o.bias.sizes[0] ? batch.at<float>(o.bias, i) : nullptr,
                         o.activation, o.channels_last, pixels};
  run_spmm(kernels(), pool, call, images, batch.at<float>(o.x, i), batch.at<float>(o.y, i));
}

ffi::Error Spmm(ffi::ThreadPool threads, ffi::AnyBuffer values, ffi::AnyBuffer indices,
                ffi::AnyBuffer row_starts, ffi::AnyBuffer bias, ffi::AnyBuffer x,
                ffi::Result<ffi::AnyBuffer> y, int64_t rows, int64_t cols, int64_t block,
                int64_t activation, bool channels_last, bool transpose) {
  return guarded("spmm", [&] {
    const size_t rank = channels_last ? 2 : 3;
    Operands o = {read_matrix(indices, row_starts, rows, cols, block),
                  Array("values", values, ffi::F32, 2),
                  Array("bias", bias, ffi::F32, 1),
                  Array("x", x, ffi::F32, rank),
                  Array("y", *y, ffi::F32, rank),
                  0,
                  0,
                  activation_of(activation),
                  channels_last,
                  transpose};
    const int64_t out = transpose ? cols : rows, in = transpose ? rows : cols;
    o.images = channels_last ? 1 : o.x.sizes[0];
    o.pixels = o.x.sizes[channels_last ? 0 : 2];
    need_sizes(o.values, {o.matrix.indices.sizes[0], block});
    if (o.bias.sizes[0] != 0) need_sizes(o.bias, {out});
    need_sizes(o.x, activations(channels_last, o.images, in, o.pixels));
    need_sizes(o.y, activations(channels_last, o.images, out, o.pixels));
    const Batch batch({&o.y}, {&o.values, &o.matrix.indices, &o.matrix.row_starts, &o.bias, &o.x});
    const ThreadPool pool = pool_of(threads);
    for_slices(batch.size(), o.one_matrix(), channels_last, o.images, o.pixels,
               [&](int64_t i, int64_t images, int64_t pixels) {
                 run_slice(o, batch, pool, i, images, pixels);
               });
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
    const Array x("x", x_buffer, ffi::F32, rank), grad_y("grad_y", grad_y_buffer, ffi::F32, rank);
    const Array grad_values("grad_values", *grad_values_buffer, ffi::F32, 2);
    const Array grad_bias("grad_bias", *grad_bias_buffer, ffi::F32, 1);
    need_sizes(grad_values, {m.indices.sizes[0], block});
    need_sizes(grad_bias, {rows});
    const int64_t images = channels_last ? 1 : x.sizes[0], pixels = x.sizes[channels_last ? 0 : 2];
    need_sizes(x, activations(channels_last, images, cols, pixels));
    need_sizes(grad_y, activations(channels_last, images, rows, pixels));
    const int64_t chunk_cols = kernels().spmm->chunk_cols;
    const Batch batch({&grad_values, &grad_bias}, {&m.indices, &m.row_starts, &x, &grad_y});
    for (int64_t i = 0; i < batch.size(); i++) {
      const ChunkedMatrix matrix = chunked(m.structure(batch, i), nullptr, chunk_cols);
      const SpmmCall call = {matrix.matrix, nullptr, Activation::kNone, channels_last, pixels};
      run_spmm_grad_values(kernels(), pool_of(threads), call, images, batch.at<float>(x, i),
                           batch.at<float>(grad_y, i), batch.at<float>(grad_values, i),
                           batch.at<float>(grad_bias, i));
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
