// Depthwise convolution of single planes, vectorised along the width; see depthwise.h. Compiled
// once for each instruction set.
#include "kernels/depthwise.h"
#include "kernels/relu.h"
#include "kernels/sizes.h"
#include "simd/vectors.h"

namespace sparsejax::SPARSEJAX_TARGET {
namespace {

constexpr int64_t kTooFar = 1 << 27;  // floats; callers refuse to allocate that much

struct Reach {
  int64_t lowest, highest;
};

Reach reach_of(const Axis& axis) {
  Reach reach = {0, 0};
  for (int64_t t = 0; t < axis.num_taps; t++) {
    const int64_t offset = axis.offset[t];
    if (t == 0 || offset < reach.lowest) reach.lowest = offset;
    if (t == 0 || offset > reach.highest) reach.highest = offset;
  }
  return reach;
}

// A plane in scratch, padded with zeros so that no tap reads outside, its rows split by the stride,
// so that neighbouring outputs read neighbouring floats: tap (y, x) of output (oy, ox) is at at[y *
// x.num_taps + x] + oy * out_pitch + ox.
struct PaddedPlane {
  int64_t lowest_y, lowest_x, rows;
  int64_t phase_pitch, pitch, out_pitch, size;
  int64_t at[kMaxTaps * kMaxTaps];
};

void lay_out(const DepthwiseCall& call, PaddedPlane& plane) {
  const Reach y = reach_of(call.y), x = reach_of(call.x);
  plane.lowest_y = y.lowest;
  plane.lowest_x = x.lowest;
  plane.rows = (call.y.out - 1) * call.y.step + y.highest - y.lowest + 1;
  plane.phase_pitch = round_up(call.x.out, kLanes) + (x.highest - x.lowest) / call.x.step + 1;
  plane.pitch = plane.phase_pitch * call.x.step;
  plane.size = plane.rows > kTooFar || plane.pitch > kTooFar ? kTooFar : plane.rows * plane.pitch;
  if (plane.size >= kTooFar) return;  // and no product below overflows
  plane.out_pitch = call.y.step * plane.pitch;
  for (int64_t ky = 0; ky < call.y.num_taps; ky++)
    for (int64_t kx = 0; kx < call.x.num_taps; kx++) {
      const int64_t reach = call.x.offset[kx] - x.lowest;
      plane.at[ky * call.x.num_taps + kx] = (call.y.offset[ky] - y.lowest) * plane.pitch +
                                            reach % call.x.step * plane.phase_pitch +
                                            reach / call.x.step;
    }
}

SPARSEJAX_INLINE void copy(const float* from, int64_t n, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(to + i, load<Vec>(from + i));
  for (; i < n; i++) to[i] = from[i];
}

// Every second float of 2 n from `from`, and the others.
SPARSEJAX_INLINE void split(const float* from, int64_t n, float* even, float* odd) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Vec a = load<Vec>(from + 2 * i), b = load<Vec>(from + 2 * i + kLanes);
    store(even + i, even_lanes(a, b));
    store(odd + i, odd_lanes(a, b));
  }
  for (; i < n; i++) {
    even[i] = from[2 * i];
    odd[i] = from[2 * i + 1];
  }
}

// Position [phase][j] of a padded row is input lowest + phase + j * step. What lies outside the
// input is left alone.
void fill_row(const Axis& x, const PaddedPlane& plane, const float* in, float* row) {
  for (int64_t phase = 0; phase < x.step; phase++, row += plane.phase_pitch) {
    const int64_t base = plane.lowest_x + phase;
    int64_t begin = base >= 0 ? 0 : divide_up(-base, x.step);
    int64_t end = x.in > base ? divide_up(x.in - base, x.step) : 0;
    end = end < plane.phase_pitch ? end : plane.phase_pitch;
    if (begin >= end) continue;
    if (x.step == 1) {
      copy(in + base + begin, end - begin, row + begin);
      continue;
    }
    if (x.step == 2 && phase == 0) {  // and as much of phase 1 as lies beside it
      const int64_t pairs = (x.in - base - begin * 2) / 2, most = end - begin;
      const int64_t n = pairs < most ? pairs : most;
      split(in + base + begin * 2, n, row + begin, row + plane.phase_pitch + begin);
      begin += n;
    } else if (x.step == 2) {
      const int64_t first = plane.lowest_x >= 0 ? 0 : (-plane.lowest_x + 1) / 2;
      const int64_t pairs = (x.in - plane.lowest_x - first * 2) / 2;
      if (begin < first) row[begin] = in[base + begin * 2];
      begin = first + (pairs > 0 ? pairs : 0);
    }
    for (int64_t j = begin; j < end; j++) row[j] = in[base + j * x.step];
  }
}

