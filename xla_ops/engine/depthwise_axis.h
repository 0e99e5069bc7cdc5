// Where a convolution's taps read, forwards and for the gradient in its input; see depthwise.h.
#pragma once
#include <algorithm>

#include "kernels/depthwise.h"
#include "kernels/sizes.h"

namespace sparsejax {

struct AxisSizes {
  int64_t in, out, kernel, stride, dilation, pad_low;
};

// Fills in which outputs see every tap inside the input.
inline void find_whole(Axis& axis) {
  int64_t lowest = 0, highest = 0;
  for (int64_t t = 0; t < axis.num_taps; t++) {
    lowest = t ? std::min(lowest, axis.offset[t]) : axis.offset[t];
    highest = t ? std::max(highest, axis.offset[t]) : axis.offset[t];
  }
  // first o with o * step + lowest >= 0; first o with o * step + highest >= in
  int64_t begin = lowest >= 0 ? 0 : divide_up(-lowest, axis.step);
  int64_t end = axis.in - highest <= 0 ? 0 : divide_up(axis.in - highest, axis.step);
  axis.whole_begin = std::min(begin, axis.out);
  axis.whole_end = std::max(axis.whole_begin, std::min(end, axis.out));
}

inline Axis forward_axis(const AxisSizes& s) {
  Axis axis = {};
  axis.out = axis.out_size = s.out;
  axis.in = s.in;
  axis.step = s.stride;
  axis.out_step = 1;
  axis.num_taps = axis.kernel_size = s.kernel;
  for (int64_t t = 0; t < s.kernel; t++) {
    axis.index[t] = t;
    axis.offset[t] = t * s.dilation - s.pad_low;
  }
  find_whole(axis);
  return axis;
}

// The input positions phase, phase + stride, ... of the gradient in the input: position i = phase +
// o * stride was read by output (i + pad_low - t * dilation) / stride through tap t, where that
// division leaves no rest.
inline Axis grad_axis(const AxisSizes& s, int64_t phase) {
  Axis axis = {};
  axis.out = s.in > phase ? divide_up(s.in - phase, s.stride) : 0;
  axis.out_size = s.in;
  axis.out_first = phase;
  axis.out_step = s.stride;
  axis.in = s.out;
  axis.step = 1;
  axis.kernel_size = s.kernel;
  for (int64_t t = 0; t < s.kernel; t++) {
    const int64_t reach = phase + s.pad_low - t * s.dilation;
    if (reach % s.stride != 0) continue;
    axis.index[axis.num_taps] = t;
    axis.offset[axis.num_taps++] = reach / s.stride;
  }
  find_whole(axis);
  return axis;
}

}  // namespace sparsejax
