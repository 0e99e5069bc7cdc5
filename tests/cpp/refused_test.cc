// What parse_program refuses: one valid program with every kind of step, and all the ways to damage
// it that a check is there for.
#include <algorithm>
#include <functional>

#include "every_step.h"

namespace sparsejax::test {
namespace {

struct Damage {
  const char* message;  // a part of what is said
  std::function<void(Draft&)> apply;
};

// One number at a time: value or step, and what it becomes.
const std::vector<Damage>& damages() {
  static const std::vector<Damage> all = {
      {"a value is too large", [](Draft& d) { d.values[kX] = {1, 1 << 16, (1 << 15) + 1}; }},
      {"a value is too large", [](Draft& d) { d.values[kX] = {3, 1 << 15, 1 << 15}; }},
      {"a step's kind", [](Draft& d) { d.steps[kX].op = static_cast<Op>(kNumOps); }},
      {"a step's kind", [](Draft& d) { d.steps[kX].op = static_cast<Op>(-1); }},
      {"a step's output is 24", [](Draft& d) { d.steps[kX].output = 24; }},
      {"a step's output is -2", [](Draft& d) { d.steps[kX].output = -2; }},
      {"a function", [](Draft& d) { d.steps[kAffine].activation.function = Function(12); }},
      {"a function", [](Draft& d) { d.steps[kAffine].activation.function = Function(-1); }},
      {"a storage", [](Draft& d) { d.steps[kProduct].layout.storage = Storage(kNumStorages); }},
      {"a storage", [](Draft& d) { d.steps[kProduct].layout.storage = Storage(-1); }},
      {"no such block", [](Draft& d) { d.steps[kProduct].layout.block = 3; }},
      {"no such block", [](Draft& d) { d.steps[kProduct].layout = {Storage::kMasks, 8, 0, 0, 0}; }},
      {"no such block",
       [](Draft& d) { d.steps[kProduct].layout = {Storage::kBlocks, 1, 0, 0, 0}; }},
      {"a number of groups", [](Draft& d) { d.steps[kProduct].groups = 0; }},
      {"equally many", [](Draft& d) { d.steps[kProduct].groups = 3; }},
      {"equally many", [](Draft& d) { d.steps[kProduct].groups = 8; }},
      {"over groups",
       [](Draft& d) {
         d.steps[kProduct].groups = 2;
         d.steps[kProduct].layout.storage = Storage::kMasks;
       }},
      {"over groups",
       [](Draft& d) {
         d.steps[kProduct].groups = 2;
         d.steps[kProduct].layout = {Storage::kBlocks, 4, 0, 0, 0};
       }},
      {"over groups",
       [](Draft& d) {
         d.steps[kProduct].groups = 4;
         d.steps[kProduct].layout = {Storage::kBlocks, 0, 0, 0, 0};
       }},
      {"must keep sizes", [](Draft& d) { d.steps[kBinary].inputs[0] = kPool; }},
      {"a binary operation", [](Draft& d) { d.steps[kBinary].binary = Binary(kNumBinaries); }},
      {"a binary operation", [](Draft& d) { d.steps[kBinary].binary = Binary(-1); }},
      {"a pooling", [](Draft& d) { d.steps[kPool].pooling = Pooling(kNumPoolings); }},
      {"a pooling", [](Draft& d) { d.steps[kPool].pooling = Pooling(-1); }},
      {"few or many inputs", [](Draft& d) { d.steps[kConcat].inputs.clear(); }},
      {"what no earlier step", [](Draft& d) { d.steps[kMean].inputs = {13}; }},
      {"what no earlier step", [](Draft& d) { d.steps[kMean].inputs = {int64_t{1} << 40}; }},
      {"what no earlier step", [](Draft& d) { d.steps[kMean].inputs = {-1}; }},
      {"what no earlier step", [](Draft& d) { d.steps[kAffine].inputs = {kAffine}; }},
      {"what no earlier step", [](Draft& d) { d.steps[kProduct].residual = kProduct; }},
      {"what no earlier step", [](Draft& d) { d.steps[kProduct].residual = kAffine; }},
      {"what no earlier step", [](Draft& d) { d.steps[kProduct].gate = kMean; }},
      {"output is missing", [](Draft& d) { d.steps[kMean].output = kNone; }},
      {"output is missing", [](Draft& d) { d.steps[kFirstOutput].output = kMean; }},
      {"made twice", [](Draft& d) { d.steps[kMean].output = kG; }},
      {"never made", [](Draft& d) { d.values.push_back(kPixel); }},
      {"pools and", [](Draft& d) { d.values[kPool].channels = 3; }},
      {"a mean", [](Draft& d) { d.values[kMean].channels = 5; }},
      {"a flatten", [](Draft& d) { d.values[kFlatten].channels = 25; }},
      {"an affine", [](Draft& d) { d.steps[kAffine].inputs = {kPool}; }},
      {"sides do not fit", [](Draft& d) { d.steps[kBinary].inputs[1] = kPool; }},
      {"inputs differ", [](Draft& d) { d.steps[kConcat].inputs[1] = kPool; }},
      {"inputs differ", [](Draft& d) { d.values[kConcat].height = 7; }},
      {"inputs differ", [](Draft& d) { d.values[kConcat].width = 4; }},
      {"do not add up", [](Draft& d) { d.values[kConcat].channels = 9; }},
      {"do not add up", [](Draft& d) { d.values[kConcat].channels = 7; }},
      {"choice of channels does not", [](Draft& d) { d.values[kChannels].channels = 2; }},
      {"choice of channels does not", [](Draft& d) { d.values[kChannels].height = 7; }},
      {"choice of channels does not", [](Draft& d) { d.values[kChannels].width = 4; }},
      {"one that is not there", [](Draft& d) { d.steps[kChannels].channels[1] = 8; }},
      {"one that is not there", [](Draft& d) { d.steps[kChannels].channels[1] = -1; }},
      {"too many taps",
       [](Draft& d) { d.steps[kPool].window.kernel_y = d.steps[kPool].window.kernel_x = 1 << 12; }},
      {"numbers for all rows", [](Draft& d) { d.steps[kPick].channels.pop_back(); }},
      {"numbers for all rows", [](Draft& d) { d.values[kPick].height = 3; }},
      {"a pick reaches", [](Draft& d) { d.steps[kPick].channels[1] = 5; }},
      {"a pick reaches", [](Draft& d) { d.steps[kPick].channels[4] = 4; }},
      {"a pick reaches", [](Draft& d) { d.steps[kPick].channels[5] = 2; }},
      {"a pick reaches", [](Draft& d) { d.steps[kPick].channels[8] = -1; }},
      {"a pick reaches", [](Draft& d) { d.steps[kPick].channels[11] = INT64_MAX; }},
      {"a norm must", [](Draft& d) { d.steps[kLayerNorm].inputs = {kPool}; }},
      {"a norm must", [](Draft& d) { d.steps[kRmsNorm].inputs = {kPool}; }},
      {"a softmax must", [](Draft& d) { d.steps[kSoftmax].inputs = {kPool}; }},
      {"numbers for all heads", [](Draft& d) { d.steps[kAttention].channels.pop_back(); }},
      {"numbers for all heads", [](Draft& d) { d.steps[kAttention].channels.clear(); }},
      {"numbers for all heads", [](Draft& d) { d.steps[kAttention].channels[0] = 0; }},
      {"numbers for all heads", [](Draft& d) { d.steps[kAttention].channels[0] = INT64_MAX; }},
      {"a size that is none", [](Draft& d) { d.steps[kAttention].channels[1] = 0; }},
      {"a size that is none", [](Draft& d) { d.steps[kAttention].channels[2] = INT64_MAX; }},
      {"a size that is none", [](Draft& d) { d.steps[kAttention].channels[3] = -1; }},
      {"keep its rows", [](Draft& d) { d.steps[kAttention].inputs[1] = kX; }},
      {"keep its rows", [](Draft& d) { d.values[kAttention].height = 3; }},
      {"whole sequences", [](Draft& d) { d.steps[kAttention].channels[3] = 2; }},
      {"heads do not add up", [](Draft& d) { d.values[kAttention].channels = 5; }},
      {"a head reaches", [](Draft& d) { d.steps[kAttention].channels[6] = 5; }},
      {"a head reaches", [](Draft& d) { d.steps[kAttention].channels[7] = -1; }},
      {"a head reaches", [](Draft& d) { d.steps[kAttention].channels[10] = 4; }},
      {"a head reaches", [](Draft& d) { d.steps[kAttention].channels[1] = 7; }},
      {"no such mask", [](Draft& d) { d.steps[kAttention].channels[4] = 0; }},
      {"no such mask", [](Draft& d) { d.steps[kAttention].channels[4] = kNumMasks; }},
      {"no such mask", [](Draft& d) { d.steps[kAttention].channels[4] = -1; }},
      {"no such mask", [](Draft& d) { d.steps[kAttention].inputs.pop_back(); }},
      {"mask does not fit", [](Draft& d) { d.steps[kAttention].channels[4] = 2; }},
      {"causal attention",
       [](Draft& d) {
         d.steps[kAttention].inputs = {kSequences, kJoin, kJoin};
         d.steps[kAttention].channels[4] = static_cast<int64_t>(Mask::kCausal);
         d.steps[kJoin].inputs = {kSequences, kSequences};
         std::swap(d.steps[kAttention], d.steps[kJoin]);
       }},
      {"numbers for all heads", [](Draft& d) { d.steps[kCached].channels.pop_back(); }},
      {"a size that is none", [](Draft& d) { d.steps[kCached].channels[3] = 0; }},
      {"heads do not add up", [](Draft& d) { d.values[kCached].channels = 5; }},
      {"keep its rows", [](Draft& d) { d.steps[kCached].inputs[1] = kX; }},
      {"keep its rows", [](Draft& d) { d.values[kCached].height = 3; }},
      {"lie nowhere", [](Draft& d) { d.steps[kCached].channels[11] = -1; }},
      {"lie nowhere", [](Draft& d) { d.steps[kCached].channels[12] = INT64_MAX; }},
      {"few or many inputs",
       [](Draft& d) {
         d.steps[kCached].inputs.resize(5);
         d.steps[kCached].channels.resize(13);
       }},
      {"a head reaches", [](Draft& d) { d.steps[kCached].channels[11] = 3; }},
      {"a head reaches", [](Draft& d) { d.steps[kCached].channels[10] = 1; }},
      {"a head reaches", [](Draft& d) { d.steps[kCached].channels[3] = 4; }},
      {"new key or value", [](Draft& d) { d.steps[kCached].channels[14] = 5; }},
      {"new key or value", [](Draft& d) { d.steps[kCached].channels[15] = -1; }},
      {"new key or value", [](Draft& d) { d.steps[kCached].inputs[6] = kSequences; }},
      {"no such mask", [](Draft& d) { d.steps[kCached].channels[4] = 1; }},
      {"no such mask", [](Draft& d) { d.steps[kCached].channels[4] = 2; }},
      {"no such mask", [](Draft& d) { d.steps[kCached].inputs.pop_back(); }},
      {"mask does not fit", [](Draft& d) { d.steps[kCached].inputs[7] = kNumbers; }},
      {"need a number of rows", [](Draft& d) { d.steps[kKnown].channels = {0}; }},
      {"need a number of rows", [](Draft& d) { d.steps[kKnown].channels = {INT64_MAX}; }},
      {"need a number of rows", [](Draft& d) { d.steps[kKnown].channels = {4, 4}; }},
      {"lie outside", [](Draft& d) { d.steps[kKnown].weights = before_end(d, 23); }},
      {"lie outside", [](Draft& d) { d.steps[kKnown].bias = before_end(d, 5); }},
      {"join's inputs differ", [](Draft& d) { d.steps[kJoin].inputs[0] = kX; }},
      {"rows do not add up", [](Draft& d) { d.values[kJoin].height = 19; }},
      {"rewrap must keep", [](Draft& d) { d.values[kRewrap].width = 2; }},
      {"number of groups", [](Draft& d) { d.steps[kMoments].channels = {4}; }},
      {"number of groups", [](Draft& d) { d.steps[kMoments].channels = {0}; }},
      {"number of groups", [](Draft& d) { d.steps[kMoments].channels.clear(); }},
      {"two numbers a channel", [](Draft& d) { d.values[kMoments].channels = 6; }},
      {"lie outside", [](Draft& d) { d.steps[kMoments].weights = before_end(d, 11); }},
      {"lie outside", [](Draft& d) { d.steps[kMoments].bias = before_end(d, 11); }},
      {"lie outside", [](Draft& d) { d.steps[kLayerNorm].weights = before_end(d, 3); }},
      {"lie outside", [](Draft& d) { d.steps[kRmsNorm].bias = before_end(d, 3); }},
      {"lie outside",
       [](Draft& d) { d.steps[kLayerNorm].weights = d.steps[kLayerNorm].bias = kNone; }},
      {"pools and padding", [](Draft& d) { d.values[kPad].channels = 4; }},
      {"a residual must", [](Draft& d) { d.steps[kProduct].residual = kG; }},
      {"a gate must", [](Draft& d) { d.steps[kProduct].gate = kX; }},
      {"a gate must", [](Draft& d) { d.values[kG].channels = 3; }},
      {"a gate must", [](Draft& d) { d.values[kG].width = 2; }},
      {"a depthwise", [](Draft& d) { d.values[kDepthwise].channels = 5; }},
      {"lie outside", [](Draft& d) { d.steps[kProduct].weights = before_end(d, 143); }},
      {"lie outside", [](Draft& d) { d.steps[kProduct].bias = before_end(d, 3); }},
      {"lie outside", [](Draft& d) { d.steps[kDepthwise].weights = before_end(d, 35); }},
      {"lie outside", [](Draft& d) { d.steps[kDepthwise].bias = before_end(d, 3); }},
      {"lie outside", [](Draft& d) { d.steps[kAffine].weights = before_end(d, 3); }},
      {"lie outside", [](Draft& d) { d.steps[kAffine].bias = before_end(d, 3); }},
      {"lie outside", [](Draft& d) { d.floats.pop_back(); }},
      {"lie outside", [](Draft& d) { d.steps[kProduct].weights = d.steps[kProduct].bias = kNone; }},
      {"come together", [](Draft& d) { d.steps[kProduct].bias = kNone; }},
      {"come together", [](Draft& d) { d.steps[kAffine].bias = kNone; }},
      {"come together", [](Draft& d) { d.steps[kAffine].weights = kNone; }},
      {"reaches too far", [](Draft& d) { d.values[kPool] = {4, 1 << 24, 1}; }},
      {"reaches too far", [](Draft& d) { d.values[kPool] = {4, 1, 1 << 24}; }},
      {"reaches too far", [](Draft& d) { d.values[kProduct] = {1, 1 << 24, 1}; }},
      {"reaches too far", [](Draft& d) { d.values[kDepthwise] = {4, 1, 1 << 24}; }},
      {"too many columns",
       [](Draft& d) {
         d.values[kX] = {1 << 24, 1, 1};
         d.steps[kProduct].residual = d.steps[kProduct].gate = kNone;
         d.steps[kProduct].window.kernel_y = d.steps[kProduct].window.kernel_x = 1;
       }},
      {"numbered wrongly", [](Draft& d) { d.steps[kX].rank = 0; }},
      {"numbered wrongly", [](Draft& d) { d.steps[kX].argument = 1; }},
      {"numbered wrongly", [](Draft& d) { d.steps[kX].argument = 2; }},
      {"numbered wrongly", [](Draft& d) { d.steps[kX].argument = -1; }},
      {"numbered wrongly", [](Draft& d) { d.steps[kFirstOutput].argument = 1; }},
  };
  return all;
}

// What each kind may say beside its inputs: an activation, a window, padding, weights, a layout, a
// residual and a gate, a number and a rank, an order, a pooling, a binary operation, channels,
// picks.
struct May {
  size_t step;
  std::string fields;
};
const May kMay[] = {{kG, "no"},        {kProduct, "awplrb"}, {kDepthwise, "awpb"},
                    {kPool, "wpm"},    {kMean, ""},          {kAffine, "ab"},
                    {kBinary, "a2"},   {kConcat, ""},        {kChannels, "c"},
                    {kPad, "p"},       {kFlatten, "o"},      {kPick, "k"},
                    {kLayerNorm, "b"}, {kRmsNorm, "b"},      {kSoftmax, ""},
                    {kAttention, ""},  {kKnown, "b"},        {kJoin, ""},
                    {kRewrap, ""},     {kMoments, "b"},      {kFirstOutput, "no"}};

// Sets one field of a step to something that does no harm where it is allowed.
const std::vector<std::pair<char, std::function<void(Step&)>>> kSet = {
    {'a', [](Step& s) { s.activation.function = Function::kTanh; }},
    {'w', [](Step& s) { s.window.kernel_y = 1 + s.window.kernel_y % 2; }},
    {'w', [](Step& s) { s.window.kernel_x = 1 + s.window.kernel_x % 2; }},
    {'w', [](Step& s) { s.window.stride_y = 3; }},
    {'w', [](Step& s) { s.window.stride_x = 3; }},
    {'w', [](Step& s) { s.window.dilation_y = 2; }},
    {'w', [](Step& s) { s.window.dilation_x = 2; }},
    {'p', [](Step& s) { s.pad_top = 2; }},
    {'p', [](Step& s) { s.window.pad_left = 2; }},
    {'b', [](Step& s) { s.weights = s.bias = 0; }},
    {'l', [](Step& s) { s.layout.storage = Storage::kMasks; }},
    {'l', [](Step& s) { s.layout.block = 4; }},
    {'l', [](Step& s) { s.layout.tile = 1; }},
    {'l', [](Step& s) { s.layout.chunk_cols = 1; }},
    {'l', [](Step& s) { s.layout.num_parts = 1; }},
    {'l', [](Step& s) { s.groups = 2; }},
    {'r', [](Step& s) { s.residual = kX; }},
    {'r', [](Step& s) { s.gate = kG; }},
    {'n', [](Step& s) { s.argument = std::max<int64_t>(s.argument, 0); }},
    {'n', [](Step& s) { s.rank = 2; }},
    {'o', [](Step& s) { s.channels_last = true; }},
    {'m', [](Step& s) { s.pooling = Pooling::kAverage; }},
    {'m', [](Step& s) { s.pooling = Pooling::kAverageInside; }},
    {'2', [](Step& s) { s.binary = Binary::kSub; }},
    {'2', [](Step& s) { s.binary = Binary::kMax; }},
    {'c', [](Step& s) { s.channels = {0, 1, 2}; }},
    {'k', [](Step& s) { s.channels.assign(12, 0); }},
};

void test_fields() {
  for (const May& may : kMay) {
    const std::string name = "step " + std::to_string(may.step);
    for (size_t i = 0; i < kSet.size(); i++) {
      Draft d = valid();
      kSet[i].second(d.steps[may.step]);
      const bool allowed = may.fields.find(kSet[i].first) != std::string::npos;
      const std::string said = refusal(d.words(), d.floats);
      expect(said.empty() == allowed,
             name + ", field " + std::to_string(i) + " of " + kSet[i].first + ": " + said);
    }
    Draft more = valid(), fewer = valid();
    more.steps[may.step].inputs.push_back(kX);
    expect(!refusal(more.words(), more.floats).empty(), name + " with another input");
    if (fewer.steps[may.step].inputs.empty()) continue;
    fewer.steps[may.step].inputs.pop_back();
    expect(!refusal(fewer.words(), fewer.floats).empty(), name + " with an input less");
  }
}

void test_words() {
  const Draft d = valid();
  const std::vector<int64_t> words = d.words();
  const auto changed = [&](size_t at, int64_t word) {
    std::vector<int64_t> other = words;
    other[at] = word;
    return refusal(other, d.floats);
  };
  expect(refusal(words, d.floats).empty(), "the valid program: " + refusal(words, d.floats));
  expect(!changed(0, kMagic + 1).empty(), "another mark");
  expect(!changed(1, -1).empty(), "a negative number of values");
  expect(!changed(1, int64_t{1} << 62).empty(), "a huge number of values");
  const size_t steps = 2 + 3 * d.values.size();
  expect(!changed(steps, -1).empty(), "a negative number of steps");
  expect(!changed(steps, int64_t{1} << 62).empty(), "a huge number of steps");
  expect(!changed(steps + 12, int64_t{1} << 32).empty(), "a float of 33 bits");
  expect(!changed(steps + 12, -1).empty(), "a float of negative bits");
  expect(!changed(words.size() - 3, int64_t{1} << 62).empty(), "a list without end");
  expect(!changed(words.size() - 3, 3).empty(), "a list that ends too late");
  expect(!changed(words.size() - 3, -1).empty(), "a list of negative length");
  expect(!changed(words.size() - 1, 1).empty(), "a last list that ends too late");
  for (size_t n = 0; n < words.size(); n++)
    expect(!refusal({words.begin(), words.begin() + n}, d.floats).empty(), "a program cut short");
  expect(refusal({kMagic, 0, 0}, {}).empty(), "a program of nothing");
  Draft unread = d;
  unread.add(Op::kMean, kPixel, {kX});
  expect(refusal(unread.words(), d.floats).empty(), "a last step without channels");
  std::vector<int64_t> longer = words;
  longer.push_back(0);
  expect(!refusal(longer, d.floats).empty(), "a word too many");
}

void test_refused() {
  test_words();
  test_fields();
  for (size_t i = 0; i < damages().size(); i++) {
    Draft d = valid();
    damages()[i].apply(d);
    const std::string said = refusal(d.words(), d.floats);
    expect(said.find(damages()[i].message) != std::string::npos,
           std::to_string(i) + ": " + damages()[i].message + ", but: " + said);
  }
}

const Test refused(test_refused);

}  // namespace
}  // namespace sparsejax::test
