// spmm of matrices of runs and its gradients as XLA custom calls.
#include <limits>

#include "bind/arrays.h"
#include "engine/bcr_matrix.h"
#include "engine/run.h"
#include "kernels/kernels.h"

namespace sparsejax {
namespace {

struct RunArrays {
  Array rows, run_starts, columns, column_starts, value_starts;
  int64_t num_rows, num_cols;

  // The matrix of a slice, checked; `values` may be null.
  BcrMatrix matrix(const float* values, int64_t num_values, const Batch& batch, int64_t i) const {
    const auto slice = [&](const Array& array) { return batch.at<int32_t>(array, i); };
    const BcrMatrix m = {
        num_rows,           num_cols,          run_starts.sizes[0] - 1, values,
        slice(rows),        slice(run_starts), slice(columns),          slice(column_starts),
        slice(value_starts)};
    const std::string wrong = problem(m, {num_values, rows.sizes[0], columns.sizes[0]});
    need(wrong.empty(), [&] { return std::string(wrong); });
    return m;
  }

  bool one() const {
    for (const Array* array : {&rows, &run_starts, &columns, &column_starts, &value_starts})
      if (product(array->leading) != 1) return false;
    return true;
  }
};

RunArrays read_runs(const ffi::AnyBuffer& rows, const ffi::AnyBuffer& run_starts,
                    const ffi::AnyBuffer& columns, const ffi::AnyBuffer& column_starts,
                    const ffi::AnyBuffer& value_starts, int64_t num_rows, int64_t num_cols) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  need(num_rows >= 0 && num_cols >= 0 && num_rows <= kMax && num_cols <= kMax, [&] {
    return std::string("matrix_shape must be within int32, got " + text({num_rows, num_cols}));
  });
  const RunArrays m = {Array("rows", rows, ffi::S32, 1),
                       Array("run_starts", run_starts, ffi::S32, 1),
                       Array("columns", columns, ffi::S32, 1),
                       Array("column_starts", column_starts, ffi::S32, 1),
                       Array("value_starts", value_starts, ffi::S32, 1),
                       num_rows,
                       num_cols};
  need(m.run_starts.sizes[0] > 0, [&] { return std::string("run_starts must not be empty"); });
  need_sizes(m.column_starts, m.run_starts.sizes);
  need_sizes(m.value_starts, m.run_starts.sizes);
  return m;
}

struct Operands {
  RunArrays runs;
  Array values, bias, x, y;
  Activation activation;
  bool channels_last, transpose;

