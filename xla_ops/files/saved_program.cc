// Reads programs of files; see saved_program.h.
#include "files/saved_program.h"

#include <algorithm>

#include "engine/check_program.h"
#include "files/fields.h"
#include "files/weights.h"

namespace sparsejax {
namespace {

class Reader {
 public:
  Reader(const Container& container, Json graph, std::string prefix, bool keeps_layouts,
         SavedProgram& saved, Problem& problem)
      : container_(container),
        graph_(graph),
        prefix_(std::move(prefix)),
        keeps_layouts_(keeps_layouts),
        saved_(saved),
        problem_(problem),
        fields_(problem) {}

  void read() {
    items_ = static_cast<Items>(fields_.code(graph_, "items", kItems, false));
    saved_.rows = items_ == kRows;
    read_ports(graph_, "inputs", saved_.inputs, problem_);
    read_ports(graph_, "outputs", saved_.outputs, problem_);
    saved_.words = {kMagic};
    read_values();
    read_steps();
    if (!problem_.found()) check_ports();
    if (!problem_.found()) decode();
  }

  std::vector<float> take_floats() { return std::move(floats_); }

 private:
  struct Weights {
    StoredWeights stored;
    int64_t rows, cols, begin;
    const Tensor* bias;
  };
  // Of a step, as far as others ask for it.
  struct Drafted {
    Op op;
    int64_t input, output, argument, taps, groups;
  };

  bool found() const { return problem_.found(); }

  void add(const std::vector<int64_t>& words) {
    saved_.words.insert(saved_.words.end(), words.begin(), words.end());
  }

  void read_values() {
    int64_t left = kMostItemFloats;
    graph_.member("values").for_items([&](Json value) {
      ImageSize size = {0, 0, 0};
      int64_t* const sides[] = {&size.channels, &size.height, &size.width};
      int count = 0;
      value.for_items([&](Json side) {
        if (count < 3) *sides[count] = side.number();
        count++;
      });
      for (int64_t* side : sides)
        if (count != 3 || *side < 1 || *side > kMostSide) problem_.fail("a value has no size");
      if (found()) return;
      if (size.pixels() > left || size.channels > left / size.pixels())
        problem_.fail("its values take more than 1 GiB");
      left -= found() ? 0 : size.floats();
      sizes_.push_back(size);
    });
    add({static_cast<int64_t>(sizes_.size())});
    for (const ImageSize& size : sizes_) add({size.channels, size.height, size.width});
  }

  void read_steps() {
    const Json steps = graph_.member("steps");
    add({steps.size()});
    steps.for_items([&](Json step) {
      if (!found()) read_step(step);
    });
  }

  void read_step(Json step) {
    Drafted drafted = {};
    const std::vector<int64_t> inputs = fields_.list(step, "inputs"),
                               window = fields_.list_of(2, step, "window", 1);
    drafted.op = static_cast<Op>(fields_.code(step, "op", kOps, false));
    drafted.input = inputs.empty() ? kNone : inputs[0];
    drafted.output = fields_.number(step, "output", kNone);
    drafted.argument = fields_.number(step, "argument", kNone);
    if (saved_.rows) check_row_step(drafted.op, step);
    const std::vector<int64_t> channels = fields_.list(step, "channels");
    drafted.taps = taps_of(drafted.op, window, channels);
    add({static_cast<int64_t>(drafted.op), drafted.output});
    add(window);
    add(fields_.list_of(2, step, "strides", 1));
    add(fields_.list_of(2, step, "dilation", 1));
    add(fields_.list_of(2, step, "pads", 0));
    add({fields_.code(step, "function", kFunctions)});
    add_bounds(fields_.number(step, "bounds", kNone));
    drafted.groups = fields_.number(step, "groups", 1);
    add({fields_.number(step, "residual", kNone), fields_.number(step, "gate", kNone),
         drafted.groups, fields_.code(step, "storage", kStorages)});
    const std::vector<int64_t> layout = fields_.list_of(4, step, "layout", 0);
    add(keeps_layouts_ ? layout : std::vector<int64_t>(4));
    add({has_order(drafted.op), fields_.code(step, "pooling", kPoolings),
         fields_.code(step, "binary", kBinaries)});
    add_weights(step.member("weights"), drafted);
    add({drafted.argument, rank_of(drafted)});
    add({static_cast<int64_t>(inputs.size())});
    add(inputs);
    add({static_cast<int64_t>(channels.size())});
    add(channels);
    steps_.push_back(drafted);
  }

