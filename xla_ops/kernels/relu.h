// The activations of the ops of training, on vectors.
#pragma once
#include "kernels/activation.h"
#include "simd/vectors.h"

namespace sparsejax::SPARSEJAX_TARGET {

// The bound above, which loops make once.
template <class V>
SPARSEJAX_INLINE V top_of(Activation activation) {
  return splat<V>(activation == Activation::kRelu6 ? 6.f : __builtin_inff());
}

template <class V>
SPARSEJAX_INLINE V activated(Activation activation, V x, V top) {
  return activation == Activation::kNone ? x : clamp(x, V{}, top);
}

}  // namespace sparsejax::SPARSEJAX_TARGET
