// Scalar functions that kernels apply to what they computed.
#pragma once
#include <cstdint>

namespace sparsejax {

// Codes are part of the program format: append, never renumber.
enum class Function : int64_t {
  kIdentity = 0,
  kClamp = 1,        // min(max(x, low), high); relu is [0, inf], relu6 [0, 6]
  kSigmoid = 2,      // 1 / (1 + exp(-x))
  kSilu = 3,         // x sigmoid(x)
  kHardSigmoid = 4,  // clamp(x + 3, 0, 6) / 6
  kHardSwish = 5,    // x hard_sigmoid(x)
  kGeluTanh = 6,     // x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
  kGeluErf = 7,      // x (1 + erf(x / sqrt(2))) / 2
  kTanh = 8,
  kLeakyRelu = 9,  // x > 0 ? x : low x
  kElu = 10,       // x > 0 ? x : low (exp(x) - 1)
  kSoftplus = 11,  // log(1 + exp(x))
};
constexpr int64_t kNumFunctions = 12;

// What the ops of training have: all of it is a bound or two.
enum class Activation : int64_t { kNone = 0, kRelu = 1, kRelu6 = 2 };

struct ActivationCall {
  Function function;
  float low, high;  // parameters of kClamp, kLeakyRelu, kElu
};

}  // namespace sparsejax
