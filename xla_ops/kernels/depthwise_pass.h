// The passes of depthwise_strips.cc: some vectors of outputs in up to 7 rows, column by column of
// the kernel.
#pragma once
#include "kernels/window_vectors.h"

namespace sparsejax::SPARSEJAX_TARGET {

// What the passes over one channel have in common.
struct Strip {
  const Window& window;
  const Address* rows;   // of the current channel less `channel` bytes; missing ones are zeros
  Address missing;       // what stands in `rows` for those
  Address channel;       // bytes from channel 0 to the current one
  const float* weights;  // [kernel_y][kernel_x]
  float bias;
  ActivationCall activation;  // kClamp
  float* out;
};

// One tap of an input row: adds it to the sums of the R output rows that it belongs to.
template <int K, int step, int R, class V>
SPARSEJAX_INLINE void add_row(int i, V x, const V (&w)[K], V (&sum)[R]) {
#pragma GCC unroll 8
  for (int ky = 0; ky < K; ky++)
    if ((i - ky) % step == 0 && i >= ky && (i - ky) / step < R) sum[(i - ky) / step] += w[ky] * x;
}

template <int K, class V>
SPARSEJAX_INLINE void kernel_column(const float* weights, int64_t kernel_x, V (&w)[K]) {
#pragma GCC unroll 8
  for (int ky = 0; ky < K; ky++) w[ky] = splat<V>(weights[ky * kernel_x]);
}

// The sums of R rows of G vectors; p: input rows at the first vector's leftmost tap, G vectors at
// `x` floats further each. Weights of one column of the kernel stay in registers, and each input
// row is loaded once for all the outputs that it feeds.
template <class V, int K, int step, int R, int G, bool masked>
SPARSEJAX_INLINE void sums_of(const float* const (&p)[(R - 1) * step + K], const float* weights,
                              int64_t kernel_x, const int64_t (&x)[G],
                              const float* const (&masks)[G], V (&sum)[G][R]) {
  constexpr int kRows = (R - 1) * step + K, kN = lanes_of<V>;
  V w[K];
  for (int64_t kx = 0; kx < kernel_x; kx++) {
    kernel_column(weights + kx, kernel_x, w);
#pragma GCC unroll 32
    for (int i = 0; i < kRows; i++)
#pragma GCC unroll 4
      for (int g = 0; g < G; g++) {
        V in = load<V>(p[i] + x[g] + kx);
        if constexpr (step == 2) in = every_second(in, load<V>(p[i] + x[g] + kx + kN), 0);
        in = masked ? cut(in, masks[g] + kx * kN) : in_register(in);
        add_row<K, step>(i, in, w, sum[g]);
      }
  }
}

// Output rows [row, row + R).
template <class V, int K, int step, int R>
struct Rows {
  static constexpr int kRows = (R - 1) * step + K, kN = lanes_of<V>;
  const Strip& strip;
  const Cut& cut;
  const float* p[kRows];
  float* out;

  SPARSEJAX_INLINE Rows(const Strip& of, const Cut& cuts, int64_t row)
      : strip(of), cut(cuts), out(of.out + row * of.window.out_width) {
#pragma GCC unroll 32
    for (int i = 0; i < kRows; i++)
      p[i] = (const float*)(strip.rows[row * step + i] + strip.channel) - strip.window.pad_left;
  }

  // G vectors, `apart` vectors from one to the next.
  template <int G, bool masked>
  SPARSEJAX_INLINE void vectors(int64_t j, int64_t apart) const {
    const int64_t kernel_x = K, width = strip.window.out_width;
    int64_t x[G], from[G];
    const float* masks[G];
    V sum[G][R];
#pragma GCC unroll 4
    for (int g = 0; g < G; g++) {
      x[g] = cut.at(j + g * apart, kN);
      from[g] = x[g] * step;
      masks[g] = cut.masks + (j + g * apart) * kernel_x * kN;
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) sum[g][r] = splat<V>(strip.bias);
    }
    sums_of<V, K, step, R, G, masked>(p, strip.weights, kernel_x, from, masks, sum);
    const V low = splat<V>(strip.activation.low), high = splat<V>(strip.activation.high);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
      for (int g = 0; g < G; g++) {
        const V y = step == 2 ? in_order(sum[g][r]) : sum[g][r];
        store(out + r * width + x[g], clamp(y, low, high));
      }
  }

  // Edges in pairs, the first with the last; whole vectors G at a time, then one by one.
  template <int G>
  SPARSEJAX_INLINE void all() const {
    int64_t first = 0, last = cut.vectors - 1;
    for (; first < last && !(cut.whole(first) && cut.whole(last)); first++, last--)
      vectors<2, true>(first, last - first);
    for (; first + G - 1 <= last && cut.whole(first); first += G) vectors<G, false>(first, 1);
    for (; first <= last; first++) vectors<1, true>(first, 1);
  }
};

}  // namespace sparsejax::SPARSEJAX_TARGET
