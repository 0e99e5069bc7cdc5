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
  kInput = 0,      // of an operand: argument, rank, channels_last
  kOutput = 1,     // of a result: argument, rank, channels_last
  kProduct = 2,    // activation(W columns(x * gate) + bias + residual)
  kDepthwise = 3,  // activation(weights * x + bias)
  kPool = 4,       // pooling
  kMean = 5,       // of all pixels
  kAffine = 6,     // activation(weights x + bias) a channel; without weights activation(x)
  kBinary = 7,     // activation(a binary b); b may be one pixel
  kConcat = 8,     // of channels
  kChannels = 9,   // channel i is channel channels[i] of the input
  kPad = 10,       // with zeros, by the window's pads
  kFlatten = 11,   // into one pixel, in the order of an image with channels_last or without
};
constexpr int64_t kNumOps = 12;

enum class Pooling : int64_t {
  kMax = 0,
  kAverage = 1,        // of the whole window, padding counted
  kAverageInside = 2,  // of what lies inside of the image
};

constexpr int64_t kNone = -1;

struct Step {
  Op op;
  int64_t output;
  Window window;
  int64_t pad_top;
  ActivationCall activation;
  int64_t residual, gate;  // values, or kNone
  ProductLayout layout;    // of a product's weights
  bool channels_last;
  Pooling pooling;
  Binary binary;
  int64_t weights, bias;   // where they begin among the program's floats, or kNone
  int64_t argument, rank;  // which operand or result, or kNone; dimensions of one image, or 0
  std::vector<int64_t> inputs, channels;
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

constexpr int64_t kMagic = 0x73706a7802;

}  // namespace sparsejax
