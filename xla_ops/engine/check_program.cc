// See check_program.h.
#include "engine/check_program.h"

#include <algorithm>

namespace sparsejax {
namespace {

// Checks one step against the sizes of what it reads and writes.
class Checker {
 public:
  Checker(const Program& program, const Step& step, Problem& problem)
      : program_(program), step_(step), problem_(problem) {}

  bool check() const {
    switch (step_.op) {
      case Op::kInput:
      case Op::kOutput:
        return true;  // see check_border
      case Op::kProduct:
        return product();
      case Op::kDepthwise:
        return depthwise();
      case Op::kPool:
      case Op::kPad:
        return need(in().channels == out().channels, "pools and padding must keep channels") &&
               window();
      case Op::kMean:
        return need(out() == ImageSize{in().channels, 1, 1}, "a mean must give one pixel");
      case Op::kAffine:
        return affine();
      case Op::kBinary:
        return binary();
      case Op::kConcat:
        return concat();
      case Op::kChannels:
        return channels();
      case Op::kFlatten:
        return need(out() == ImageSize{in().floats(), 1, 1}, "a flatten must keep its floats");
      case Op::kPick:
        return pick();
      case Op::kLayerNorm:
      case Op::kRmsNorm:
        return need(in() == out(), "a norm must keep sizes") &&
               floats(step_.weights, in().channels) && floats(step_.bias, in().channels);
      case Op::kSoftmax:
        return need(in() == out(), "a softmax must keep sizes");
      case Op::kAttention:
        return attention();
      case Op::kCachedAttention:
        return cached_attention();
      case Op::kKnown:
        return known();
      case Op::kJoin:
        return join();
      case Op::kRewrap:
        return need(in().channels == out().channels && in().pixels() == out().pixels(),
                    "a rewrap must keep channels and pixels");
      case Op::kMoments:
        return moments();
    }
    return true;
  }

 private:
  bool need(bool condition, const char* what) const { return problem_.need(condition, what); }
  ImageSize value(int64_t id) const { return program_.values[id]; }
  ImageSize in() const { return value(step_.inputs[0]); }
  ImageSize out() const { return value(step_.output); }
  bool is_pixel(int64_t id, int64_t channels) const {
    return value(id) == ImageSize{channels, 1, 1};
  }
  bool floats(int64_t begin, int64_t count) const {
    return need(begin >= 0 && count <= static_cast<int64_t>(program_.floats.size()) - begin,
                "weights lie outside of the program");
  }
  // The window reaches any place: what lies outside of the image counts as outside.
  bool window() const {
    const Window& w = step_.window;
    return need(w.kernel_y < kMostSide / w.kernel_x, "a window has too many taps") &&
           need((out().height - 1) * w.stride_y + (w.kernel_y - 1) * w.dilation_y < kMostSide &&
                    (out().width - 1) * w.stride_x + (w.kernel_x - 1) * w.dilation_x < kMostSide,
                "a window reaches too far");
  }
  bool product() const {
    const int64_t cols = in().channels * step_.window.kernel_y * step_.window.kernel_x;
    return window() && need(cols < kMostSide, "a product has too many columns") &&
           need(in().channels % step_.groups == 0 && out().channels % step_.groups == 0,
                "groups must have equally many channels") &&
           need(blocks_in_groups(), "blocks of weights reach over groups of channels") &&
           floats(step_.weights, out().channels * (cols / step_.groups)) &&
           floats(step_.bias, out().channels) &&
           need(step_.residual == kNone || value(step_.residual) == out(),
                "a residual must have the output's size") &&
           need(step_.gate == kNone || is_pixel(step_.gate, in().channels),
                "a gate must be one pixel");
  }
  bool blocks_in_groups() const {
    const ProductLayout& l = step_.layout;
    const ProductWeights weights = {nullptr, out().channels, in().channels, step_.groups, {}};
    return weights.may_have(l.storage, l.block != 0                                    ? l.block
                                       : l.storage == Storage::kMasks                  ? 4
                                       : kSkipsZeros && l.storage == Storage::kColumns ? 1
                                                                                       : 2);
  }
  bool depthwise() const {
    return window() &&
           need(in().channels == out().channels, "a depthwise step must keep channels") &&
           floats(step_.weights, in().channels * step_.window.kernel_y * step_.window.kernel_x) &&
           floats(step_.bias, in().channels);
  }
  bool affine() const {
    return need(in() == out(), "an affine step must keep sizes") &&
           (step_.weights == kNone ||
            (floats(step_.weights, in().channels) && floats(step_.bias, in().channels)));
  }
  bool binary() const {
    const int64_t b = step_.inputs[1];
    return need(in() == out(), "a binary step must keep sizes") &&
           need(value(b) == out() || is_pixel(b, out().channels) ||
                    value(b) == ImageSize{1, out().height, out().width},
                "a binary step's sides do not fit");
  }
  bool concat() const {
    int64_t channels = 0;
    for (int64_t id : step_.inputs) {
      channels += value(id).channels;
      if (!need(value(id).height == out().height && value(id).width == out().width,
                "a concat's inputs differ in size"))
        return false;
    }
    return need(channels == out().channels, "a concat's channels do not add up");
  }
  bool join() const {
    int64_t height = 0;
    for (int64_t id : step_.inputs) {
      height += value(id).height;
      if (!need(value(id).channels == out().channels && value(id).width == out().width &&
                    height <= out().height,
                "a join's inputs differ in size"))
        return false;
    }
    return need(height == out().height, "a join's rows do not add up");
  }
  bool known() const {
    return need(step_.channels.size() == 1 && known_rows(step_) > 0 &&
                    known_rows(step_) <= kMostFloats / out().channels / out().width,
                "known numbers need a number of rows") &&
           floats(step_.weights, out().channels * known_floats(step_, out())) &&
           floats(step_.bias, out().channels);
  }
  bool moments() const {
    return need(step_.channels.size() == 1 && step_.channels[0] > 0 &&
                    in().channels % step_.channels[0] == 0,
                "moments need a number of groups") &&
           need(out() == ImageSize{2 * in().channels, 1, 1},
                "moments must give two numbers a channel") &&
           floats(step_.weights, out().channels) && floats(step_.bias, out().channels);
  }
  bool channels() const {
    bool there = true;
    for (int64_t c : step_.channels) there &= c >= 0 && c < in().channels;
    return need(in().height == out().height && in().width == out().width &&
                    static_cast<int64_t>(step_.channels.size()) == out().channels,
                "a choice of channels does not fit") &&
           need(there, "a choice of channels names one that is not there");
  }

