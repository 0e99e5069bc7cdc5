// A fused program: steps over images, as compile hands them over; parsed and checked.
//
// Each value is one image of channels x height x width. Steps are in an order that they can run in
// and every value has one step that makes it. Nothing here depends on how the program is run.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "engine/pack_product.h"
#include "kernels/activation.h"
#include "kernels/elementwise.h"
#include "kernels/window.h"

namespace sparsejax {

struct ImageSize {
  int64_t channels, height, width;
  int64_t pixels() const { return height * width; }
  int64_t floats() const { return channels * pixels(); }
  bool operator==(const ImageSize& other) const {
    return channels == other.channels && height == other.height && width == other.width;
  }
};

// Codes are part of the format: append, never renumber.
enum class Op : int64_t {
  kInput = 0,      // index = {operand, rank of one image}; mode: 1 = channels last
  kOutput = 1,     // index = {result, rank of one image}; mode: 1 = channels last
  kProduct = 2,    // activation(W columns(x * gate) + bias + residual)
  kDepthwise = 3,  // activation(weights * x + bias)
  kPool = 4,       // mode: 0 = max, 1 = average, padding counted, 2 = average, padding not counted
  kMean = 5,       // of all pixels
  kAffine = 6,     // activation(weights x + bias) a channel; without weights activation(x)
  kBinary = 7,     // activation(a op b), mode = op; b may be one pixel
  kConcat = 8,     // of channels
  kChannels = 9,   // channel i is channel index[i] of the input
  kPad = 10,       // with zeros, by the window's pads
  kFlatten = 11,   // into one pixel; mode: 1 = channels last
};
constexpr int64_t kNumOps = 12;

constexpr int64_t kNone = -1;

struct Step {
  Op op;
  int64_t output;
  Window window;
  int64_t pad_top;
  ActivationCall activation;
  int64_t residual, gate;  // values, or kNone
  ProductLayout layout;    // of a product's weights
  int64_t mode;
  int64_t weights, bias;  // where they begin among the program's floats, or kNone
  std::vector<int64_t> inputs, index;
};

struct Program {
  std::vector<ImageSize> values;
  std::vector<Step> steps;
  std::vector<float> floats;
  int64_t num_operands = 0, num_results = 0;
};

// Reads {kMagic, number of values, their sizes, number of steps, steps} as lower.py writes them.
// Returns what could not be run safely, as "program: ..."; empty if nothing is.
[[nodiscard]] std::string parse_program(const int64_t* words, int64_t num_words,
                                        const float* floats, int64_t num_floats, Program& program);

constexpr int64_t kMagic = 0x73706a7801;

}  // namespace sparsejax
