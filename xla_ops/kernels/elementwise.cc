// Elementwise steps, sums and changes of layout; see elementwise.h. Compiled
// once for each instruction set.
#include "kernels/elementwise.h"

#include "kernels/activate.h"
#include "kernels/product.h"
#include "simd/transpose.h"

namespace sparsejax::SPARSEJAX_TARGET {
namespace {

// out = f(value(i)) by whole vectors, U at a time: while one waits for a product, the others go on.
template <int U, class F, class Value>
SPARSEJAX_INLINE void map(const F& f, const Value& value, int64_t n, float* out) {
  int64_t i = 0;
  for (; i + U * kLanes <= n; i += U * kLanes) {
    Vec made[U];
    for (int u = 0; u < U; u++) made[u] = f(value(i + u * kLanes));
    for (int u = 0; u < U; u++) store(out + i + u * kLanes, made[u]);
  }
  for (; i < n; i += kLanes) store(out + i, f(value(i)));
}

// A group: vectors that are made in step, as one alone would wait for itself.
constexpr int64_t kGroup = kWasm ? 2 : 4, kGroupFloats = kGroup * kLanes;

struct Groups {
  int64_t apart;        // floats from a group's vector to its next
  int64_t count, step;  // groups in a row, floats from one to the next
  int64_t rows, pitch;
};

using MadeInStep = void(const Groups&, const float* x, float* out);

// So many floats apart, or groups.apart where 0.
template <Function function, int64_t kApart>
void in_step_rows(const Groups& groups, const float* x, float* out) {
  const int64_t apart = kApart > 0 ? kApart : groups.apart;
  const int64_t step = kApart > 0 ? kGroup * kApart : groups.step;
  for (int64_t row = 0; row < groups.rows; row++, x += groups.pitch, out += groups.pitch)
    for (int64_t at = 0; at < groups.count * step; at += step)
      apply_in_step<function, kGroup>(x + at, apart, out + at);
}

struct Activate {
  const ActivationCall& activation;
  const float* x;
  int64_t n, rows, pitch;
  float* out;
  // What is left of a row behind whole groups is in step with that of others.
  void all_in_step(MadeInStep& near, MadeInStep& far) const {
    const int64_t beside = (n + kLanes - 1) / kGroupFloats * kGroupFloats;
    near({kLanes, beside / kGroupFloats, kGroupFloats, rows, pitch}, x, out);
    if (beside >= n) return;
    const int64_t left = (n - beside + kLanes - 1) / kLanes, together = rows / kGroup;
    far({pitch, left, kLanes, together, kGroup * pitch}, x + beside, out + beside);
    for (int64_t at = together * kGroup * pitch + beside; at < rows * pitch; at += pitch) {
      alignas(4 * kLanes) float held[kGroupFloats] = {};
      for (int64_t u = 0; u < left; u++) store(held + u * kLanes, load<Vec>(x + at + u * kLanes));
      near({kLanes, 1, kGroupFloats, 1, 0}, held, held);
      for (int64_t u = 0; u < left; u++) store(out + at + u * kLanes, load<Vec>(held + u * kLanes));
    }
  }
  template <Function function>
  void run() const {
    constexpr int64_t beside = kWasm ? 0 : kLanes;  // one copy: its modules are to be small
    if constexpr (in_step(function))
      return all_in_step(in_step_rows<function, beside>, in_step_rows<function, 0>);
    const Vec low = splat<Vec>(activation.low), high = splat<Vec>(activation.high);
    for (int64_t at = 0; at < rows * pitch; at += pitch)
      map<2>([=](Vec v) { return apply<function, Vec>(v, low, high); },
             [=](int64_t i) { return load<Vec>(x + at + i); }, n, out + at);
  }
};

void activate_rows(const ActivationCall& activation, const float* x, int64_t n, int64_t rows,
                   int64_t pitch, float* out) {
  dispatch(activation.function, Activate{activation, x, n, rows, pitch, out});
}

void activate(const ActivationCall& activation, const float* x, int64_t n, float* out) {
  activate_rows(activation, x, n, 1, n, out);
}

// out = the activation of value(i). What is not cut off takes a second pass: the functions would be
// built anew for each kind of value otherwise, and the values themselves are cheap.
template <int U = 4, class Value>
SPARSEJAX_INLINE void activated(const ActivationCall& activation, const Value& value, int64_t n,
                                float* out) {
  const bool cut = activation.function == Function::kClamp;
  const Vec low = splat<Vec>(cut ? activation.low : -__builtin_inff());
  const Vec high = splat<Vec>(cut ? activation.high : __builtin_inff());
  map<U>([=](Vec v) { return clamp_numbers(v, low, high); }, value, n, out);
  if (!cut && activation.function != Function::kIdentity) activate(activation, out, n, out);
}

void affine(const ActivationCall& activation, const float* x, float scale, float shift, int64_t n,
            float* out) {
  const Vec a = splat<Vec>(scale), b = splat<Vec>(shift);
  activated(activation, [=](int64_t i) { return a * load<Vec>(x + i) + b; }, n, out);
}

// NaN if one of them is; of two zeros the positive one.
SPARSEJAX_INLINE Vec maximum(Vec a, Vec b) {
  const Vec larger = ((a > b) | (a != a)) ? a : b;
  return a == b ? (Vec)((IntsOf<Vec>)a & (IntsOf<Vec>)b) : larger;
}

// Without what is behind the point, of numbers below 2^24: larger ones stay, as they have nothing
// there.
SPARSEJAX_INLINE Vec whole(Vec x) {
  const Vec least = splat<Vec>(-0x1p24f), most = splat<Vec>(0x1p24f);
  const auto inside = (x > least) & (x < most);
  const Vec cut =
      __builtin_convertvector(__builtin_convertvector(inside ? x : Vec{}, IntsOf<Vec>), Vec);
  return inside ? cut : x;
}

template <class Right>
void combine(Binary op, const ActivationCall& activation, const float* a, const Right& right,
             int64_t n, float* out) {
  const auto all = [&](const auto& f) {
    activated(activation, [&](int64_t i) { return f(load<Vec>(a + i), right(i)); }, n, out);
  };
  switch (op) {
    case Binary::kAdd:
      return all([](Vec x, Vec y) { return x + y; });
    case Binary::kSub:
      return all([](Vec x, Vec y) { return x - y; });
    case Binary::kMul:
      return all([](Vec x, Vec y) { return x * y; });
    case Binary::kMax:
      return all([](Vec x, Vec y) { return maximum(x, y); });
    default:
      return;
  }
}

// What stands between layers alone is one loop: 3 KB less than a loop each. `step` 0: b is a
// vector.
void rare(Binary op, const ActivationCall& activation, const float* a, const float* b, int64_t step,
          int64_t n, float* out) {
  const auto value = [=](int64_t i) {
    const Vec x = load<Vec>(a + i), y = load<Vec>(b + i * step);
    switch (op) {
      case Binary::kDiv:
        return x / y;
      case Binary::kLessEqual:
        return x <= y ? splat<Vec>(1) : Vec{};
      case Binary::kKeep:
        return y != Vec{} ? x : Vec{};
      case Binary::kMin:
        return -maximum(-x, -y);
      case Binary::kSlope:
        return x > 0.f ? x : x * y;
      default:
        return whole(x / y);
    }
  };
  activated<1>(activation, value, n, out);
}

void binary(Binary op, const ActivationCall& activation, const float* a, const float* b, int64_t n,
            float* out) {
  if (op > Binary::kMax) return rare(op, activation, a, b, 1, n, out);
  combine(op, activation, a, [=](int64_t i) { return load<Vec>(b + i); }, n, out);
}

void binary_number(Binary op, const ActivationCall& activation, const float* a, float b, int64_t n,
                   float* out) {
  const Vec right = splat<Vec>(b);
  if (op > Binary::kMax) {
    float numbers[kLanes];
    store(numbers, right);
    return rare(op, activation, a, numbers, 0, n, out);
  }
  combine(op, activation, a, [=](int64_t) { return right; }, n, out);
}

// The sum of f(x); exactly n floats are read.
template <class F>
SPARSEJAX_INLINE float sum_of(const float* x, int64_t n, const F& f) {
  Vec part[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
    for (int k = 0; k < 4; k++) part[k] += f(load<Vec>(x + i + k * kLanes));
  for (; i + kLanes <= n; i += kLanes) part[0] += f(load<Vec>(x + i));
  float total = sum_lanes((part[0] + part[1]) + (part[2] + part[3]));
  for (; i < n; i++) total += f(x[i]);
  return total;
}

float sum(const float* x, int64_t n) {
  return sum_of(x, n, [](auto v) { return v; });
}

float sum_of_squares(const float* x, int64_t n, float centre) {
  return sum_of(x, n, [=](auto v) { return (v - centre) * (v - centre); });
}

// Four pixels of three channels.
SPARSEJAX_INLINE void four_colours(const float* pixels, float* planes, int64_t pitch) {
  const Vec4 a = load<Vec4>(pixels), b = load<Vec4>(pixels + 4), c = load<Vec4>(pixels + 8);
  const Vec4 red = __builtin_shufflevector(a, b, 0, 3, 6, 6);
  const Vec4 green = __builtin_shufflevector(a, b, 1, 4, 7, 7);
  const Vec4 blue = __builtin_shufflevector(a, b, 2, 5, 5, 5);
  store(planes, __builtin_shufflevector(red, c, 0, 1, 2, 5));
  store(planes + pitch, __builtin_shufflevector(green, c, 0, 1, 2, 6));
  store(planes + 2 * pitch, __builtin_shufflevector(blue, c, 0, 1, 4, 7));
}

void to_planes(const float* pixels, int64_t count, int64_t channels, float* planes, int64_t pitch) {
  int64_t p = 0;
  if (channels == 3)  // images; 4x faster than float by float
    for (; p + 4 <= count; p += 4) four_colours(pixels + p * 3, planes + p, pitch);
  transpose(pixels + p * channels, channels, count - p, channels, planes + p, pitch);
}

// Eight columns at a time: more rows of many floats would fall on the same cache set.
void turn(const float* from, int64_t from_pitch, int64_t rows, int64_t cols, float* to,
          int64_t to_pitch) {
  for (int64_t c = 0; c < cols; c += 8)
    transpose(from + c, from_pitch, rows, cols - c < 8 ? cols - c : 8, to + c * to_pitch, to_pitch);
}

void to_pixels(const float* planes, int64_t pitch, int64_t count, int64_t channels, float* pixels) {
  turn(planes, pitch, channels, count, pixels, channels);
}

}  // namespace

extern const ElementwiseKernels elementwise = {
    activate, activate_rows,  affine,    binary,    binary_number,
    sum,      sum_of_squares, to_planes, to_pixels, turn};

}  // namespace sparsejax::SPARSEJAX_TARGET
