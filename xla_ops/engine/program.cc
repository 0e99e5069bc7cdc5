// Parses and checks programs; see program.h.
#include "engine/program.h"

#include <cstring>
#include <stdexcept>
#include <string>

namespace sparsejax {
namespace {

constexpr int64_t kMostFloats = int64_t{1} << 31;  // of a value; keeps every product below in range
constexpr int64_t kMostSide = int64_t{1} << 24;
constexpr int64_t kMostTaps = 1024;  // of a window, on one axis

[[noreturn]] void fail(const std::string& what) { throw std::invalid_argument("program: " + what); }

void need(bool condition, const char* what) {
  if (!condition) fail(what);
}

class Words {
 public:
  Words(const int64_t* words, int64_t count) : next_(words), left_(count) {}
  int64_t take() {
    need(left_ > 0, "ends too early");
    left_--;
    return *next_++;
  }
  int64_t take(int64_t low, int64_t high, const char* what) {
    const int64_t word = take();
    if (word < low || word > high) fail(std::string(what) + " is " + std::to_string(word));
    return word;
  }
  std::vector<int64_t> take_list() {
    const int64_t count = take(0, left_ - 1, "a list's length");
    std::vector<int64_t> list(next_, next_ + count);
    next_ += count;
    left_ -= count;
    return list;
  }
  bool empty() const { return left_ == 0; }