void fill(const DepthwiseCall& call, const PaddedPlane& plane, const float* in, float* padded) {
  const int64_t first = plane.lowest_y > 0 ? plane.lowest_y : 0;
  const int64_t below = plane.lowest_y + plane.rows, last = below < call.y.in ? below : call.y.in;
  for (int64_t y = first; y < last; y++)
    fill_row(call.x, plane, in + y * call.x.in, padded + (y - plane.lowest_y) * plane.pitch);
}

// R output rows x G vectors: all the sums of a pass, however wide the plane is.
struct Pass {
  const float* padded;
  const float* weights;
  float bias;
  Activation activation;
  int64_t num_taps;
};

template <int R, int G>
SPARSEJAX_INLINE void outputs(const Pass& pass, const PaddedPlane& plane, int64_t oy, int64_t ox,
                              float* out, int64_t out_pitch) {
  const float* in = pass.padded + oy * plane.out_pitch + ox;
  Vec sum[R][G];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int g = 0; g < G; g++) sum[r][g] = splat<Vec>(pass.bias);
  for (int64_t t = 0; t < pass.num_taps; t++) {
    const Vec w = splat<Vec>(pass.weights[t]);
    const float* p = in + plane.at[t];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++, p += plane.out_pitch)
#pragma GCC unroll 8
      for (int g = 0; g < G; g++) sum[r][g] += w * load<Vec>(p + g * kLanes);
  }
  const Vec top = top_of<Vec>(pass.activation);
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int g = 0; g < G; g++)
      store(out + r * out_pitch + ox + g * kLanes, activated(pass.activation, sum[r][g], top));
}

// R rows of outputs in whole vectors: the last one of a row may spill over the row's end.
template <int R>
void output_rows(const Pass& pass, const PaddedPlane& plane, int64_t oy, int64_t width, float* out,
                 int64_t out_pitch) {
  int64_t ox = 0;
  for (; ox + 4 * kLanes <= width; ox += 4 * kLanes)
    outputs<R, 4>(pass, plane, oy, ox, out, out_pitch);
  switch (divide_up(width - ox, kLanes)) {
    case 4:
      return outputs<R, 4>(pass, plane, oy, ox, out, out_pitch);
    case 3:
      return outputs<R, 3>(pass, plane, oy, ox, out, out_pitch);
    case 2:
      return outputs<R, 2>(pass, plane, oy, ox, out, out_pitch);
    case 1:
      return outputs<R, 1>(pass, plane, oy, ox, out, out_pitch);
  }
}

// Whole vectors are written straight into the plane where what spills is overwritten by its later
// rows; the others go through `one_row`.
void output_plane(const DepthwiseCall& call, const Pass& pass, const PaddedPlane& plane, float* out,
                  float* one_row) {
  const int64_t width = call.x.out, spill = round_up(width, kLanes) - width;
  int64_t straight = 0;
  if (call.x.out_step == 1 && call.y.out_step == 1 && call.x.out_size == width) {
    const int64_t spilled_rows = divide_up(spill, width);
    straight = call.y.out > spilled_rows ? call.y.out - spilled_rows : 0;
  }
  int64_t oy = 0;
  // Rows of one pass are written in order; in several passes, what spills would hit the next row
  // after it is written.
  if (width <= 2 * kLanes)
    for (; oy + 4 <= straight; oy += 4)
      output_rows<4>(pass, plane, oy, width, out + oy * width, width);
  if (width <= 4 * kLanes || spill == 0)
    for (; oy + 2 <= straight; oy += 2)
      output_rows<2>(pass, plane, oy, width, out + oy * width, width);
  for (; oy < straight; oy++) output_rows<1>(pass, plane, oy, width, out + oy * width, width);
  for (; oy < call.y.out; oy++) {
    output_rows<1>(pass, plane, oy, width, one_row, 0);
    float* row =
        out + (call.y.out_first + oy * call.y.out_step) * call.x.out_size + call.x.out_first;
    for (int64_t ox = 0; ox < width; ox++) row[ox * call.x.out_step] = one_row[ox];
  }
}