  // Are there numbers for all heads, and `more` for each and `others` behind them?
  bool lists_heads(int64_t more, int64_t others) const {
    const auto listed = static_cast<int64_t>(step_.channels.size());
    if (!need(listed > Heads::kFirst && step_.channels[0] > 0 && step_.channels[0] < kMostSide &&
                  listed == Heads::list_size(step_.channels[0]) + more * step_.channels[0] + others,
              "attention needs numbers for all heads"))
      return false;
    const Heads heads(step_);
    for (int64_t side : {heads.size, heads.value_size, heads.length})
      if (!need(side > 0 && side < kMostSide, "attention has a size that is none")) return false;
    return need(out().channels == heads.count * heads.value_size,
                "attention's heads do not add up");
  }
  bool attention() const {
    if (!lists_heads(0, 0)) return false;
    const Heads heads(step_);
    const int64_t key_rows = value(step_.inputs[1]).height;
    for (size_t i = 0; i < step_.inputs.size(); i++) {
      const bool of_keys = i == 1 || i == 2 || (i == 3 && is_of_keys(heads.mask));
      const ImageSize& read = value(step_.inputs[i]);
      if (!need(read.height == (of_keys ? key_rows : out().height) && read.width == 1,
                "attention must keep its rows"))
        return false;
    }
    return need(out().width == 1 && out().height % heads.length == 0 &&
                    key_rows % (out().height / heads.length) == 0,
                "attention needs whole sequences") &&
           need(!is_causal(heads.mask) || key_rows == out().height,
                "causal attention needs as many keys as queries") &&
           need(reads(heads.queries, heads.count, heads.size, 0) &&
                    reads(heads.keys, heads.count, heads.size, 1) &&
                    reads(heads.values, heads.count, heads.value_size, 2),
                "a head reaches out of its input") &&
           mask(heads);
  }
  // Do heads of `size` channels lie inside of an input?
  bool reads(const int64_t* first, int64_t heads, int64_t size, int64_t input) const {
    const int64_t last = value(step_.inputs[input]).channels - size;
    return std::all_of(first, first + heads, [&](int64_t c) { return c >= 0 && c <= last; });
  }
  bool cached_attention() const {
    const bool has_new = CachedHeads::has_new(step_), has_mask = CachedHeads::has_mask(step_);
    if (!lists_heads(has_new ? 2 : 0, 2)) return false;
    const CachedHeads heads(step_);
    const int64_t count = heads.count, more = heads.length - 1;
    for (int64_t id : step_.inputs)
      if (!need(value(id).height == out().height && value(id).width == 1,
                "attention must keep its rows"))
        return false;
    for (int64_t step : {heads.key_step, heads.value_step})
      if (!need(step >= 0 && step < kMostSide, "keys or values lie nowhere")) return false;
    const auto is_number = [&](size_t input) { return value(step_.inputs[input]).channels == 1; };
    const int64_t masked = value(step_.inputs.back()).channels;
    return need(step_.inputs.size() == (has_new ? CachedHeads::kWithNew : 3u) + has_mask,
                "attention has too few or many inputs") &&
           need(reads(heads.queries, count, heads.size, 0) &&
                    reads(heads.keys, count, more * heads.key_step + heads.size, 1) &&
                    reads(heads.values, count, more * heads.value_step + heads.value_size, 2),
                "a head reaches out of its input") &&
           need(!has_new ||
                    (reads(heads.new_keys, count, heads.size, CachedHeads::kNewKey) &&
                     reads(heads.new_values, count, heads.value_size, CachedHeads::kNewValue) &&
                     is_number(CachedHeads::kNewKey + 1) && is_number(CachedHeads::kNewValue + 1)),
                "a new key or value does not fit") &&
           need(has_mask ? is_of_one_query(heads.mask) : heads.mask == Mask::kNone,
                "attention has no such mask") &&
           need(!has_mask || masked == heads.length || masked == count * heads.length,
                "attention's mask does not fit");
  }
  bool mask(const Heads& heads) const {
    const auto kind = static_cast<int64_t>(heads.mask);
    const bool has_input = heads.mask != Mask::kNone && heads.mask != Mask::kCausal;
    if (!need(kind >= 0 && kind < kNumMasks && has_input == (step_.inputs.size() == 4),
              "attention has no such mask"))
      return false;
    if (!has_input) return true;
    const int64_t channels = value(step_.inputs[3]).channels;
    const int64_t keys = heads.keys_of(out().height, value(step_.inputs[1]).height);
    return need(
        is_of_keys(heads.mask) ? channels == 1 : channels == keys || channels == heads.count * keys,
        "attention's mask does not fit");
  }

