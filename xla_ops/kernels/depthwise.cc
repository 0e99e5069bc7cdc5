// Depthwise convolution of channels-last images, vectorised over channels; see depthwise.h.
// Compiled once for each instruction set.
//
// A step takes a cache line of channels (16 floats) of a few neighbouring pixels: with 512 channels
// pixels lie 2 KB apart, in two sets of the L1 cache, and a line that is used by halves would be
// fetched twice.
#include "kernels/depthwise.h"

#include "kernels/relu.h"
#include "simd/vectors.h"

namespace sparsejax::SPARSEJAX_TARGET {
namespace {

constexpr int kUnit = kLine / kLanes;  // vectors of a line
// Pixels of a step: their sums, an input and a weight must fit the registers.
constexpr int kGroup = SPARSEJAX_REGISTERS == 32 ? (kUnit > 2 ? 4 : 8) : (kUnit > 2 ? 2 : 4);

alignas(64) const float kZeros[kLine] = {};

// The taps inside the image, of one output row: all of its kernel rows in one list. A loop over it
// whose length the compiler does not know runs 3x faster than unrolled ones, whose addresses spill.
struct Taps {
  int64_t count;
  int64_t x[kMaxTaps * kMaxTaps];       // which tap of the x axis
  int64_t row[kMaxTaps * kMaxTaps];     // where the input row starts in the image
  int64_t whole[kMaxTaps * kMaxTaps];   // where output 0 reads, inside or not
  int64_t weight[kMaxTaps * kMaxTaps];  // within a block of packed taps
};

void find_taps(const DepthwiseCall& call, int64_t out, Taps& taps) {
  taps.count = 0;
  for (int64_t ky = 0; ky < call.y.num_taps; ky++) {
    const int64_t in = out * call.y.step + call.y.offset[ky];
    if (in < 0 || in >= call.y.in) continue;
    for (int64_t kx = 0; kx < call.x.num_taps; kx++, taps.count++) {
      taps.x[taps.count] = kx;
      taps.row[taps.count] = in * call.x.in * call.channels;
      taps.whole[taps.count] = taps.row[taps.count] + call.x.offset[kx] * call.channels;
      taps.weight[taps.count] = (call.y.index[ky] * call.x.kernel_size + call.x.index[kx]) * kLine;
    }
  }
}

// Neighbouring output pixels.
struct Group {
  int64_t count;  // of pixels that are stored
  int64_t first;  // input offset of the first; the others follow by `pitch`
  int64_t pitch;
  int64_t each[kMaxTaps]
              [kGroup];  // at an edge: input offset for each x tap, negative where outside
  float* out;
  int64_t out_pitch;
};

void place(const DepthwiseCall& call, int64_t o, float* out_row, Group& group) {
  group.count = call.x.out - o < kGroup ? call.x.out - o : kGroup;
  group.first = o * call.x.step * call.channels;
  group.out = out_row + (call.x.out_first + o * call.x.out_step) * call.channels;
}

void place_at_edge(const DepthwiseCall& call, int64_t o, float* out_row, Group& group) {
  place(call, o, out_row, group);
  for (int64_t t = 0; t < call.x.num_taps; t++)
    for (int g = 0; g < kGroup; g++) {
      const int64_t in = (o + g) * call.x.step + call.x.offset[t];
      group.each[t][g] = in < 0 || in >= call.x.in || g >= group.count ? -1 : in * call.channels;
    }
}

// One step: U vectors of channels from c on, all pixels of a group.
template <bool at_edge, int U, class V>
SPARSEJAX_INLINE void step(const DepthwiseCall& call, const Taps& taps, const Group& group,
                           const float* image, int64_t c, const float* weights) {
  constexpr int L = lanes_of<V>;
  V sum[kGroup][U];
#pragma GCC unroll 8
  for (int g = 0; g < kGroup; g++)
#pragma GCC unroll 4
    for (int u = 0; u < U; u++) sum[g][u] = call.bias ? load<V>(call.bias + c + u * L) : V{};
  for (int64_t t = 0; t < taps.count; t++) {
    V tap[U];
#pragma GCC unroll 4
    for (int u = 0; u < U; u++) tap[u] = load<V>(weights + taps.weight[t] + u * L);
#pragma GCC unroll 8
    for (int g = 0; g < kGroup; g++) {
      const float* p;
      if constexpr (at_edge) {
        const int64_t at = group.each[taps.x[t]][g];
        p = at < 0 ? kZeros : image + (taps.row[t] + at);
      } else {
        p = image + (taps.whole[t] + group.first + g * group.pitch);
      }
#pragma GCC unroll 4
      for (int u = 0; u < U; u++) sum[g][u] += tap[u] * load<V>(p + u * L);
    }
  }
  const V top = top_of<V>(call.activation);
#pragma GCC unroll 8
  for (int g = 0; g < kGroup; g++) {
    if (at_edge && g >= group.count) break;
#pragma GCC unroll 4
    for (int u = 0; u < U; u++)
      store(group.out + g * group.out_pitch + c + u * L,
            activated(call.activation, sum[g][u], top));
  }
}

template <bool at_edge>
void all_channels(const DepthwiseCall& call, const Taps& taps, const Group& group,
                  const float* image) {
  const int64_t block_size = call.y.kernel_size * call.x.kernel_size * kLine;
  const float* weights = call.kernel;
  int64_t c = 0;
  for (; c + kLine <= call.channels; c += kLine, weights += block_size)
    step<at_edge, kUnit, Vec>(call, taps, group, image + c, c, weights);
  for (; c + 4 <= call.channels; c += 4)
    step<at_edge, 1, Vec4>(call, taps, group, image + c, c, weights + c % kLine);
  for (; c < call.channels; c++)
    step<at_edge, 1, float>(call, taps, group, image + c, c, weights + c % kLine);
}

void output_rows(const DepthwiseCall& call, const float* image, float* out, int64_t begin,
                 int64_t end) {
  Taps taps;
  Group group;
  group.pitch = call.x.step * call.channels;
  group.out_pitch = call.x.out_step * call.channels;
  for (int64_t oy = begin; oy < end; oy++) {
    find_taps(call, oy, taps);
    float* out_row =
        out + (call.y.out_first + oy * call.y.out_step) * call.x.out_size * call.channels;
    for (int64_t o = 0; o < call.x.out; o += kGroup) {
      if (o >= call.x.whole_begin && o + kGroup <= call.x.whole_end) {
        place(call, o, out_row, group);
        all_channels<false>(call, taps, group, image);
      } else {
        place_at_edge(call, o, out_row, group);
        all_channels<true>(call, taps, group, image);
      }
    }
  }
}

// The kernel rows that fall inside the image for one output row.
struct Rows {
  int64_t count;
  const float* image[kMaxTaps];  // the input row
  int64_t taps[kMaxTaps];        // where its taps are within a block of packed taps
};

Rows rows_of(const DepthwiseCall& call, const float* image, int64_t out) {
  Rows rows;
  rows.count = 0;
  for (int64_t t = 0; t < call.y.num_taps; t++) {
    const int64_t in = out * call.y.step + call.y.offset[t];
    if (in < 0 || in >= call.y.in) continue;
    rows.image[rows.count] = image + in * call.x.in * call.channels;
    rows.taps[rows.count++] = call.y.index[t] * call.x.kernel_size * kLine;
  }
  return rows;
}

// N taps of one kernel row, U vectors of channels, over one output row. Pointers are at the first
// channel.
template <int N, int U, class V>
SPARSEJAX_INLINE void grad_taps(const DepthwiseCall& call, const float* row, const float* grad_out,
                                int64_t first, float* sums) {
  constexpr int L = lanes_of<V>;
  const Axis& axis = call.x;
  V sum[N][U];
#pragma GCC unroll 8
  for (int n = 0; n < N; n++)
#pragma GCC unroll 4
    for (int u = 0; u < U; u++) sum[n][u] = load<V>(sums + (first + n) * kLine + u * L);
  for (int64_t o = 0; o < axis.out; o++) {
    if (o == axis.whole_begin) {
      const float *p = row + o * axis.step * call.channels, *g = grad_out + o * call.channels;
      for (; o < axis.whole_end; o++, p += axis.step * call.channels, g += call.channels)
#pragma GCC unroll 4
        for (int u = 0; u < U; u++) {
          const V grad = load<V>(g + u * L);
#pragma GCC unroll 8
          for (int n = 0; n < N; n++)
            sum[n][u] += grad * load<V>(p + axis.offset[first + n] * call.channels + u * L);
        }
      if (o == axis.out) break;
    }
#pragma GCC unroll 8
    for (int n = 0; n < N; n++) {
      const int64_t in = o * axis.step + axis.offset[first + n];
      if (in < 0 || in >= axis.in) continue;
#pragma GCC unroll 4
      for (int u = 0; u < U; u++)
        sum[n][u] += load<V>(grad_out + o * call.channels + u * L) *
                     load<V>(row + in * call.channels + u * L);
    }
  }
#pragma GCC unroll 8
  for (int n = 0; n < N; n++)
#pragma GCC unroll 4
    for (int u = 0; u < U; u++) store(sums + (first + n) * kLine + u * L, sum[n][u]);
}

// U vectors of channels of one output row.
template <int U, class V>
void grad_row(const DepthwiseCall& call, const Rows& rows, const float* grad_out, int64_t c,
              float* grad_kernel, float* grad_bias) {
  constexpr int kMost =
      U == 1 || SPARSEJAX_REGISTERS == 32 ? 5 : 3;  // taps whose sums fit the registers
  const int64_t block_size = call.y.kernel_size * call.x.kernel_size * kLine;
  for (int64_t ky = 0; ky < rows.count; ky++) {
    const float* row = rows.image[ky] + c;
    float* sums = grad_kernel + c / kLine * block_size + c % kLine + rows.taps[ky];
    int64_t t = 0;
    if constexpr (kMost == 5)
      if (call.x.num_taps % 5 == 0)
        for (; t < call.x.num_taps; t += 5) grad_taps<5, U, V>(call, row, grad_out + c, t, sums);
    for (; t + 3 <= call.x.num_taps; t += 3) grad_taps<3, U, V>(call, row, grad_out + c, t, sums);
    for (; t + 2 <= call.x.num_taps; t += 2) grad_taps<2, U, V>(call, row, grad_out + c, t, sums);
    for (; t < call.x.num_taps; t++) grad_taps<1, U, V>(call, row, grad_out + c, t, sums);
  }
#pragma GCC unroll 4
  for (int u = 0; u < U; u++) {
    const int64_t at = c + u * lanes_of<V>;
    V sum = load<V>(grad_bias + at);
    for (int64_t o = 0; o < call.x.out; o++) sum += load<V>(grad_out + o * call.channels + at);
    store(grad_bias + at, sum);
  }
}

void grad_kernel_rows(const DepthwiseCall& call, const float* image, const float* grad_out,
                      int64_t begin, int64_t end, float* grad_kernel, float* grad_bias) {
  for (int64_t oy = begin; oy < end; oy++) {
    const Rows rows = rows_of(call, image, oy);
    const float* g = grad_out + oy * call.x.out * call.channels;
    int64_t c = 0;
    for (; c + kLine <= call.channels; c += kLine)
      grad_row<kUnit, Vec>(call, rows, g, c, grad_kernel, grad_bias);
    for (; c + 4 <= call.channels; c += 4)
      grad_row<1, Vec4>(call, rows, g, c, grad_kernel, grad_bias);
    for (; c < call.channels; c++) grad_row<1, float>(call, rows, g, c, grad_kernel, grad_bias);
  }
}

}  // namespace

extern const DepthwiseKernels depthwise = {output_rows, grad_kernel_rows};

}  // namespace sparsejax::SPARSEJAX_TARGET
