// Scalar functions that kernels apply to what they computed.
#pragma once
#include <cstdint>

namespace sparsejax {

enum class Function : int64_t {
#define FUNCTION(name, code) k##name = code,
#include "kernels/codes.def"
};
constexpr int64_t kNumFunctions = 0
#define FUNCTION(name, code) +1
#include "kernels/codes.def"
    ;

enum class Activation : int64_t {
#define ACTIVATION(name, code) k##name = code,
#include "kernels/codes.def"
};

struct ActivationCall {
  Function function;
  float low,
      high;  // parameters of kClamp, kLeakyRelu, kElu; a norm's epsilon; attention's scale, fill
};

}  // namespace sparsejax