  // What weights have of each channel; where that is 1 instead, parse_program refuses the step.
  static int64_t taps_of(Op op, const std::vector<int64_t>& window,
                         const std::vector<int64_t>& channels) {
    if (op == Op::kKnown)
      return channels.size() == 1 && channels[0] > 0 && channels[0] < kMostSide ? channels[0] : 1;
    const bool fits = window[0] >= 1 && window[1] >= 1 && window[0] < kMostSide / window[1];
    return fits ? window[0] * window[1] : 1;
  }

  // Rows do not meet: only so can there be any number of them.
  void check_row_step(Op op, Json step) {
    bool alone = is_pixelwise(op) || op == Op::kAttention;  // of the rows of one item
    for (const char* name : {"window", "strides", "dilation", "pads", "gate", "groups"})
      alone = alone && step.member(name).kind() == JsonKind::kMissing;
    problem_.need(alone, "a step works on several rows at once");
  }

  // Whether channels are last, of the steps that ask.
  bool has_order(Op op) const {
    const bool asks = op == Op::kInput || op == Op::kOutput || op == Op::kFlatten;
    return asks && items_ != kChannelsFirst;
  }

  const std::vector<Port>* ports_of(Op op) const {
    if (op == Op::kInput) return &saved_.inputs;
    return op == Op::kOutput ? &saved_.outputs : nullptr;
  }

  int64_t rank_of(const Drafted& step) {
    const std::vector<Port>* ports = ports_of(step.op);
    if (!ports) return 0;
    if (step.argument < 0 || step.argument >= static_cast<int64_t>(ports->size())) {
      problem_.fail("an operand or result is none of its inputs and outputs");
      return 0;
    }
    return static_cast<int64_t>((*ports)[step.argument].shape.size()) - (saved_.rows ? 0 : 1);
  }

  void add_bounds(int64_t place) {
    uint32_t low = 0, high = 0;
    if (place != kNone) {
      const Tensor* bounds = tensor("bounds");
      if (problem_.need(
              bounds && bounds->dtype == DType::kF32 && place >= 0 && place < bounds->elements / 2,
              "the bounds of a function are missing")) {
        low = bits_at(*bounds, 2 * place);
        high = bits_at(*bounds, 2 * place + 1);
      }
    }
    add({low, high});
  }

  static uint32_t bits_at(const Tensor& tensor, int64_t i) {
    const uint8_t* b = tensor.data + 4 * i;
    return b[0] | b[1] << 8 | b[2] << 16 | uint32_t{b[3]} << 24;
  }

  const Tensor* tensor(const std::string& name) const {
    const auto found = container_.tensors.find(prefix_ + name);
    return found == container_.tensors.end() ? nullptr : &found->second;
  }

  bool is_value(int64_t id) const { return id >= 0 && id < static_cast<int64_t>(sizes_.size()); }

  // Where weights and bias will begin among the floats, which are counted before they are made.
  void add_weights(Json stored, const Drafted& step) {
    if (found() || stored.kind() == JsonKind::kMissing) return add({kNone, kNone});
    const Op op = step.op;
    const bool weighs = op == Op::kProduct || op == Op::kDepthwise || op == Op::kAffine ||
                        op == Op::kLayerNorm || op == Op::kRmsNorm || op == Op::kKnown ||
                        op == Op::kMoments;
    if (!problem_.need(
            weighs && is_value(step.output) && (op == Op::kKnown || is_value(step.input)),
            "weights stand where none belong"))
      return;
    const std::string own = std::to_string(steps_.size());
    if (!problem_.need(step.groups >= 1, "a number of groups is below 1")) return;
    const int64_t channels = op == Op::kProduct ? sizes_[step.input].channels / step.groups
                             : op == Op::kKnown ? sizes_[step.output].width
                                                : 1;
    const Weights made = {
        {static_cast<Form>(fields_.code(stored, "form", kForms)),
         fields_.number(stored, "block", 1), tensor(own + ".values"), tensor(own + ".where")},
        sizes_[step.output].channels,
        channels * step.taps,
        num_floats_,
        tensor(own + ".bias")};
    problem_.need(made.bias && made.bias->dtype == DType::kF32 &&
                      made.bias->elements == made.rows && made.cols <= kMostSide,
                  "a bias does not have the shape of its layer");
    if (found() || !check_weights(made.stored, made.rows, made.cols, problem_)) return;
    add({made.begin, made.begin + made.rows * made.cols});
    num_floats_ += made.rows * (made.cols + 1);
    weights_.push_back(made);
  }