void planes(const DepthwiseCall& call, int64_t begin, int64_t end, const float* in, float* out,
            float* scratch) {
  PaddedPlane plane;
  lay_out(call, plane);
  const int64_t num_taps = call.y.num_taps * call.x.num_taps;
  float* weights = scratch;
  float* one_row = weights + round_up(num_taps, kLine);
  float* padded = one_row + round_up(call.x.out, kLine);
  for (int64_t i = 0; i < plane.size; i++) padded[i] = 0.f;
  for (int64_t i = begin; i < end; i++) {
    const int64_t channel = i % call.channels;
    for (int64_t ky = 0; ky < call.y.num_taps; ky++)
      for (int64_t kx = 0; kx < call.x.num_taps; kx++) {
        const int64_t tap = call.y.index[ky] * call.x.kernel_size + call.x.index[kx];
        weights[ky * call.x.num_taps + kx] = call.kernel[tap * call.channels + channel];
      }
    fill(call, plane, in + i * call.y.in * call.x.in, padded);
    const Pass pass = {padded, weights, call.bias ? call.bias[channel] : 0.f, call.activation,
                       num_taps};
    output_plane(call, pass, plane, out + i * call.y.out_size * call.x.out_size, one_row);
  }
}

int64_t scratch_floats(const DepthwiseCall& call) {
  PaddedPlane plane;
  lay_out(call, plane);
  return round_up(call.y.num_taps * call.x.num_taps, kLine) + round_up(call.x.out, kLine) +
         plane.size + kLine;
}

// N taps of one kernel row over the plane; `grads` has rows of whole vectors, zeros behind the
// last.
template <int N>
SPARSEJAX_INLINE void grad_taps(const DepthwiseCall& call, const PaddedPlane& plane,
                                const float* padded, const float* grads, int64_t first,
                                float* sums) {
  const int64_t width = round_up(call.x.out, kLanes);
  Vec sum[N] = {};
  for (int64_t oy = 0; oy < call.y.out; oy++) {
    const float *in = padded + oy * plane.out_pitch, *g = grads + oy * width;
    for (int64_t ox = 0; ox < width; ox += kLanes) {
      const Vec grad = load<Vec>(g + ox);
#pragma GCC unroll 8
      for (int n = 0; n < N; n++) sum[n] += grad * load<Vec>(in + plane.at[first + n] + ox);
    }
  }
#pragma GCC unroll 8
  for (int n = 0; n < N; n++) sums[first + n] += sum_lanes(sum[n]);
}

void grad_kernel_channel(const DepthwiseCall& call, int64_t channel, int64_t images,
                         const float* in, const float* grad_out, float* sums, float* grad_bias,
                         float* scratch) {
  PaddedPlane plane;
  lay_out(call, plane);
  const int64_t width = round_up(call.x.out, kLanes), num_taps = call.y.num_taps * call.x.num_taps;
  float *padded = scratch, *grads = scratch + round_up(plane.size, kLine);
  for (int64_t i = 0; i < plane.size; i++) padded[i] = 0.f;
  for (int64_t i = 0; i < call.y.out * width; i++) grads[i] = 0.f;
  for (int64_t t = 0; t < num_taps; t++) sums[t] = 0.f;
  Vec total = {};
  for (int64_t image = 0; image < images; image++) {
    const int64_t i = image * call.channels + channel;
    fill(call, plane, in + i * call.y.in * call.x.in, padded);
    for (int64_t oy = 0; oy < call.y.out; oy++)
      copy(grad_out + (i * call.y.out + oy) * call.x.out, call.x.out, grads + oy * width);
    for (int64_t j = 0; j < call.y.out * width; j += kLanes) total += load<Vec>(grads + j);
    int64_t t = 0;
    for (; t + 9 <= num_taps; t += 9) grad_taps<9>(call, plane, padded, grads, t, sums);
    for (; t + 4 <= num_taps; t += 4) grad_taps<4>(call, plane, padded, grads, t, sums);
    for (; t < num_taps; t++) grad_taps<1>(call, plane, padded, grads, t, sums);
  }
  *grad_bias = sum_lanes(total);
}

int64_t grad_scratch_floats(const DepthwiseCall& call) {
  PaddedPlane plane;
  lay_out(call, plane);
  return round_up(plane.size, kLine) + call.y.out * round_up(call.x.out, kLanes) + kLine;
}

}  // namespace

extern const DepthwisePlaneKernels depthwise_planes = {scratch_floats, planes, grad_scratch_floats,
                                                       grad_kernel_channel};

}  // namespace sparsejax::SPARSEJAX_TARGET