  bool pick() const {
    if (!need(static_cast<int64_t>(step_.channels.size()) == Picks::size(out()),
              "a pick needs numbers for all rows, columns and channels"))
      return false;
    const Picks picks(step_, out());
    // Each is below a limit of its own, so that no sum overflows.
    const auto reach = [](const int64_t* numbers, int64_t count) {
      int64_t most = 0;
      for (int64_t i = 0; i < count; i++)
        most = std::max(most, numbers[i] < 0 ? kMostSide : std::min(numbers[i], kMostSide));
      return most;
    };
    const ImageSize size = out();
    return need(
        reach(picks.rows, size.height) + reach(picks.below, size.channels) < in().height &&
            reach(picks.columns, size.width) + reach(picks.right, size.channels) < in().width &&
            reach(picks.channels, size.channels) + reach(picks.row_parts, size.height) +
                    reach(picks.column_parts, size.width) <
                in().channels,
        "a pick reaches out of its input");
  }

  const Program& program_;
  const Step& step_;
  Problem& problem_;
};

// Operands and results are numbered 0, 1, ... and each appears once.
bool check_border(const Program& program, Op op, int64_t count, Problem& problem) {
  std::vector<bool> seen(count, false);
  for (const Step& step : program.steps) {
    if (step.op != op) continue;
    const int64_t n = step.argument;
    if (!problem.need(n >= 0 && n < count && !seen[n] && step.rank >= 1 && step.rank <= 16,
                      "an operand or result is numbered wrongly"))
      return false;
    seen[n] = true;
  }
  return true;
}

bool check_order(const Program& program, Problem& problem) {
  std::vector<bool> made(program.values.size(), false);
  const auto is_made = [&](int64_t id) {
    return id >= 0 && id < static_cast<int64_t>(made.size()) && made[id];
  };
  for (const Step& step : program.steps) {
    bool reads_made = (step.residual == kNone || is_made(step.residual)) &&
                      (step.gate == kNone || is_made(step.gate));
    for (int64_t id : step.inputs) reads_made &= is_made(id);
    if (!problem.need(reads_made, "a step reads what no earlier step has made") ||
        !problem.need((step.output == kNone) == (step.op == Op::kOutput),
                      "a step's output is missing"))
      return false;
    if (step.output == kNone) continue;
    if (!problem.need(!made[step.output], "a value is made twice")) return false;
    made[step.output] = true;
  }
  const bool all = std::find(made.begin(), made.end(), false) == made.end();
  return problem.need(all, "a value is never made");
}

bool check_steps(const Program& program, Problem& problem) {
  for (const Step& step : program.steps)
    if (!Checker(program, step, problem).check()) return false;
  return true;
}

}  // namespace

bool check_program(const Program& program, Problem& problem) {
  return check_order(program, problem) && check_steps(program, problem) &&
         check_border(program, Op::kInput, program.num_operands, problem) &&
         check_border(program, Op::kOutput, program.num_results, problem);
}

}  // namespace sparsejax
