// Norms and softmax over channels; see norm.h. Compiled once for each instruction set.
#include "kernels/norm.h"

#include "simd/functions.h"

namespace sparsejax::SPARSEJAX_TARGET {
namespace {

template <class V>
SPARSEJAX_INLINE V inverse_root(V x) {
  float part[lanes_of<V>];
  store(part, x);
  for (int i = 0; i < lanes_of<V>; i++) part[i] = 1.f / __builtin_sqrtf(part[i]);
  return load<V>(part);
}

template <class V>
SPARSEJAX_INLINE V larger(V a, V b) {
  return a > b ? a : b;
}

// The sum of f(x[channel]), in four parts: they need not wait for each other, and round less.
template <class V, class F>
SPARSEJAX_INLINE V sum_channels(const float* x, int64_t channels, int64_t pitch, const F& f) {
  V part[4] = {};
  int64_t c = 0;
  for (; c + 4 <= channels; c += 4)
    for (int k = 0; k < 4; k++) part[k] += f(load<V>(x + (c + k) * pitch));
  for (; c < channels; c++) part[0] += f(load<V>(x + c * pitch));
  return (part[0] + part[1]) + (part[2] + part[3]);
}

// A vector of pixels.
template <bool centred, class V>
SPARSEJAX_INLINE void norm_pixels(const NormCall& call, int64_t pixel, const float* scale,
                                  const float* shift, float epsilon) {
  const float* x = call.x + pixel;
  const float share = 1.f / static_cast<float>(call.channels);
  V mean = {};
  if constexpr (centred)
    mean = sum_channels<V>(x, call.channels, call.pitch, [](V v) { return v; }) * share;
  const V square =
      sum_channels<V>(x, call.channels, call.pitch, [=](V v) { return (v - mean) * (v - mean); });
  const V factor = inverse_root(square * share + epsilon);
  for (int64_t c = 0; c < call.channels; c++) {
    const V v = (load<V>(x + c * call.pitch) - mean) * factor;
    store(call.out + pixel + c * call.pitch, v * scale[c] + shift[c]);
  }
}

template <class V>
SPARSEJAX_INLINE void softmax_pixels(const NormCall& call, int64_t pixel) {
  const float* x = call.x + pixel;
  float* out = call.out + pixel;
  V largest = load<V>(x), sum = {};
  for (int64_t c = 1; c < call.channels; c++)
    largest = larger(largest, load<V>(x + c * call.pitch));
  for (int64_t c = 0; c < call.channels; c++) {
    const V e = exp(load<V>(x + c * call.pitch) - largest);
    sum += e;
    store(out + c * call.pitch, e);
  }
  const V factor = 1.f / sum;
  for (int64_t c = 0; c < call.channels; c++)
    store(out + c * call.pitch, load<V>(out + c * call.pitch) * factor);
}

// f.run<V>(pixel) for vectors of pixels, of as many lanes as a pitch has place for.
template <class F>
SPARSEJAX_INLINE void for_pixels(const NormCall& call, const F& f) {
  if (call.pitch >= kLanes) {
    for (int64_t p = 0; p < call.pixels; p += kLanes) f.template run<Vec>(p);
    return;
  }
  if constexpr (kLanes > 8)
    if (call.pitch == 8) return f.template run<Vec8>(0);
  if constexpr (kLanes > 4) f.template run<Vec4>(0);
}

// Numbers in a row: whole vectors, and one that is filled up with `fill`.
struct Row {
  const float* x;
  int64_t count;
  float fill;
  template <class F>
  SPARSEJAX_INLINE void for_vectors(const F& f) const {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) f(i, load<Vec>(x + i), kLanes);
    if (i == count) return;
    float last[kLanes];
    for (int k = 0; k < kLanes; k++) last[k] = i + k < count ? x[i + k] : fill;
    f(i, load<Vec>(last), static_cast<int>(count - i));
  }
};

template <bool centred>
void norm_row(const NormCall& call, const float* scale, const float* shift, float epsilon) {
  const auto n = static_cast<float>(call.channels);
  Vec sum = {}, square = {};
  const Row row = {call.x, call.channels, 0.f};
  if (centred) row.for_vectors([&](int64_t, Vec v, int) { sum += v; });
  const float mean = centred ? sum_lanes(sum) / n : 0.f;
  const Row filled = {call.x, call.channels, mean};
  filled.for_vectors([&](int64_t, Vec v, int) { square += (v - mean) * (v - mean); });
  const float factor = 1.f / __builtin_sqrtf(sum_lanes(square) / n + epsilon);
  row.for_vectors([&](int64_t i, Vec v, int count) {
    v = (v - mean) * factor;
    if (count == kLanes)
      return store(call.out + i, v * load<Vec>(scale + i) + load<Vec>(shift + i));
    float part[kLanes];
    store(part, v);
    for (int k = 0; k < count; k++) call.out[i + k] = part[k] * scale[i + k] + shift[i + k];
  });
}

void softmax_row(const NormCall& call) {
  const Row row = {call.x, call.channels, -__builtin_inff()};
  Vec most = splat<Vec>(-__builtin_inff()), sum = {};
  row.for_vectors([&](int64_t, Vec v, int) { most = larger(most, v); });
  float largest = most[0];
  for (int k = 1; k < kLanes; k++) largest = most[k] > largest ? most[k] : largest;
  row.for_vectors([&](int64_t i, Vec v, int count) {
    Vec e = exp(v - largest);
    store_first(call.out + i, e, count);
    for (int k = count; k < kLanes; k++) e[k] = 0.f;
    sum += e;
  });
  const float factor = 1.f / sum_lanes(sum);
  for (int64_t i = 0; i < call.channels; i++) call.out[i] *= factor;
}

template <bool centred>
struct Norm {
  const NormCall& call;
  const float *scale, *shift;
  float epsilon;
  template <class V>
  SPARSEJAX_INLINE void run(int64_t pixel) const {
    norm_pixels<centred, V>(call, pixel, scale, shift, epsilon);
  }
};

struct Softmax {
  const NormCall& call;
  template <class V>
  SPARSEJAX_INLINE void run(int64_t pixel) const {
    softmax_pixels<V>(call, pixel);
  }
};

template <bool centred>
void norm_of(const NormCall& call, const float* scale, const float* shift, float epsilon) {
  if (call.pitch == 1) return norm_row<centred>(call, scale, shift, epsilon);
  for_pixels(call, Norm<centred>{call, scale, shift, epsilon});
}

void softmax(const NormCall& call) {
  if (call.pitch == 1) return softmax_row(call);
  for_pixels(call, Softmax{call});
}

}  // namespace

extern const NormKernels norm = {norm_of<true>, norm_of<false>, softmax};

}  // namespace sparsejax::SPARSEJAX_TARGET
