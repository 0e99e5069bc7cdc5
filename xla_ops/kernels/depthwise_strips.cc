// Depthwise convolution of strips; see window.h. Compiled once for each instruction set.
//
// A pass makes some vectors of outputs in up to 7 rows, so that an input row is loaded once for all
// the outputs that it feeds; how many rows changes no sum's order. Lanes outside of the row are cut
// by a bitwise and, which NaN does not survive. 3x3 at 14x14x512: 45 us on one AVX2 core at 3.2
// GHz, two fifths of its peak.
#include "kernels/depthwise_3x3.h"
#include "kernels/elementwise.h"

namespace sparsejax::SPARSEJAX_TARGET {

extern const ElementwiseKernels elementwise;

namespace {

// Sums of a pass: more than this would spill, fewer would wait for one another.
constexpr int kSums = SPARSEJAX_REGISTERS / 2;
// Channels that are finished together: of 196 pixels, 12 KB.
constexpr int64_t kFinished = 16;

template <class V, int K, int step, int R>
void rows_pass(const Strip& strip, const Cut& cut, int64_t row) {
  constexpr int G = step == 2 ? 1 : kSums / R < 1 ? 1 : kSums / R > 4 ? 4 : kSums / R;
  if constexpr (K == 3 && (step == 2 || R < 3 || lanes_of<V> == 16))
    three_rows<V, step, R>(strip, cut, row);
  else
    Rows<V, K, step, R>(strip, cut, row).template all<G>();
}

template <class V, int K, int step>
void plane(const Strip& strip, int64_t out_rows, const Cut& cut) {
  int64_t row = 0;
  if constexpr (step == 1 && lanes_of<V> > 4)  // strips of 4 columns have few rows
    for (; cut.vectors == 1 && out_rows - row >= 7 && out_rows - row != 8; row += 7)
      rows_pass<V, K, step, 7>(strip, cut, row);
  for (; out_rows - row >= 4 && out_rows - row != 5; row += 4)
    rows_pass<V, K, step, 4>(strip, cut, row);
  for (; out_rows - row >= 3; row += 3) rows_pass<V, K, step, 3>(strip, cut, row);
  if (out_rows - row == 2) rows_pass<V, K, step, 2>(strip, cut, row);
  if (out_rows - row == 1) rows_pass<V, K, step, 1>(strip, cut, row);
}

// R rows of a vector of outputs by a window of any size and dilation.
template <class V, int step, int R, bool masked>
SPARSEJAX_INLINE void any_vector(const Strip& strip, const Cut& cut, int64_t row, int64_t j) {
  const Window& w = strip.window;
  constexpr int kN = lanes_of<V>;
  const int64_t x = cut.at(j, kN);
  V sum[R];
  for (int r = 0; r < R; r++) sum[r] = splat<V>(strip.bias);
  const float* weight = strip.weights;
  for (int64_t ky = 0; ky < w.kernel_y; ky++) {
    const float* p[R];
    bool there = false;
    for (int r = 0; r < R; r++) {
      const Address from = strip.rows[(row + r) * w.stride_y + ky * w.dilation_y];
      there |= from != strip.missing;
      p[r] = (const float*)(from + strip.channel) + x * step - w.pad_left;
    }
    if (!there) {
      weight += w.kernel_x;
      continue;
    }
    const float* mask = cut.masks + j * w.kernel_x * kN;
    for (int64_t kx = 0; kx < w.kernel_x; kx++, mask += kN) {
      const V factor = splat<V>(*weight++), inside = masked ? load<V>(mask) : V{};
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) {
        V in = load<V>(p[r]);
        if constexpr (step == 2) in = every_second(in, load<V>(p[r] + kN), 0);
        if constexpr (masked) in = cut_lanes(in, inside);
        sum[r] += factor * in;
        p[r] += w.dilation_x;
      }
    }
  }
  const V low = splat<V>(strip.activation.low), high = splat<V>(strip.activation.high);
  for (int r = 0; r < R; r++)
    store(strip.out + (row + r) * w.out_width + x,
          clamp(step == 2 ? in_order(sum[r]) : sum[r], low, high));
}

template <class V, int step, int R>
void any_rows(const Strip& strip, const Cut& cut, int64_t row) {
  for (int64_t j = 0; j < cut.vectors; j++)
    cut.whole(j) ? any_vector<V, step, R, false>(strip, cut, row, j)
                 : any_vector<V, step, R, true>(strip, cut, row, j);
}

template <class V, int step>
void any_plane(const Strip& strip, int64_t out_rows, const Cut& cut) {
  int64_t row = 0;
  for (; out_rows - row >= 4; row += 4) any_rows<V, step, 4>(strip, cut, row);
  for (; out_rows - row >= 2; row += 2) any_rows<V, step, 2>(strip, cut, row);
  for (; out_rows - row >= 1; row++) any_rows<V, step, 1>(strip, cut, row);
}

bool has_passes(const Window& w) {
  return w.dilation_y == 1 && w.dilation_x == 1 && w.stride_y == w.stride_x &&
         w.kernel_y == w.kernel_x && (w.kernel_y == 3 || w.kernel_y == 5 || w.kernel_y == 7);
}

template <class V, int step>
void plane(const Strip& strip, int64_t out_rows, const Cut& cut) {
  if (!has_passes(strip.window)) return any_plane<V, step>(strip, out_rows, cut);
  if (strip.window.kernel_y == 3) plane<V, 3, step>(strip, out_rows, cut);
  if (strip.window.kernel_y == 5) plane<V, 5, step>(strip, out_rows, cut);
  if (strip.window.kernel_y == 7) plane<V, 7, step>(strip, out_rows, cut);
}

constexpr int64_t round_up(int64_t n) { return (n + 15) / 16 * 16; }

int64_t rows_read(const Window& window, int64_t out_rows) {
  return (out_rows - 1) * window.stride_y + (window.kernel_y - 1) * window.dilation_y + 1;
}

// Where things lie in the scratch.
struct Scratch {
  Address *rows, *missing;  // missing: which rows are
  float *zeros, *masks, *sums, *taps;
  int64_t size;
};

Scratch lay_out(const Window& window, int64_t out_rows, float* at) {
  Scratch scratch;
  const int64_t rows = round_up(rows_read(window, out_rows) * sizeof(Address) / sizeof(float));
  const float* begin = at;
  scratch.rows = (Address*)at;
  scratch.missing = (Address*)(at += rows);
  scratch.zeros = at += rows;
  scratch.masks = at += round_up(window.in_width + 32);
  scratch.sums = at += round_up(window.out_width) * window.kernel_x;
  scratch.taps = at += round_up(window.out_width);
  scratch.size = at + round_up(window.out_width) - begin;
  return scratch;
}

// What is made of channels [begin, end) while they are in the cache: a function other than a clamp,
// their sums.
void finish(const WindowCall& call, const ActivationCall& activation, float* sums, int64_t begin,
            int64_t end) {
  float* const out = call.out + begin * call.out_pitch;
  const int64_t floats = call.out_rows * call.window.out_width;
  if (activation.function != Function::kClamp && activation.function != Function::kIdentity)
    elementwise.activate_rows(activation, out, floats, end - begin, call.out_pitch, out);
  if (!sums) return;
  for (int64_t c = begin; c < end; c++)
    sums[c] = elementwise.sum(call.out + c * call.out_pitch, floats);
}

// The passes over whole vectors, channel by channel; activation is a clamp. Calls finished(begin,
// end) of some channels at a time.
template <class V, class F>
void whole_vectors(const WindowCall& call, const float* weights, const float* bias,
                   const ActivationCall& activation, const F& finished) {
  const Window& window = call.window;
  const Scratch scratch = lay_out(window, call.out_rows, call.scratch);
  const int64_t num_rows = rows_read(window, call.out_rows);
  const int64_t taps = window.kernel_y * window.kernel_x;
  int64_t num_missing = 0;
  for (int64_t i = 0; i < num_rows; i++) {
    scratch.rows[i] = (Address)call.rows[i];
    if (!call.rows[i]) scratch.missing[num_missing++] = i;
  }
  fill(scratch.zeros, window.in_width + 32, 0.f);
  const Cut cut = cut_row<V>(window, scratch.masks);
  for (int64_t c = call.channel_begin; c < call.channel_end; c++) {
    const Address channel = c * call.pitch * sizeof(float);
    const Address zeros = (Address)(scratch.zeros + 16) - channel;
    for (int64_t i = 0; i < num_missing; i++) scratch.rows[scratch.missing[i]] = zeros;
    const Strip strip = {window,
                         scratch.rows,
                         zeros,
                         channel,
                         weights + c * taps,
                         bias[c],
                         activation,
                         call.out + c * call.out_pitch};
    if (window.stride_x == 1)
      plane<V, 1>(strip, call.out_rows, cut);
    else
      plane<V, 2>(strip, call.out_rows, cut);
    const int64_t begin = c - (c - call.channel_begin) % kFinished;
    if (c == begin + kFinished - 1 || c == call.channel_end - 1) finished(begin, c + 1);
  }
}

// Tap by tap, for strides and padding of any size; exactly the strip is written.
void any_window(const WindowCall& call, int64_t channel, const float* weights, float bias,
                const ActivationCall& activation, float* out) {
  const Window& window = call.window;
  const Scratch scratch = lay_out(window, call.out_rows, call.scratch);
  float *taps = scratch.taps, *sums = scratch.sums;
  for (int64_t o = 0; o < call.out_rows; o++, out += window.out_width) {
    fill(sums, window.out_width, bias);
    for (int64_t t = 0; t < window.kernel_y * window.kernel_x; t++) {
      const float* row = row_of(call, channel, o, t / window.kernel_x);
      if (!row) continue;
      const float weight = weights[t];
      tap_row(window, row, t % window.kernel_x, 1.f, 0.f, taps);
      for (int64_t x = 0; x < window.out_width; x++) sums[x] += weight * taps[x];
    }
    elementwise.activate(activation, sums, window.out_width, sums);
    copy_scaled(sums, 1, window.out_width, 1.f, out);
  }
}

}  // namespace

int64_t depthwise_scratch_floats(const Window& window, int64_t out_rows) {
  return lay_out(window, out_rows, nullptr).size;
}

void window_depthwise(const WindowCall& call, const float* weights, const float* bias,
                      const ActivationCall& activation, float* sums) {
  constexpr float kInf = __builtin_inff();
  const bool clamps = activation.function == Function::kClamp;
  const ActivationCall none = {Function::kClamp, -kInf, kInf}, &clamp = clamps ? activation : none;
  const auto finished = [&](int64_t begin, int64_t end) {
    finish(call, activation, sums, begin, end);
  };
  const auto passes = [&](auto v) {
    whole_vectors<decltype(v)>(call, weights, bias, clamp, finished);
  };
  if (with_vectors(call, passes)) return;
  const int64_t taps = call.window.kernel_y * call.window.kernel_x;
  for (int64_t c = call.channel_begin; c < call.channel_end; c++)
    any_window(call, c, weights + c * taps, bias[c], activation, call.out + c * call.out_pitch);
  const ActivationCall done = {Function::kIdentity, 0.f, 0.f};
  finish(call, done, sums, call.channel_begin, call.channel_end);
}

}  // namespace sparsejax::SPARSEJAX_TARGET
