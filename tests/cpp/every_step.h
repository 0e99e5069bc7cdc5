// One valid program with every kind of step, to be damaged.
#pragma once
#include <stdexcept>

#include "programs.h"

namespace sparsejax::test {

inline constexpr ImageSize kImage = {4, 6, 5}, kPixel = {4, 1, 1};

// Steps of the valid program, in order; the values that they make have the same numbers.
// clang-format off
enum : size_t { kX, kG, kProduct, kDepthwise, kPool, kMean, kAffine, kBinary, kConcat, kChannels,
                kPad, kFlatten, kPick, kLayerNorm, kRmsNorm, kSoftmax,
                kSequences, kAttention, kKnown, kJoin, kRewrap, kMoments,
                kNumbers, kCached,
                kFirstOutput };
// clang-format on

inline void weigh(Draft& d, Step& step, int64_t weights, int64_t bias) {
  step.weights = static_cast<int64_t>(d.floats.size());
  step.bias = step.weights + weights;
  d.floats.resize(d.floats.size() + weights + bias, 0.5f);
}

inline void number(Step& step, int64_t argument, int64_t rank) {
  step.argument = argument;
  step.rank = rank;
}

inline int64_t before_end(const Draft& d, int64_t n) {
  return static_cast<int64_t>(d.floats.size()) - n;
}

inline Draft valid() {
  Draft d;
  number(d.add(Op::kInput, kImage, {}), 0, 3);
  number(d.add(Op::kInput, kPixel, {}), 1, 1);
  Step& product = d.add(Op::kProduct, kImage, {kX});
  product.window = {3, 3, 1, 1, 1, 1, 1, 0, 0};
  product.pad_top = 1;
  product.residual = kX;
  product.gate = kG;
  weigh(d, d.steps.back(), 4 * 36, 4);
  Step& depthwise = d.add(Op::kDepthwise, kImage, {kProduct});
  depthwise.window = {3, 3, 1, 1, 1, 1, 1, 0, 0};
  depthwise.pad_top = 1;
  weigh(d, d.steps.back(), 36, 4);
  d.add(Op::kPool, {4, 3, 2}, {kDepthwise}).window = {2, 2, 2, 2, 1, 1, 0, 0, 0};
  d.add(Op::kMean, kPixel, {kX});
  weigh(d, d.add(Op::kAffine, kImage, {kX}), 4, 4);
  d.add(Op::kBinary, kImage, {kAffine, kMean});
  d.add(Op::kConcat, {8, 6, 5}, {kBinary, kX});
  d.add(Op::kChannels, {3, 6, 5}, {kConcat}).channels = {7, 0, 3};
  d.add(Op::kPad, {3, 8, 7}, {kChannels}).pad_top = 1;
  d.add(Op::kFlatten, {24, 1, 1}, {kPool});
  d.add(Op::kPick, {2, 2, 1}, {kX}).channels = {0, 4, 0, 1, 3, 1, 0, 1, 0, 1, 0, 1};
  weigh(d, d.add(Op::kLayerNorm, kImage, {kX}), 4, 4);
  weigh(d, d.add(Op::kRmsNorm, kImage, {kLayerNorm}), 4, 4);
  d.add(Op::kSoftmax, kImage, {kRmsNorm});
  number(d.add(Op::kInput, {6, 9, 1}, {}), 2, 2);
  d.add(Op::kAttention, {6, 9, 1}, {kSequences, kSequences, kSequences, kSequences}).channels = {
      2, 2, 3, 3, static_cast<int64_t>(Mask::kAddQueries), 0, 4, 4, 0, 0, 3};
  Step& known = d.add(Op::kKnown, {6, 9, 1}, {});
  known.channels = {4};
  weigh(d, d.steps.back(), 24, 6);
  d.add(Op::kJoin, {6, 18, 1}, {kKnown, kAttention});
  d.add(Op::kRewrap, {6, 6, 3}, {kJoin});
  d.add(Op::kMoments, {12, 1, 1}, {kRewrap}).channels = {2};
  weigh(d, d.steps.back(), 12, 12);
  d.add(Op::kChannels, {1, 9, 1}, {kSequences}).channels = {5};
  d.add(
       Op::kCachedAttention, {4, 9, 1},
       {kSequences, kSequences, kSequences, kSequences, kNumbers, kSequences, kNumbers, kSequences})
      .channels = {2, 2, 2, 3, static_cast<int64_t>(Mask::kAddQueries), 0, 4, 0, 0, 0, 0, 2, 2,
                   0, 4, 1, 2};
  number(d.add(Op::kOutput, {}, {kPad}), 0, 3);
  number(d.add(Op::kOutput, {}, {kFlatten}), 1, 1);
  number(d.add(Op::kOutput, {}, {kPick}), 2, 3);
  return d;
}

// What is refused, or "" if nothing is.
inline std::string refusal(const std::vector<int64_t>& words, const std::vector<float>& floats) {
  try {
    parse(words, floats);
    return "";
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
}

}  // namespace sparsejax::test