  void decode() {
    floats_.resize(num_floats_);
    for (const Weights& w : weights_) {
      float* const begin = floats_.data() + w.begin;
      if (!decode_weights(w.stored, w.rows, w.cols, begin, problem_)) return;
      for (int64_t i = 0; i < w.rows; i++) begin[w.rows * w.cols + i] = float_at(*w.bias, i);
    }
  }

  // Shapes say what the engine reads and writes.
  void check_ports() {
    const std::vector<int64_t>& first = saved_.inputs[0].shape;
    if (saved_.rows)
      for (size_t i = 1; i + 1 < first.size(); i++) {
        problem_.need(first[i] <= kMostSide / saved_.rows_per_item, "a shape is too large");
        if (found()) return;
        saved_.rows_per_item *= first[i];
      }
    for (const Drafted& step : steps_) {
      const std::vector<Port>* ports = ports_of(step.op);
      if (!ports) continue;
      const int64_t value = step.op == Op::kInput ? step.output : step.input;
      const std::vector<int64_t>& shape = (*ports)[step.argument].shape;
      problem_.need(is_value(value) && fits(shape, sizes_[value]),
                    "a shape is not that of its value");
    }
    if (saved_.rows)
      for (const ImageSize& size : sizes_)
        problem_.need(size.height == saved_.rows_per_item && size.width == 1,
                      "a value has another number of rows");
  }

  bool fits(const std::vector<int64_t>& s, const ImageSize& size) const {
    if (saved_.rows) {
      const std::vector<int64_t>& first = saved_.inputs[0].shape;
      return !s.empty() && s.size() == first.size() && s.back() == size.channels &&
             (s.size() == 1 || s[0] == kBatch) && std::equal(s.begin(), s.end() - 1, first.begin());
    }
    if (s.empty() || s[0] != kBatch) return false;
    if (s.size() == 2) return size == ImageSize{s[1], 1, 1};
    if (s.size() != 4) return false;
    return size ==
           (items_ == kChannelsLast ? ImageSize{s[3], s[1], s[2]} : ImageSize{s[1], s[2], s[3]});
  }

  const Container& container_;
  const Json graph_;
  const std::string prefix_;  // of its tensors
  const bool keeps_layouts_;
  SavedProgram& saved_;
  Problem& problem_;
  Fields fields_;
  Items items_ = kChannelsLast;
  std::vector<ImageSize> sizes_;
  std::vector<Drafted> steps_;
  std::vector<Weights> weights_;
  std::vector<float> floats_;
  int64_t num_floats_ = 0;
};

}  // namespace

void read_ports(Json graph, const char* side, std::vector<Port>& ports, Problem& problem) {
  graph.member(side).for_items([&](Json entry) {
    Port port = {entry.member("name").text(), {}};
    entry.member("shape").for_items([&](Json size) {
      const bool batch = size.text() == "batch" && port.shape.empty();
      port.shape.push_back(batch ? kBatch : size.number());
      problem.need(batch || size.number() >= 1, "a shape has sizes below 1");
    });
    const std::string dtype = entry.member("dtype").text();
    problem.need(dtype == "float32" || dtype == "int32" || dtype == "bool",
                 "an input or output is of a type this reader does not know");
    ports.push_back(port);
  });
  problem.need(!ports.empty(), "it has no inputs or no outputs");
}

int64_t item_floats(const Port& port) {
  int64_t floats = 1;
  for (int64_t size : port.shape) floats *= size == kBatch ? 1 : size;
  return floats;
}

std::string read_program(const Container& container, Json graph, const std::string& prefix,
                         bool keeps_layouts, SavedProgram& saved) {
  Problem problem("file");
  Reader reader(container, graph, prefix, keeps_layouts, saved, problem);
  reader.read();
  if (problem.found()) return problem.text();
  const std::string refused =
      parse_program(saved.words.data(), static_cast<int64_t>(saved.words.size()),
                    reader.take_floats(), saved.program);
  if (!refused.empty()) return refused;
  problem.need(saved.program.num_operands == static_cast<int64_t>(saved.inputs.size()) &&
                   saved.program.num_results == static_cast<int64_t>(saved.outputs.size()),
               "an input or output belongs to no step");
  return problem.text();
}

}  // namespace sparsejax
