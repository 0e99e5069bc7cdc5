// Functions of vectors, from one exponential; errors are a few ulp.
#pragma once
#include "simd/vectors.h"

namespace sparsejax::SPARSEJAX_TARGET {

template <class V>
using IntsOf = decltype(V{} < V{});

template <class V>
SPARSEJAX_INLINE V power_of_two(IntsOf<V> n) {  // for -126 <= n <= 127; 0 and inf beside them
  return (V)((n + 127) << 23);
}

// c[0] + c[1] x + ...
template <class V, int n>
SPARSEJAX_INLINE V polynomial(V x, const float (&c)[n]) {
  V sum = splat<V>(c[n - 1]);
#pragma GCC unroll 16
  for (int i = n - 2; i >= 0; i--) sum = sum * x + c[i];
  return sum;
}

template <class V>
SPARSEJAX_INLINE V magnitude(V x) {
  return (V)((IntsOf<V>)x & 0x7fffffff);
}

template <class V>
SPARSEJAX_INLINE V with_sign_of(V x, V sign) {
  return (V)((IntsOf<V>)x | ((IntsOf<V>)sign & (int32_t)0x80000000));
}

// exp(x) = 2^n (1 + fraction), the fraction between sqrt(1/2) - 1 and sqrt(2) - 1.
template <class V>
struct Exponential {
  IntsOf<V> n;
  V fraction;
};

// For -88 <= x <= 89; NaN stays NaN in the fraction. The polynomial is summed by halves, which
// waits less: these functions are bound by how long each operation waits for the one before.
template <class V>
SPARSEJAX_INLINE Exponential<V> exponential(V x) {
  constexpr float kInvLog2 = 1.44269504f, kLog2High = 0.693359375f, kLog2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.f;  // 1.5 * 2^23: adding it leaves an integer in the low bits
  const V shifted = x * kInvLog2 + kRound;
  const V n = shifted - kRound;
  const V r = (x - n * kLog2High) - n * kLog2Low, square = r * r;
  const V low = r * 1.666651289e-01f + 5.000000101e-01f;
  const V high = square * 1.395171725e-03f + (r * 8.369598410e-03f + 4.166618728e-02f);
  return {(IntsOf<V>)shifted - (IntsOf<V>)splat<V>(kRound), square * (square * high + low) + r};
}

// 0 below 2^-126.5 and inf above 2^127.5, which the scale itself becomes there.
template <class V>
SPARSEJAX_INLINE V exp(V x) {
  const Exponential<V> e = exponential(clamp(x, splat<V>(-88.f), splat<V>(89.f)));
  return (e.fraction + 1.f) * power_of_two<V>(e.n);
}

// x[u] = exp(x[u]) + more, or exp(-x[u]) + more, for U vectors in step: alone, each would wait for
// its own chain of sums (1.4x on AVX2, 4 at a time). What NaN becomes, only who asks needs to know.
#define EACH _Pragma("GCC unroll 8") for (int u = 0; u < U; u++)
#ifdef __AVX512F__
// A power of 2^(1/32) out of two registers leaves a polynomial of two terms, whose first is a bit
// above 1 for the third. 0.65 of the time of the other one in a silu on Zen 5.
template <int U, bool negated = false, bool keeps_nan = true>
SPARSEJAX_INLINE void exp_plus(Vec* x, float more) {
  constexpr float kSign = negated ? -1.f : 1.f, kInvLog2 = kSign * 1.44269504f;
  constexpr float kLog2High = 0.693359375f, kLog2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.f / 32;  // 1.5 * 2^18, which leaves 32nds in the low bits
  const Vec low = {1.f,         1.02189720f, 1.04427373f, 1.06714046f, 1.09050775f, 1.11438680f,
                   1.13878858f, 1.16372490f, 1.18920708f, 1.21524739f, 1.24185777f, 1.26905096f,
                   1.29683959f, 1.32523668f, 1.35425556f, 1.38390994f};
  const Vec high = {1.41421354f, 1.44518077f, 1.47682619f, 1.50916445f, 1.54221082f, 1.57598090f,
                    1.61049032f, 1.64575553f, 1.68179286f, 1.71861935f, 1.75625217f, 1.79470909f,
                    1.83400810f, 1.87416768f, 1.91520655f, 1.95714414f};
  Vec shifted[U], n[U], r[U], power[U];
  if constexpr (keeps_nan)
    EACH x[u] = clamp(x[u], splat<Vec>(-128.f), splat<Vec>(128.f));
  else
    EACH x[u] = within(x[u], splat<Vec>(128.f));
  EACH shifted[u] = x[u] * kInvLog2 + kRound;
  EACH n[u] = shifted[u] - kRound;
  EACH r[u] = kSign * x[u] - n[u] * kLog2High;
  EACH r[u] = r[u] - n[u] * kLog2Low;
  EACH power[u] = lanes_at(low, high, (IntsOf<Vec>)shifted[u]);
  EACH x[u] = r[u] * 0.5f + 1.00001466f;
  EACH r[u] = r[u] * power[u];
  EACH x[u] = r[u] * x[u] + power[u];
  EACH x[u] = times_power_of_two(x[u], n[u]) + more;
}
#else
// As exp above, but that the exponent is built with the rounding.
template <int U, bool negated = false, bool keeps_nan = true>
SPARSEJAX_INLINE void exp_plus(Vec* x, float more) {
  constexpr float kInvLog2 = 1.44269504f, kLog2High = 0.693359375f, kLog2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.f + 127.f;
  Vec scale[U], r[U], square[U], low[U], high[U];
  EACH x[u] = clamp(negated ? -x[u] : x[u], splat<Vec>(-88.f), splat<Vec>(89.f));
  EACH scale[u] = x[u] * kInvLog2 + kRound;
  EACH high[u] = scale[u] - kRound;
  EACH r[u] = x[u] - high[u] * kLog2High;
  EACH r[u] = r[u] - high[u] * kLog2Low;
  EACH square[u] = r[u] * r[u];
  EACH high[u] = r[u] * 8.369598410e-03f + 4.166618728e-02f;
  EACH low[u] = r[u] * 1.666651289e-01f + 5.000000101e-01f;
  EACH high[u] = square[u] * 1.395171725e-03f + high[u];
  EACH high[u] = square[u] * high[u] + low[u];
  EACH r[u] = r[u] + 1.f;
  EACH high[u] = square[u] * high[u] + r[u];
  EACH scale[u] = (Vec)((IntsOf<Vec>)scale[u] << 23);
  EACH x[u] = high[u] * scale[u] + more;
}
#endif
#undef EACH

// exp(x) - 1 for x <= 0, exact to a few ulp at 0 too.
template <class V>
SPARSEJAX_INLINE V exp_minus_1(V x) {
  const Exponential<V> e = exponential(clamp(x, splat<V>(-80.f), V{}));
  const V scale = power_of_two<V>(e.n);
  return scale * e.fraction + (scale - 1.f);
}

template <class V>
SPARSEJAX_INLINE V tanh(V x) {
  const V a = magnitude(x), square = x * x;
  const V near = x * square *
                     polynomial(square, {-3.333326288e-01f, 1.333089971e-01f, -5.369296452e-02f,
                                         2.048330654e-02f, -5.528624609e-03f}) +
                 x;
  const V far = 1.f - 2.f / (exp(a + a) + 1.f);
  return with_sign_of(a < 0.625f ? near : far, x);
}

// Near 0 a series; else 1 - exp(log(erfc(|x|))), the logarithm as a polynomial.
template <class V>
SPARSEJAX_INLINE V erf(V x) {
  const V a = clamp(magnitude(x), V{}, splat<V>(4.f)), square = x * x;
  const V near = x * polynomial(square, {1.128379166e+00f, -3.761262582e-01f, 1.128358514e-01f,
                                         -2.685381178e-02f, 5.188327418e-03f, -8.010191399e-04f,
                                         7.853854285e-05f});
  const V far = 1.f - exp(polynomial(a, {1.880381698e-04f, -1.129578416e+00f, -6.332199081e-01f,
                                         -1.084185629e-01f, 2.520824862e-02f, -4.204559182e-03f,
                                         4.413358905e-04f, -2.168681297e-05f}));
  return a < 1.f ? near : with_sign_of(far, x);
}

// max(x, 0) + log(1 + e), e = exp(-|x|); the logarithm is 2 atanh(e / (2 + e)).
template <class V>
SPARSEJAX_INLINE V softplus(V x) {
  const V e = exp(-magnitude(x));
  const V z = e / (e + 2.f), square = z * z;
  const V tail = polynomial(square, {3.333333318e-01f, 2.000002650e-01f, 1.428419804e-01f,
                                     1.115075020e-01f, 8.573924627e-02f, 1.089619895e-01f});
  const V log = 2.f * (z * square * tail + z);
  return (x > 0.f ? x : V{}) + log;
}

template <class V>
SPARSEJAX_INLINE V hard_sigmoid(V x) {
  return clamp(x + 3.f, V{}, splat<V>(6.f)) * (1.f / 6.f);
}

// -2 sqrt(2 / pi) (x + 0.044715 x^3): (1 + tanh(u)) / 2 = sigmoid(2 u).
template <class V>
SPARSEJAX_INLINE V twice_gelu(V x) {
  return -1.59576912f * (x * x * x * 0.044715f + x);
}

}  // namespace sparsejax::SPARSEJAX_TARGET
