// Depthwise convolution, vectorised over channels; see depthwise.h. Compiled once for each
// instruction set.
#include "depthwise.h"

#include "simd.h"

namespace sparsejax::SPARSEJAX_TARGET {
namespace {

// The kernel rows that fall inside the image for one output row.
struct Rows {
  int64_t count;
  const float* image[kMaxTaps];  // the input row
  const float* taps[kMaxTaps];   // [x.kernel_size][channels]
  float* grads[kMaxTaps];        // likewise, for the gradient
};

SPARSEJAX_INLINE Rows rows_of(const DepthwiseCall& call, const float* image, int64_t out,
                              float* grad_kernel) {
  const int64_t row_size = call.x.kernel_size * call.channels;
  Rows rows;
  rows.count = 0;
  for (int64_t t = 0; t < call.y.num_taps; t++) {
    int64_t in = out * call.y.step + call.y.offset[t];
    if (in < 0 || in >= call.y.in) continue;
    rows.image[rows.count] = image + in * call.x.in * call.channels;
    rows.taps[rows.count] = call.kernel + call.y.index[t] * row_size;
    rows.grads[rows.count] = grad_kernel ? grad_kernel + call.y.index[t] * row_size : nullptr;
    rows.count++;
  }
  return rows;
}

// The x taps that a group of output pixels uses, as offsets in floats.
struct Columns {
  int64_t count;
  int64_t image[kMaxTaps], taps[kMaxTaps];
};

SPARSEJAX_INLINE Columns columns_of(const DepthwiseCall& call, int64_t out, bool all) {
  Columns columns;
  columns.count = 0;
  for (int64_t t = 0; t < call.x.num_taps; t++) {
    int64_t in = out * call.x.step + call.x.offset[t];
    if (!all && (in < 0 || in >= call.x.in)) continue;
    columns.image[columns.count] = call.x.offset[t] * call.channels;
    columns.taps[columns.count++] = call.x.index[t] * call.channels;
  }
  return columns;
}

// G neighbouring output pixels, V channels. N = number of x taps, 0 when it is not known to the
// compiler.
template <int G, int N, class V>
SPARSEJAX_INLINE void pixels(const DepthwiseCall& call, const Rows& rows, const Columns& columns,
                             int64_t in, int64_t in_pitch, float* out, int64_t out_pitch,
                             int64_t c) {
  V sum[G];
  V bias = call.bias ? load<V>(call.bias + c) : V{};
#pragma GCC unroll 8
  for (int g = 0; g < G; g++) sum[g] = bias;
  const int64_t num_columns = N ? N : columns.count;
  for (int64_t ky = 0; ky < rows.count; ky++) {
    const float *row = rows.image[ky] + in + c, *taps = rows.taps[ky] + c;
#pragma GCC unroll 8
    for (int64_t kx = 0; kx < num_columns; kx++) {
      const float* p = row + columns.image[kx];
      V w = load<V>(taps + columns.taps[kx]);
#pragma GCC unroll 8
      for (int g = 0; g < G; g++) sum[g] += w * load<V>(p + g * in_pitch);
    }
  }
  V zero = V{}, top = splat<V>(call.activation == Activation::kRelu6 ? 6.f : __builtin_inff());
#pragma GCC unroll 8
  for (int g = 0; g < G; g++)
    store(out + g * out_pitch + c,
          call.activation == Activation::kNone ? sum[g] : clamp(sum[g], zero, top));
}

template <int G, int N>
void group(const DepthwiseCall& call, const Rows& rows, const Columns& columns, int64_t o,
           float* out_row) {
  const int64_t in = o * call.x.step * call.channels, in_pitch = call.x.step * call.channels;
  const int64_t out_pitch = call.x.out_step * call.channels;
  float* out = out_row + (call.x.out_first + o * call.x.out_step) * call.channels;
  int64_t c = 0;
  for (; c + kLanes <= call.channels; c += kLanes)
    pixels<G, N, Vec>(call, rows, columns, in, in_pitch, out, out_pitch, c);
  if constexpr (kLanes > 4)
    for (; c + 4 <= call.channels; c += 4)
      pixels<G, N, Vec4>(call, rows, columns, in, in_pitch, out, out_pitch, c);
  for (; c < call.channels; c++)
    pixels<G, N, float>(call, rows, columns, in, in_pitch, out, out_pitch, c);
}

template <int N>
void whole_groups(const DepthwiseCall& call, const Rows& rows, float* out_row) {
  const Columns columns = columns_of(call, 0, true);
  int64_t o = call.x.whole_begin;
  for (; o + 8 <= call.x.whole_end; o += 8) group<8, N>(call, rows, columns, o, out_row);
  if (o + 4 <= call.x.whole_end) {
    group<4, N>(call, rows, columns, o, out_row);
    o += 4;
  }
  for (; o < call.x.whole_end; o++) group<1, N>(call, rows, columns, o, out_row);
}

void rows_channels_last(const DepthwiseCall& call, const float* image, float* out, int64_t begin,
                        int64_t end) {
  for (int64_t oy = begin; oy < end; oy++) {
    const Rows rows = rows_of(call, image, oy, nullptr);
    float* out_row =
        out + (call.y.out_first + oy * call.y.out_step) * call.x.out_size * call.channels;
    for (int64_t o = 0; o < call.x.out; o++) {
      if (o == call.x.whole_begin && o < call.x.whole_end) o = call.x.whole_end;
      if (o < call.x.out) group<1, 0>(call, rows, columns_of(call, o, false), o, out_row);
    }
    switch (call.x.num_taps) {
      case 3:
        whole_groups<3>(call, rows, out_row);
        break;
      case 5:
        whole_groups<5>(call, rows, out_row);
        break;
      case 7:
        whole_groups<7>(call, rows, out_row);
        break;
      default:
        whole_groups<0>(call, rows, out_row);
        break;
    }
  }
}

// N taps of one kernel row, U vectors of channels, over the outputs [begin, end) of one row.
template <int N, int U, class V>
SPARSEJAX_INLINE void grad_taps(const DepthwiseCall& call, const float* image,
                                const float* grad_out, const Columns& columns, int64_t first_tap,
                                int64_t begin, int64_t end, float* grads) {
  V sum[N][U];
  int64_t at[N];
#pragma GCC unroll 8
  for (int n = 0; n < N; n++) {
    at[n] = columns.image[first_tap + n];
#pragma GCC unroll 4
    for (int u = 0; u < U; u++)
      sum[n][u] = load<V>(grads + columns.taps[first_tap + n] + u * lanes_of<V>);
  }
  const int64_t pitch = call.x.step * call.channels;
  const float *p = image + begin * pitch, *g = grad_out + begin * call.channels;
  for (int64_t o = begin; o < end; o++, p += pitch, g += call.channels) {
#pragma GCC unroll 4
    for (int u = 0; u < U; u++) {
      V grad = load<V>(g + u * lanes_of<V>);
#pragma GCC unroll 8
      for (int n = 0; n < N; n++) sum[n][u] += grad * load<V>(p + at[n] + u * lanes_of<V>);
    }
  }
#pragma GCC unroll 8
  for (int n = 0; n < N; n++)
#pragma GCC unroll 4
    for (int u = 0; u < U; u++)
      store(grads + columns.taps[first_tap + n] + u * lanes_of<V>, sum[n][u]);
}

template <int U, class V>
void grad_row(const DepthwiseCall& call, const float* image, const float* grad_out,
              const Columns& columns, int64_t begin, int64_t end, float* grads) {
  int64_t t = 0;
  if (columns.count == 5) {
    grad_taps<5, U, V>(call, image, grad_out, columns, 0, begin, end, grads);
    return;
  }
  for (; t + 3 <= columns.count; t += 3)
    grad_taps<3, U, V>(call, image, grad_out, columns, t, begin, end, grads);
  for (; t < columns.count; t++)
    grad_taps<1, U, V>(call, image, grad_out, columns, t, begin, end, grads);
}

void grad_columns(const DepthwiseCall& call, const Rows& rows, const float* grad_row_out,
                  const Columns& columns, int64_t begin, int64_t end) {
  for (int64_t ky = 0; ky < rows.count; ky++) {
    const float* image = rows.image[ky];
    float* grads = rows.grads[ky];
    int64_t c = 0;
    for (; c + 2 * kLanes <= call.channels; c += 2 * kLanes)
      grad_row<2, Vec>(call, image + c, grad_row_out + c, columns, begin, end, grads + c);
    for (; c + 4 <= call.channels; c += 4)
      grad_row<1, Vec4>(call, image + c, grad_row_out + c, columns, begin, end, grads + c);
    for (; c < call.channels; c++)
      grad_row<1, float>(call, image + c, grad_row_out + c, columns, begin, end, grads + c);
  }
}

void grad_kernel_channels_last(const DepthwiseCall& call, const float* image, const float* grad_out,
                               int64_t begin, int64_t end, float* grad_kernel, float* grad_bias) {
  const Columns whole = columns_of(call, 0, true);
  for (int64_t oy = begin; oy < end; oy++) {
    const Rows rows = rows_of(call, image, oy, grad_kernel);
    const float* g = grad_out + oy * call.x.out * call.channels;
    grad_columns(call, rows, g, whole, call.x.whole_begin, call.x.whole_end);
    for (int64_t o = 0; o < call.x.out; o++) {
      if (o == call.x.whole_begin && o < call.x.whole_end) o = call.x.whole_end;
      if (o < call.x.out) grad_columns(call, rows, g, columns_of(call, o, false), o, o + 1);
    }
    for (int64_t o = 0; o < call.x.out; o++)
      for (int64_t c = 0; c < call.channels; c++) grad_bias[c] += g[o * call.channels + c];
  }
}

}  // namespace

extern const DepthwiseKernels depthwise = {rows_channels_last, grad_kernel_channels_last};

}  // namespace sparsejax::SPARSEJAX_TARGET