 private:
  const int64_t* next_;
  int64_t left_;
};

float take_float(Words& words) {
  const auto bits = static_cast<uint32_t>(words.take(0, UINT32_MAX, "the bits of a float"));
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// What the steps of one kind may say; all else must be left at its neutral value, so that nothing
// that a step says is ignored.
struct Fields {
  int64_t min_inputs, max_inputs;
  int64_t most_mode;
  bool activation, window, pads, weights, layout, residual_and_gate, index;
};
constexpr int64_t kAny = INT64_MAX;
// clang-format off
constexpr Fields kFields[kNumOps] = {
    //              inputs  mode  act    window pads   weight layout resid. index
    /* input     */ {0, 0,    1, false, false, false, false, false, false, true},
    /* output    */ {1, 1,    1, false, false, false, false, false, false, true},
    /* product   */ {1, 1,    0, true,  true,  true,  true,  true,  true,  false},
    /* depthwise */ {1, 1,    0, true,  true,  true,  true,  false, false, false},
    /* pool      */ {1, 1,    2, false, true,  true,  false, false, false, false},
    /* mean      */ {1, 1,    0, false, false, false, false, false, false, false},
    /* affine    */ {1, 1,    0, true,  false, false, true,  false, false, false},
    /* binary    */ {2, 2,    3, true,  false, false, false, false, false, false},
    /* concat    */ {1, kAny, 0, false, false, false, false, false, false, false},
    /* channels  */ {1, 1,    0, false, false, false, false, false, false, true},
    /* pad       */ {1, 1,    0, false, false, true,  false, false, false, false},
    /* flatten   */ {1, 1,    1, false, false, false, false, false, false, false},
};
// clang-format on

void check_fields(const Step& step) {
  const Fields& may = kFields[static_cast<int64_t>(step.op)];
  const auto num_inputs = static_cast<int64_t>(step.inputs.size());
  const Window& w = step.window;
  const ProductLayout& l = step.layout;
  need(num_inputs >= may.min_inputs && num_inputs <= may.max_inputs,
       "a step has too few or many inputs");
  need(step.mode <= may.most_mode, "a step has no such mode");
  need(may.activation || step.activation.function == Function::kIdentity,
       "a step of this kind has no activation");
  need(may.window || (w.kernel_y == 1 && w.kernel_x == 1 && w.stride_y == 1 && w.stride_x == 1 &&
                      w.dilation_y == 1 && w.dilation_x == 1),
       "a step of this kind has no window");
  need(may.pads || (step.pad_top == 0 && w.pad_left == 0), "a step of this kind has no padding");
  need(may.weights || step.weights == kNone, "a step of this kind has no weights");
  need((step.weights == kNone) == (step.bias == kNone), "weights and bias come together");
  need(may.layout || (l.storage == Storage::kRows && l.block == 0 && l.tile == 0 &&
                      l.chunk_cols == 0 && l.num_parts == 0),
       "a step of this kind has no layout");
  need(may.residual_and_gate || step.residual == kNone, "a step of this kind has no residual");
  need(may.residual_and_gate || step.gate == kNone, "a step of this kind has no gate");
  need(may.index || step.index.empty(), "a step of this kind has no index");
}

Step read_step(Words& words, int64_t num_values, int64_t num_floats) {
  Step step = {};
  step.op = static_cast<Op>(words.take(0, kNumOps - 1, "a step's kind"));
  step.output = words.take(kNone, num_values - 1, "a step's output");
  Window& w = step.window;
  for (int64_t* side :
       {&w.kernel_y, &w.kernel_x, &w.stride_y, &w.stride_x, &w.dilation_y, &w.dilation_x})
    *side = words.take(1, kMostTaps, "a window's size, stride or dilation");
  step.pad_top = words.take(0, kMostSide, "padding");
  w.pad_left = words.take(0, kMostSide, "padding");
  step.activation.function = static_cast<Function>(words.take(0, kNumFunctions - 1, "a function"));
  step.activation.low = take_float(words);
  step.activation.high = take_float(words);
  step.residual = words.take(kNone, num_values - 1, "a residual");
  step.gate = words.take(kNone, num_values - 1, "a gate");
  step.layout.storage = static_cast<Storage>(words.take(0, 2, "a storage"));
  step.layout.block = words.take(0, 8, "a block");
  step.layout.tile = words.take(0, 16, "a tile");
  step.layout.chunk_cols = words.take(0, kMostSide, "a chunk");
  step.layout.num_parts = words.take(0, 64, "a number of parts");
  step.mode = words.take(0, 3, "a mode");
  step.weights = words.take(kNone, num_floats, "the begin of weights");
  step.bias = words.take(kNone, num_floats, "the begin of a bias");
  step.inputs = words.take_list();
  step.index = words.take_list();
  return step;
}

// Checks one step against the sizes of what it reads and writes.
class Checker {
 public:
  Checker(const Program& program, const Step& step) : program_(program), step_(step) {}

  void check() const {
    switch (step_.op) {
      case Op::kInput:
      case Op::kOutput:
        return;  // see check_border
      case Op::kProduct:
        return product();
      case Op::kDepthwise:
        return depthwise();
      case Op::kPool:
      case Op::kPad:
        need(in().channels == out().channels, "pools and padding must keep channels");
        return window();
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
    }
  }

 private:
  ImageSize value(int64_t id) const { return program_.values[id]; }
  ImageSize in() const { return value(step_.inputs[0]); }
  ImageSize out() const { return value(step_.output); }
  bool is_pixel(int64_t id, int64_t channels) const {
    return value(id) == ImageSize{channels, 1, 1};
  }
  void floats(int64_t begin, int64_t count) const {
    need(begin >= 0 && count <= static_cast<int64_t>(program_.floats.size()) - begin,
         "weights lie outside of the program");
  }
  // The window reaches any place: what lies outside of the image counts as outside.
  void window() const {
    const Window& w = step_.window;
    need((out().height - 1) * w.stride_y + (w.kernel_y - 1) * w.dilation_y < kMostSide &&
             (out().width - 1) * w.stride_x + (w.kernel_x - 1) * w.dilation_x < kMostSide,
         "a window reaches too far");
  }
  void product() const {
    window();
    const int64_t cols = in().channels * step_.window.kernel_y * step_.window.kernel_x;
    need(cols < kMostSide, "a product has too many columns");
    floats(step_.weights, out().channels * cols);
    floats(step_.bias, out().channels);
    if (step_.residual != kNone)
      need(value(step_.residual) == out(), "a residual must have the output's size");
    if (step_.gate != kNone) need(is_pixel(step_.gate, in().channels), "a gate must be one pixel");
  }
  void depthwise() const {
    window();
    need(in().channels == out().channels, "a depthwise step must keep channels");
    floats(step_.weights, in().channels * step_.window.kernel_y * step_.window.kernel_x);
    floats(step_.bias, in().channels);
  }
  void affine() const {
    need(in() == out(), "an affine step must keep sizes");
    if (step_.weights == kNone) return;
    floats(step_.weights, in().channels);
    floats(step_.bias, in().channels);
  }
  void binary() const {
    need(in() == out(), "a binary step must keep sizes");
    const int64_t b = step_.inputs[1];
    need(value(b) == out() || is_pixel(b, out().channels), "a binary step's sides do not fit");
  }
  void concat() const {
    int64_t channels = 0;
    for (int64_t id : step_.inputs) {
      channels += value(id).channels;
      need(value(id).height == out().height && value(id).width == out().width,
           "a concat's inputs differ in size");
    }
    need(channels == out().channels, "a concat's channels do not add up");
  }
  void channels() const {
    need(in().height == out().height && in().width == out().width &&
             static_cast<int64_t>(step_.index.size()) == out().channels,
         "a choice of channels does not fit");
    for (int64_t c : step_.index)
      need(c >= 0 && c < in().channels, "a choice of channels names one that is not there");
  }

  const Program& program_;
  const Step& step_;
};

// Operands and results are numbered 0, 1, ... and each appears once.
void check_border(const Program& program, Op op, int64_t count) {
  std::vector<bool> seen(count, false);
  for (const Step& step : program.steps) {
    if (step.op != op) continue;
    need(step.index.size() == 2 && step.index[0] >= 0 && step.index[0] < count &&
             !seen[step.index[0]] && step.index[1] >= 1 && step.index[1] <= 16,
         "an operand or result is numbered wrongly");
    seen[step.index[0]] = true;
  }
}

void check_order(const Program& program) {
  std::vector<bool> made(program.values.size(), false);
  auto read = [&](int64_t id) {
    need(id >= 0 && id < static_cast<int64_t>(made.size()) && made[id],
         "a step reads what no earlier step has made");
  };
  for (const Step& step : program.steps) {
    for (int64_t id : step.inputs) read(id);
    if (step.residual != kNone) read(step.residual);
    if (step.gate != kNone) read(step.gate);
    need((step.output == kNone) == (step.op == Op::kOutput), "a step's output is missing");
    if (step.output == kNone) continue;
    need(!made[step.output], "a value is made twice");
    made[step.output] = true;
  }
  for (bool value : made) need(value, "a value is never made");
}

}  // namespace

Program parse_program(const int64_t* words_begin, int64_t num_words, const float* floats,
                      int64_t num_floats) {
  Words words(words_begin, num_words);
  need(words.take() == kMagic, "does not begin with its mark: it is of another version");
  Program program;
  program.floats.assign(floats, floats + num_floats);
  const int64_t num_values = words.take(0, num_words, "the number of values");
  for (int64_t i = 0; i < num_values; i++) {
    ImageSize size;
    for (int64_t* side : {&size.channels, &size.height, &size.width})
      *side = words.take(1, kMostSide, "a value's size");
    need(size.channels <= kMostFloats / size.pixels(), "a value is too large");
    program.values.push_back(size);
  }
  const int64_t num_steps = words.take(0, num_words, "the number of steps");
  for (int64_t i = 0; i < num_steps; i++) {
    program.steps.push_back(read_step(words, num_values, num_floats));
    check_fields(program.steps.back());
    program.num_operands += program.steps.back().op == Op::kInput;
    program.num_results += program.steps.back().op == Op::kOutput;
  }
  need(words.empty(), "goes on behind its last step");
  check_order(program);
  for (const Step& step : program.steps) {
    Checker(program, step).check();
  }
  check_border(program, Op::kInput, program.num_operands);
  check_border(program, Op::kOutput, program.num_results);
  return program;
}

}  // namespace sparsejax
