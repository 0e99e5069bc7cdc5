// The functions of activation.h on vectors: one alone, several in step, and which one is meant.
#pragma once
#include "kernels/activation.h"
#include "simd/functions.h"

namespace sparsejax::SPARSEJAX_TARGET {

// min(max(x, low), high), of which max(-0, 0) is 0.
template <class V>
SPARSEJAX_INLINE V clamp_numbers(V x, V low, V high) {
  return clamp(x, low, high) + (low == 0.f ? V{} : splat<V>(-0.f));
}

// Functions that need no company; see in_step for the others.
template <Function function, class V>
SPARSEJAX_INLINE V apply(V x, V low, V high) {
  if constexpr (function == Function::kClamp) return clamp_numbers(x, low, high);
  if constexpr (function == Function::kHardSigmoid) return hard_sigmoid(x);
  if constexpr (function == Function::kHardSwish) return x * hard_sigmoid(x);
  if constexpr (function == Function::kGeluErf) return 0.5f * x * (1.f + erf(x * 0.707106781f));
  if constexpr (function == Function::kTanh) return tanh(x);
  if constexpr (function == Function::kLeakyRelu) return x > 0.f ? x : low * x;
  if constexpr (function == Function::kElu)
    return x > 0.f ? x : low * with_sign_of(exp_minus_1(x), x);
  if constexpr (function == Function::kSoftplus) return softplus(x);
  return x;
}

// Is the function a quotient by exp(...) + 1? These go through apply_in_step, however many vectors
// are left: another order of sums would be other bits.
constexpr bool in_step(Function function) {
  return function == Function::kSigmoid || function == Function::kSilu ||
         function == Function::kGeluTanh;
}

// The function of U vectors that are so many floats apart, which may be made in their place.
template <Function function, int U>
SPARSEJAX_INLINE void apply_in_step(const float* x, int64_t apart, float* out) {
  const auto value = [=](int u) { return load<Vec>(x + u * apart); };
  Vec below[U];
#pragma GCC unroll 8
  for (int u = 0; u < U; u++)
    below[u] = function == Function::kGeluTanh ? twice_gelu(value(u)) : value(u);
  // What is above is NaN with x, unless it is 1.
  exp_plus<U, function != Function::kGeluTanh, function == Function::kSigmoid>(below, 1.f);
#pragma GCC unroll 8
  for (int u = 0; u < U; u++) {  // read once more: registers are scarce
    const Vec above = function == Function::kSigmoid ? splat<Vec>(1.f) : value(u);
    store(out + u * apart, above / below[u]);
  }
}

// Calls f.run<function>() for the function that is meant.
template <class F>
SPARSEJAX_INLINE void dispatch(Function function, const F& f) {
  switch (function) {
    case Function::kIdentity:
      return f.template run<Function::kIdentity>();
    case Function::kClamp:
      return f.template run<Function::kClamp>();
    case Function::kSigmoid:
      return f.template run<Function::kSigmoid>();
    case Function::kSilu:
      return f.template run<Function::kSilu>();
    case Function::kHardSigmoid:
      return f.template run<Function::kHardSigmoid>();
    case Function::kHardSwish:
      return f.template run<Function::kHardSwish>();
    case Function::kGeluTanh:
      return f.template run<Function::kGeluTanh>();
    case Function::kGeluErf:
      return f.template run<Function::kGeluErf>();
    case Function::kTanh:
      return f.template run<Function::kTanh>();
    case Function::kLeakyRelu:
      return f.template run<Function::kLeakyRelu>();
    case Function::kElu:
      return f.template run<Function::kElu>();
    case Function::kSoftplus:
      return f.template run<Function::kSoftplus>();
  }
}

}  // namespace sparsejax::SPARSEJAX_TARGET