  // One matrix for all slices: they are so many more images or pixels.
  bool one_matrix() const {
    return runs.one() && product(values.leading) == 1 && product(bias.leading) == 1 &&
           x.leading == y.leading;
  }
};

void run_slice(const Operands& o, const Batch& batch, const ThreadPool& pool, int64_t i,
               int64_t images, int64_t pixels) {
  BcrMatrix matrix = o.runs.matrix(batch.at<float>(o.values, i), o.values.sizes[0], batch, i);
  if (o.y.slice_size == 0) return;
  BcrTransposed other = {};
  if (o.transpose) {
    other = transposed(matrix);
    matrix = other.matrix;
  }
  const BcrCall call = {matrix, o.bias.sizes[0] ? batch.at<float>(o.bias, i) : nullptr,
                        o.activation, o.channels_last, pixels};
  run_bcr(kernels(), pool, call, images, batch.at<float>(o.x, i), batch.at<float>(o.y, i));
}

ffi::Error Bcr(ffi::ThreadPool threads, ffi::AnyBuffer values, ffi::AnyBuffer rows,
               ffi::AnyBuffer run_starts, ffi::AnyBuffer columns, ffi::AnyBuffer column_starts,
               ffi::AnyBuffer value_starts, ffi::AnyBuffer bias, ffi::AnyBuffer x,
               ffi::Result<ffi::AnyBuffer> y, int64_t num_rows, int64_t num_cols,
               int64_t activation, bool channels_last, bool transpose) {
  return guarded("spmm", [&] {
    const size_t rank = channels_last ? 2 : 3;
    const Operands o = {
        read_runs(rows, run_starts, columns, column_starts, value_starts, num_rows, num_cols),
        Array("values", values, ffi::F32, 1),
        Array("bias", bias, ffi::F32, 1),
        Array("x", x, ffi::F32, rank),
        Array("y", *y, ffi::F32, rank),
        activation_of(activation),
        channels_last,
        transpose};
    const int64_t out = transpose ? num_cols : num_rows, in = transpose ? num_rows : num_cols;
    const int64_t images = channels_last ? 1 : o.x.sizes[0];
    const int64_t pixels = o.x.sizes[channels_last ? 0 : 2];
    if (o.bias.sizes[0] != 0) need_sizes(o.bias, {out});
    need_sizes(o.x, activations(channels_last, images, in, pixels));
    need_sizes(o.y, activations(channels_last, images, out, pixels));
    const Batch batch({&o.y}, {&o.values, &o.runs.rows, &o.runs.run_starts, &o.runs.columns,
                               &o.runs.column_starts, &o.runs.value_starts, &o.bias, &o.x});
    const ThreadPool pool = pool_of(threads);
    for_slices(batch.size(), o.one_matrix(), channels_last, images, pixels,
               [&](int64_t i, int64_t slice_images, int64_t slice_pixels) {
                 run_slice(o, batch, pool, i, slice_images, slice_pixels);
               });
  });
}

ffi::Error BcrGradValues(ffi::ThreadPool threads, ffi::AnyBuffer rows, ffi::AnyBuffer run_starts,
                         ffi::AnyBuffer columns, ffi::AnyBuffer column_starts,
                         ffi::AnyBuffer value_starts, ffi::AnyBuffer x_buffer,
                         ffi::AnyBuffer grad_y_buffer,
                         ffi::Result<ffi::AnyBuffer> grad_values_buffer, int64_t num_rows,
                         int64_t num_cols, bool channels_last) {
  return guarded("spmm gradient", [&] {
    const RunArrays m =
        read_runs(rows, run_starts, columns, column_starts, value_starts, num_rows, num_cols);
    const size_t rank = channels_last ? 2 : 3;
    const Array x("x", x_buffer, ffi::F32, rank), grad_y("grad_y", grad_y_buffer, ffi::F32, rank);
    const Array grad_values("grad_values", *grad_values_buffer, ffi::F32, 1);
    const int64_t images = channels_last ? 1 : x.sizes[0], pixels = x.sizes[channels_last ? 0 : 2];
    need_sizes(x, activations(channels_last, images, num_cols, pixels));
    need_sizes(grad_y, activations(channels_last, images, num_rows, pixels));
    const Batch batch({&grad_values}, {&m.rows, &m.run_starts, &m.columns, &m.column_starts,
                                       &m.value_starts, &x, &grad_y});
    for (int64_t i = 0; i < batch.size(); i++) {
      const BcrMatrix matrix = m.matrix(nullptr, grad_values.sizes[0], batch, i);
      const BcrCall call = {matrix, nullptr, Activation::kNone, channels_last, pixels};
      run_bcr_grad_values(kernels(), pool_of(threads), call, images, batch.at<float>(x, i),
                          batch.at<float>(grad_y, i), batch.at<float>(grad_values, i));
    }
  });
}

using Any = ffi::AnyBuffer;

}  // namespace
}  // namespace sparsejax

using namespace sparsejax;

XLA_FFI_DEFINE_HANDLER_SYMBOL(sparsejax_bcr, Bcr,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Any>()
                                  .Arg<Any>()
                                  .Arg<Any>()
                                  .Arg<Any>()
                                  .Arg<Any>()
                                  .Arg<Any>()
                                  .Arg<Any>()
                                  .Arg<Any>()
                                  .Ret<Any>()
                                  .Attr<int64_t>("rows")
                                  .Attr<int64_t>("cols")
                                  .Attr<int64_t>("activation")
                                  .Attr<bool>("channels_last")
                                  .Attr<bool>("transpose"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(sparsejax_bcr_grad_values, BcrGradValues,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Any>()
                                  .Arg<Any>()
                                  .Arg<Any>()
                                  .Arg<Any>()
                                  .Arg<Any>()
                                  .Arg<Any>()
                                  .Arg<Any>()
                                  .Ret<Any>()
                                  .Attr<int64_t>("rows")
                                  .Attr<int64_t>("cols")
                                  .Attr<bool>("channels_last"));
