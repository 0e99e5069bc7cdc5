// im2col of strips; see window.h. Compiled once for each instruction set.
#include "kernels/window_vectors.h"

namespace sparsejax::SPARSEJAX_TARGET {
namespace {

template <class V, int step>
SPARSEJAX_INLINE V tap_vector(const float* p) {
  if constexpr (step == 1)
    return load<V>(p);
  else
    return even_lanes(load<V>(p), load<V>(p + lanes_of<V>));
}

// What one tap sees of a row that is there, cut into vectors.
template <class V, int step>
SPARSEJAX_INLINE void tap_vectors(const Window& window, const Cut& cut, const float* row,
                                  int64_t kx, V gate, float* out) {
  constexpr int kN = lanes_of<V>;
  const float* from = row + kx * window.dilation_x - window.pad_left;
  for (int64_t j = 0; j < cut.vectors; j++) {
    const int64_t x = cut.at(j, kN);
    V value = tap_vector<V, step>(from + x * step);
    if (!cut.whole(j)) {
      const V mask = load<V>(cut.masks + (j * window.kernel_x + kx) * kN);
      value = cut_lanes(value, step == 2 ? in_order(mask) : mask);
    }
    store(out + x, gate * value);
  }
}

// What one tap sees at one vector of all rows: for narrow rows, whose masks
// stay in registers so.
template <class V, int step>
SPARSEJAX_INLINE void tap_rows(const WindowCall& call, const Cut& cut, int64_t channel, int64_t ky,
                               int64_t kx, V gate, float* out) {
  const Window& window = call.window;
  const int64_t at = channel * call.pitch + kx * window.dilation_x - window.pad_left;
  for (int64_t j = 0; j < cut.vectors; j++) {
    const V mask = load<V>(cut.masks + (j * window.kernel_x + kx) * lanes_of<V>);
    const V lanes = step == 2 ? in_order(mask) : mask;
    const int64_t x = cut.at(j, lanes_of<V>);
    const float* const* rows = call.rows + ky * window.dilation_y;
    float* to = out + x;
    for (int64_t o = 0; o < call.out_rows; o++, rows += window.stride_y, to += window.out_width)
      store(to, *rows ? gate * cut_lanes(tap_vector<V, step>(*rows + at + x * step), lanes) : V{});
  }
}

template <class V, int step>
SPARSEJAX_INLINE void tap_plane(const WindowCall& call, const Cut& cut, int64_t channel, int64_t ky,
                                int64_t kx, V gate, float* out) {
  if (cut.vectors <= 2) return tap_rows<V, step>(call, cut, channel, ky, kx, gate, out);
  for (int64_t o = 0; o < call.out_rows; o++, out += call.window.out_width) {
    const float* row = row_of(call, channel, o, ky);
    if (row)
      tap_vectors<V, step>(call.window, cut, row, kx, gate, out);
    else
      fill(out, call.window.out_width, 0.f);
  }
}

template <class V, int step>
void whole_vectors(const WindowCall& call, const float* gate) {
  const Window& window = call.window;
  const Cut cut = cut_row<V>(window, call.scratch);
  float* out = call.out + call.channel_begin * window.kernel_y * window.kernel_x * call.out_pitch;
  for (int64_t c = call.channel_begin; c < call.channel_end; c++) {
    const V factor = splat<V>(gate ? gate[c] : 1.f);
    for (int64_t ky = 0; ky < window.kernel_y; ky++)
      for (int64_t kx = 0; kx < window.kernel_x; kx++, out += call.out_pitch)
        tap_plane<V, step>(call, cut, c, ky, kx, factor, out);
  }
}

}  // namespace

void window_columns(const WindowCall& call, const float* gate) {
  const Window& window = call.window;
  const auto passes = [&](auto v) {
    if (window.stride_x == 1)
      whole_vectors<decltype(v), 1>(call, gate);
    else
      whole_vectors<decltype(v), 2>(call, gate);
  };
  if (with_vectors(call, passes)) return;
  for (int64_t c = call.channel_begin; c < call.channel_end; c++)
    for (int64_t ky = 0; ky < window.kernel_y; ky++)
      for (int64_t kx = 0; kx < window.kernel_x; kx++) {
        float* out =
            call.out + ((c * window.kernel_y + ky) * window.kernel_x + kx) * call.out_pitch;
        for (int64_t o = 0; o < call.out_rows; o++, out += window.out_width)
          tap_row(window, row_of(call, c, o, ky), kx, gate ? gate[c] : 1.f, 0.f, out);
      }
}

}  // namespace sparsejax::SPARSEJAX_TARGET
