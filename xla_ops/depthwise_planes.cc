// Depthwise convolution of single planes, vectorised along the width; see depthwise.h. Compiled
// once for each instruction set.
#include "depthwise.h"
#include "simd.h"

namespace sparsejax::SPARSEJAX_TARGET {
namespace {

constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// How a row of the plane is laid out in scratch: split by the stride, so that neighbouring outputs
// read neighbouring floats, and padded, so that no tap reads outside. Tap t of output o is at
// [at[t] + o].
struct PaddedRow {
  int64_t lowest, phase_pitch, pitch;
  int64_t at[kMaxTaps];
};

PaddedRow padded_row(const Axis& x) {
  PaddedRow row = {};
  int64_t highest = row.lowest = x.num_taps ? x.offset[0] : 0;
  for (int64_t t = 1; t < x.num_taps; t++) {
    row.lowest = x.offset[t] < row.lowest ? x.offset[t] : row.lowest;
    highest = x.offset[t] > highest ? x.offset[t] : highest;
  }
  row.phase_pitch = round_up(x.out, kLanes) + (highest - row.lowest) / x.step + 1;
  row.pitch = row.phase_pitch * x.step;
  for (int64_t t = 0; t < x.num_taps; t++) {
    const int64_t reach = x.offset[t] - row.lowest;
    row.at[t] = reach % x.step * row.phase_pitch + reach / x.step;
  }
  return row;
}

// Position [phase][j] of the padded row is input lowest + phase + j * step, or zero outside the
// input.
void pad_row(const Axis& x, const PaddedRow& row, const float* in, float* padded) {
  for (int64_t phase = 0; phase < x.step; phase++, padded += row.phase_pitch) {
    const int64_t base = row.lowest + phase;
    int64_t begin = base >= 0 ? 0 : (-base + x.step - 1) / x.step;
    int64_t end = x.in > base ? (x.in - base + x.step - 1) / x.step : 0;
    begin = begin < row.phase_pitch ? begin : row.phase_pitch;
    end = end < row.phase_pitch ? end : row.phase_pitch;
    int64_t j = 0;
    for (; j < begin; j++) padded[j] = 0.f;
    if (x.step == 1) {
      for (; j < end; j++) padded[j] = in[base + j];
    } else if (x.step == 2) {
      for (; j < end; j++) padded[j] = in[base + j * 2];
    } else {
      for (; j < end; j++) padded[j] = in[base + j * x.step];
    }
    for (; j < row.phase_pitch; j++) padded[j] = 0.f;
  }
}

// The padded input rows and the taps of one output row.
struct Taps {
  int64_t num_rows;
  const float* rows[kMaxTaps];
  const float* weights[kMaxTaps];  // [x.num_taps]
};

Taps taps_of(const DepthwiseCall& call, const PaddedRow& row, const float* padded,
             const float* weights, int64_t out) {
  Taps taps;
  taps.num_rows = 0;
  for (int64_t t = 0; t < call.y.num_taps; t++) {
    const int64_t in = out * call.y.step + call.y.offset[t];
    if (in < 0 || in >= call.y.in) continue;
    taps.rows[taps.num_rows] = padded + in * row.pitch;
    taps.weights[taps.num_rows++] = weights + t * call.x.num_taps;
  }
  return taps;
}

// G vectors of outputs. N = number of x taps, 0 when it is not known to the compiler.
template <int G, int N>
SPARSEJAX_INLINE void outputs(const Taps& taps, const PaddedRow& row, int64_t num_taps, float bias,
                              Activation activation, int64_t o, float* out) {
  Vec sum[G];
#pragma GCC unroll 4
  for (int g = 0; g < G; g++) sum[g] = splat<Vec>(bias);
  const int64_t count = N ? N : num_taps;
  for (int64_t ky = 0; ky < taps.num_rows; ky++) {
    const float *in = taps.rows[ky] + o, *weights = taps.weights[ky];
#pragma GCC unroll 8
    for (int64_t kx = 0; kx < count; kx++) {
      const Vec w = splat<Vec>(weights[kx]);
      const float* p = in + row.at[kx];
#pragma GCC unroll 4
      for (int g = 0; g < G; g++) sum[g] += w * load<Vec>(p + g * kLanes);
    }
  }
  const Vec top = splat<Vec>(activation == Activation::kRelu6 ? 6.f : __builtin_inff());
#pragma GCC unroll 4
  for (int g = 0; g < G; g++)
    store(out + g * kLanes, activation == Activation::kNone ? sum[g] : clamp(sum[g], Vec{}, top));
}

template <int N>
void output_row(const DepthwiseCall& call, const Taps& taps, const PaddedRow& row, float bias,
                float* out) {
  const int64_t n = call.x.num_taps, end = round_up(call.x.out, kLanes);
  int64_t o = 0;
  for (; o + 4 * kLanes <= end; o += 4 * kLanes)
    outputs<4, N>(taps, row, n, bias, call.activation, o, out + o);
  for (; o + 2 * kLanes <= end; o += 2 * kLanes)
    outputs<2, N>(taps, row, n, bias, call.activation, o, out + o);
  if (o < end) outputs<1, N>(taps, row, n, bias, call.activation, o, out + o);
}

// The taps of one channel, [y.num_taps][x.num_taps].
void gather_taps(const DepthwiseCall& call, int64_t channel, float* weights) {
  for (int64_t ky = 0; ky < call.y.num_taps; ky++)
    for (int64_t kx = 0; kx < call.x.num_taps; kx++)
      weights[ky * call.x.num_taps + kx] =
          call.kernel[(call.y.index[ky] * call.x.kernel_size + call.x.index[kx]) * call.channels +
                      channel];
}

void plane(const DepthwiseCall& call, int64_t channel, const float* in, float* out,
           float* scratch) {
  const PaddedRow row = padded_row(call.x);
  float* weights = scratch;
  float* one_row = weights + round_up(call.y.num_taps * call.x.num_taps, 16);
  float* padded = one_row + round_up(call.x.out, 16);
  gather_taps(call, channel, weights);
  for (int64_t y = 0; y < call.y.in; y++)
    pad_row(call.x, row, in + y * call.x.in, padded + y * row.pitch);
  const float bias = call.bias ? call.bias[channel] : 0.f;
  const bool direct = call.x.out_step == 1 && call.x.out % kLanes == 0;
  for (int64_t oy = 0; oy < call.y.out; oy++) {
    float* out_row =
        out + (call.y.out_first + oy * call.y.out_step) * call.x.out_size + call.x.out_first;
    float* to = direct ? out_row : one_row;
    const Taps taps = taps_of(call, row, padded, weights, oy);
    switch (call.x.num_taps) {
      case 3:
        output_row<3>(call, taps, row, bias, to);
        break;
      case 5:
        output_row<5>(call, taps, row, bias, to);
        break;
      case 7:
        output_row<7>(call, taps, row, bias, to);
        break;
      default:
        output_row<0>(call, taps, row, bias, to);
        break;
    }
    if (direct) continue;
    for (int64_t o = 0; o < call.x.out; o++) out_row[o * call.x.out_step] = one_row[o];
  }
}

int64_t plane_scratch_floats(const DepthwiseCall& call) {
  const PaddedRow row = padded_row(call.x);
  return round_up(call.y.num_taps * call.x.num_taps, 16) + round_up(call.x.out, 16) +
         call.y.in * row.pitch;
}

// N taps of one kernel row over one output row; `grads` is padded with zeros to whole vectors.
template <int N>
SPARSEJAX_INLINE void grad_taps(const float* in, const int64_t* at, const float* grads, int64_t end,
                                Vec* sum) {
  for (int64_t o = 0; o < end; o += kLanes) {
    const Vec grad = load<Vec>(grads + o);
#pragma GCC unroll 8
    for (int n = 0; n < N; n++) sum[n] += grad * load<Vec>(in + at[n] + o);
  }
}

template <int N>
void grad_tap_sums(const DepthwiseCall& call, const PaddedRow& row, const float* padded,
                   const float* grads, int64_t ky, int64_t first, float* sums) {
  const int64_t end = round_up(call.x.out, kLanes);
  Vec sum[N] = {};
  for (int64_t oy = 0; oy < call.y.out; oy++) {
    const int64_t in = oy * call.y.step + call.y.offset[ky];
    if (in < 0 || in >= call.y.in) continue;
    grad_taps<N>(padded + in * row.pitch, row.at + first, grads + oy * end, end, sum);
  }
#pragma GCC unroll 8
  for (int n = 0; n < N; n++) sums[ky * call.x.num_taps + first + n] += sum_lanes(sum[n]);
}

void grad_kernel_plane(const DepthwiseCall& call, const float* in, const float* grad_out,
                       float* sums, float* grad_bias, float* scratch) {
  const PaddedRow row = padded_row(call.x);
  const int64_t end = round_up(call.x.out, kLanes), n = call.x.num_taps;
  float *padded = scratch, *grads = scratch + round_up(call.y.in * row.pitch, 16);
  for (int64_t y = 0; y < call.y.in; y++)
    pad_row(call.x, row, in + y * call.x.in, padded + y * row.pitch);
  Vec total = {};
  for (int64_t y = 0; y < call.y.out; y++) {
    for (int64_t o = 0; o < end; o++)
      grads[y * end + o] = o < call.x.out ? grad_out[y * call.x.out + o] : 0.f;
    for (int64_t o = 0; o < end; o += kLanes) total += load<Vec>(grads + y * end + o);
  }
  *grad_bias += sum_lanes(total);
  for (int64_t ky = 0; ky < call.y.num_taps; ky++) {
    int64_t t = 0;
    for (; t + 5 <= n && n != 6; t += 5) grad_tap_sums<5>(call, row, padded, grads, ky, t, sums);
    for (; t + 3 <= n; t += 3) grad_tap_sums<3>(call, row, padded, grads, ky, t, sums);
    for (; t < n; t++) grad_tap_sums<1>(call, row, padded, grads, ky, t, sums);
  }
}

int64_t grad_plane_scratch_floats(const DepthwiseCall& call) {
  return round_up(call.y.in * padded_row(call.x).pitch, 16) +
         call.y.out * round_up(call.x.out, kLanes);
}

}  // namespace

extern const DepthwisePlaneKernels depthwise_planes = {
    plane_scratch_floats, plane, grad_plane_scratch_floats, grad_kernel_plane};

}  // namespace sparsejax::SPARSEJAX_TARGET
