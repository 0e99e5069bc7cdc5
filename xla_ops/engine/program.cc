// Reads programs; see program.h.
#include "engine/program.h"

#include <cstring>

#include "engine/check_program.h"

namespace sparsejax {
namespace {

class Words {
 public:
  Words(const int64_t* words, int64_t count, Problem& problem)
      : next_(words), left_(count), problem_(problem) {}
  int64_t take(int64_t low, int64_t high, const char* what) {
    if (problem_.found() || !problem_.need(left_ > 0, "ends too early")) return low;
    left_--;
    const int64_t word = *next_++;
    const bool inside = word >= low && word <= high;
    return inside || problem_.fail(std::string(what) + " is " + std::to_string(word)) ? word : low;
  }
  std::vector<int64_t> take_list() {
    const int64_t count = take(0, left_ - 1, "a list's length");
    std::vector<int64_t> list(next_, next_ + count);
    next_ += count;
    left_ -= count;
    return list;
  }
  int64_t left() const { return left_; }

 private:
  const int64_t* next_;
  int64_t left_;
  Problem& problem_;
};

float take_float(Words& words) {
  const auto bits = static_cast<uint32_t>(words.take(0, UINT32_MAX, "the bits of a float"));
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

Step read_step(Words& words, int64_t num_values, int64_t num_floats) {
  Step step = {};
  step.op = static_cast<Op>(words.take(0, kNumOps - 1, "a step's kind"));
  step.output = words.take(kNone, num_values - 1, "a step's output");
  Window& w = step.window;
  for (int64_t* side :
       {&w.kernel_y, &w.kernel_x, &w.stride_y, &w.stride_x, &w.dilation_y, &w.dilation_x})
    *side = words.take(1, kMostSide, "a window's size, stride or dilation");
  step.pad_top = words.take(0, kMostSide, "padding");
  w.pad_left = words.take(0, kMostSide, "padding");
  step.activation.function = static_cast<Function>(words.take(0, kNumFunctions - 1, "a function"));
  step.activation.low = take_float(words);
  step.activation.high = take_float(words);
  step.residual = words.take(kNone, num_values - 1, "a residual");
  step.gate = words.take(kNone, num_values - 1, "a gate");
  step.groups = words.take(1, kMostSide, "a number of groups");
  step.layout.storage = static_cast<Storage>(words.take(0, kNumStorages - 1, "a storage"));
  step.layout.block = words.take(0, 8, "a block");
  step.layout.tile = words.take(0, 16, "a tile");
  step.layout.chunk_cols = words.take(0, kMostSide, "a chunk");
  step.layout.num_parts = words.take(0, 64, "a number of parts");
  step.channels_last = words.take(0, 1, "whether channels are last") == 1;
  step.pooling = static_cast<Pooling>(words.take(0, kNumPoolings - 1, "a pooling"));
  step.binary = static_cast<Binary>(words.take(0, kNumBinaries - 1, "a binary operation"));
  step.weights = words.take(kNone, num_floats, "the begin of weights");
  step.bias = words.take(kNone, num_floats, "the begin of a bias");
  step.argument = words.take(kNone, kMostSide, "an argument");
  step.rank = words.take(0, kMostSide, "a rank");
  step.inputs = words.take_list();
  step.channels = words.take_list();
  return step;
}

ImageSize read_size(Words& words, Problem& problem) {
  ImageSize size;
  for (int64_t* side : {&size.channels, &size.height, &size.width})
    *side = words.take(1, kMostSide, "a value's size");
  problem.need(size.channels <= kMostFloats / size.pixels(), "a value is too large");
  return size;
}

}  // namespace

std::string parse_program(const int64_t* words_begin, int64_t num_words, std::vector<float> floats,
                          Program& program) {
  Problem problem("program");
  Words words(words_begin, num_words, problem);
  problem.need(words.take(INT64_MIN, INT64_MAX, "") == kMagic,
               "does not begin with its mark: it is of another version");
  const auto num_floats = static_cast<int64_t>(floats.size());
  program.floats = std::move(floats);
  const int64_t num_values = words.take(0, num_words, "the number of values");
  for (int64_t i = 0; i < num_values && !problem.found(); i++)
    program.values.push_back(read_size(words, problem));
  const int64_t num_steps = words.take(0, num_words, "the number of steps");
  for (int64_t i = 0; i < num_steps && !problem.found(); i++) {
    const Step step = read_step(words, num_values, num_floats);
    if (problem.found() || !check_fields(step, problem)) break;
    program.num_operands += step.op == Op::kInput;
    program.num_results += step.op == Op::kOutput;
    program.steps.push_back(step);
  }
  problem.need(words.left() == 0, "goes on behind its last step");
  if (!problem.found()) check_program(program, problem);
  return problem.text();
}

}  // namespace sparsejax
