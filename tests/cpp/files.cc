// See files.h.
#include "files.h"

#include <algorithm>

#include "files/codes.h"
#include "threads/float_mode.h"

namespace sparsejax::test {
namespace {

using Bytes = std::vector<uint8_t>;

template <int64_t n>
std::string named(const Code (&codes)[n], int64_t code) {
  return "\"" + in_file(codes[code].name) + "\"";
}

std::string listed(const std::vector<int64_t>& numbers) {
  std::string text = "[";
  for (size_t i = 0; i < numbers.size(); i++) text += (i ? "," : "") + std::to_string(numbers[i]);
  return text + "]";
}

Bytes bytes_of(const std::vector<float>& floats) {
  Bytes bytes(4 * floats.size());
  if (!bytes.empty()) std::memcpy(bytes.data(), floats.data(), bytes.size());
  return bytes;
}

struct Encoded {
  Form form = Form::kAll;
  int64_t block = 1;
  std::vector<float> values;
  Bytes where;
  bool wide = false;
};

class Encoder {
 public:
  Encoder(const float* weights, int64_t rows, int64_t cols)
      : weights_(weights), rows_(rows), cols_(cols) {}

  Encoded encode(Choices& c) {
    Encoded made;
    made.form = static_cast<Form>(c.below(3));
    made.block = c.of({1, 2, 4, 8});
    made.wide = made.form == Form::kGaps && c.percent(30);
    const int64_t cells = (rows_ + made.block - 1) / made.block * cols_;
    if (made.form == Form::kMask) made.where.resize((cells + 7) / 8);
    int64_t gap = 0;
    for (int64_t cell = 0; cell < cells; cell++) {
      const std::vector<float> values = cell_values(cell, made.block);
      const bool kept = made.form == Form::kAll ||
                        std::any_of(values.begin(), values.end(), [](float x) { return x != 0; });
      if (!kept && ++gap) continue;
      made.values.insert(made.values.end(), values.begin(), values.end());
      if (made.form == Form::kMask) made.where[cell / 8] |= 1 << cell % 8;
      if (made.form == Form::kGaps) add_gap(made, gap, true);
      gap = 0;
    }
    if (made.form == Form::kGaps) add_gap(made, gap, false);
    const auto bytes = static_cast<int64_t>(4 * made.values.size() + made.where.size());
    if (4 * rows_ * cols_ <= kMostExpansion * bytes) return made;
    return {Form::kAll, 1, std::vector<float>(weights_, weights_ + rows_ * cols_), {}, false};
  }

 private:
  std::vector<float> cell_values(int64_t cell, int64_t block) const {
    std::vector<float> values(block, 0.f);
    const int64_t row = cell / cols_ * block;
    for (int64_t r = row; r < std::min(row + block, rows_); r++)
      values[r - row] = weights_[r * cols_ + cell % cols_];
    return values;
  }
  // The last one may be left out where there is nothing to pass.
  static void add_gap(Encoded& made, int64_t gap, bool before_value) {
    const int64_t most = made.wide ? 65535 : 255;
    const auto add = [&](int64_t code) {
      made.where.push_back(code & 255);
      if (made.wide) made.where.push_back(code >> 8);
    };
    for (; gap >= most; gap -= most) add(most);
    if (gap > 0 || before_value) add(gap);
  }

  const float* weights_;
  const int64_t rows_, cols_;
};

class Writer {
 public:
  Writer(const Draft& draft, Choices& choices, bool rows)
      : draft_(draft), c_(choices), rows_(rows) {}

  Bytes file() {
    std::string values, steps;
    for (const ImageSize& s : draft_.values)
      values += (values.empty() ? "" : ",") + listed({s.channels, s.height, s.width});
    for (size_t i = 0; i < draft_.steps.size(); i++)
      steps += (i ? "," : "") + step(i, draft_.steps[i]);
    if (!bounds_.empty()) add_tensor("bounds", "F32", bytes_of(bounds_), 4);
    const char* items = rows_                           ? "rows"
                        : draft_.steps[0].channels_last ? "channels_last"
                                                        : "channels_first";
    const std::string graph = std::string(R"({"version":1,"reader":1,"items":")") + items +
                              R"(","inputs":[)" + ports_[0] + R"(],"outputs":[)" + ports_[1] +
                              R"(],"values":[)" + values + R"(],"steps":[)" + steps + "]}";
    return packed(graph);
  }

 private:
  Bytes packed(const std::string& graph) const {
    std::string escaped;
    for (char c : graph) escaped += (c == '"' ? "\\" : "") + std::string(1, c);
    const std::string header =
        R"({"__metadata__":{"sparsejax":")" + escaped + "\"}" + tensors_ + "}";
    Bytes file(8);
    for (int i = 0; i < 8; i++) file[i] = static_cast<uint8_t>(header.size() >> (8 * i));
    file.insert(file.end(), header.begin(), header.end());
    file.insert(file.end(), data_.begin(), data_.end());
    return file;
  }

  void add_tensor(const std::string& name, const char* dtype, const Bytes& bytes, int64_t size) {
    const std::string begin = std::to_string(data_.size());
    data_.insert(data_.end(), bytes.begin(), bytes.end());
    tensors_ += ",\"" + name + R"(":{"dtype":")" + dtype + R"(","shape":[)" +
                std::to_string(static_cast<int64_t>(bytes.size()) / size) +
                R"(],"data_offsets":[)" + begin + "," + std::to_string(data_.size()) + "]}";
  }

  std::string step(size_t i, const Step& s) {
    const Window& w = s.window;
    const ProductLayout& l = s.layout;
    std::string text = R"({"op":)" + named(kOps, static_cast<int64_t>(s.op));
    const auto add = [&](const char* name, const std::string& value) {
      text += std::string(",\"") + name + "\":" + value;
    };
    add("output", std::to_string(s.output));
    add("inputs", listed(s.inputs));
    if (!rows_) {
      add("window", listed({w.kernel_y, w.kernel_x}));
      add("strides", listed({w.stride_y, w.stride_x}));
      add("dilation", listed({w.dilation_y, w.dilation_x}));
      add("pads", listed({s.pad_top, w.pad_left}));
      add("gate", std::to_string(s.gate));
    }
    add("function", named(kFunctions, static_cast<int64_t>(s.activation.function)));
    if (s.activation.low != 0 || s.activation.high != 0) {
      add("bounds", std::to_string(bounds_.size() / 2));
      bounds_.insert(bounds_.end(), {s.activation.low, s.activation.high});
    }
    add("residual", std::to_string(s.residual));
    const bool by_columns = l.storage == Storage::kColumns;  // which files have not
    add("storage", named(kStorages, static_cast<int64_t>(by_columns ? Storage::kRows : l.storage)));
    add("layout", listed({l.block, l.tile, l.chunk_cols, l.num_parts}));
    add("pooling", named(kPoolings, static_cast<int64_t>(s.pooling)));
    add("binary", named(kBinaries, static_cast<int64_t>(s.binary)));
    if (s.groups != 1) add("groups", std::to_string(s.groups));
    add("argument", std::to_string(s.argument));
    add("channels", listed(s.channels));
    if (s.weights != kNone) add("weights", weights(i, s));
    if (s.op == Op::kInput) port(0, s, draft_.values[s.output]);
    if (s.op == Op::kOutput) port(1, s, draft_.values[s.inputs[0]]);
    return text + "}";
  }

  int64_t weights_per_channel(const Step& s) const {
    if (s.op == Op::kKnown) return known_floats(s, draft_.values[s.output]);
    const int64_t taps = s.window.kernel_y * s.window.kernel_x;
    return s.op == Op::kProduct ? taps * draft_.values[s.inputs[0]].channels / s.groups : taps;
  }

  std::string weights(size_t i, const Step& s) {
    const int64_t rows = draft_.values[s.output].channels, cols = weights_per_channel(s);
    const std::string own = std::to_string(i);
    const float* floats = draft_.floats.data();
    const Encoded kept = Encoder(floats + s.weights, rows, cols).encode(c_);
    add_tensor(own + ".values", "F32", bytes_of(kept.values), 4);
    if (kept.form != Form::kAll)
      add_tensor(own + ".where", kept.wide ? "U16" : "U8", kept.where, kept.wide ? 2 : 1);
    add_tensor(own + ".bias", "F32", bytes_of({floats + s.bias, floats + s.bias + rows}), 4);
    return R"({"form":)" + named(kForms, static_cast<int64_t>(kept.form)) + R"(,"block":)" +
           std::to_string(kept.block) + "}";
  }

  void port(int side, const Step& s, const ImageSize& size) {
    const std::string sizes = rows_             ? listed({size.height, size.channels})
                              : s.rank == 1     ? listed({size.channels})
                              : s.channels_last ? listed({size.height, size.width, size.channels})
                                                : listed({size.channels, size.height, size.width});
    std::string& ports = ports_[side];
    ports += (ports.empty() ? "" : ",") + std::string(R"({"name":"p","dtype":"float32","shape":)") +
             R"(["batch",)" + sizes.substr(1) + "}";
  }

  const Draft& draft_;
  Choices& c_;
  const bool rows_;
  std::string tensors_, ports_[2];
  Bytes data_;
  std::vector<float> bounds_;
};

// Buffers for a run of a model, with nothing behind them.
struct Buffers {
  std::vector<std::vector<float>> memory;
  std::vector<sparsejax_buffer> buffers;

  template <class Describe>
  Buffers(const sparsejax_model* model, int32_t count, int64_t batch, const Describe& describe) {
    for (int32_t i = 0; i < count; i++) {
      sparsejax_port port;
      describe(model, i, &port);
      memory.emplace_back(batch * port.item_floats, -1.f);
      memory.back().shrink_to_fit();
    }
    for (std::vector<float>& floats : memory) buffers.push_back({floats.data(), floats.size()});
  }
};

// What one item gives, behind a run of two.
std::vector<std::vector<float>> results_of(sparsejax_model* model,
                                           const std::vector<std::vector<float>>& operands) {
  std::vector<std::vector<float>> results;
  for (int64_t batch : {2, 1}) {
    Buffers in(model, sparsejax_num_inputs(model), batch, sparsejax_input);
    Buffers out(model, sparsejax_num_outputs(model), batch, sparsejax_output);
    for (size_t i = 0; i < in.memory.size() && i < operands.size(); i++)
      std::copy(operands[i].begin(), operands[i].end(), in.memory[i].end() - operands[i].size());
    if (sparsejax_run(model, batch, in.buffers.data(), out.buffers.data()) == SPARSEJAX_OK)
      results = std::move(out.memory);
  }
  return results;
}

}  // namespace

Draft saved_draft(Choices& choices) {
  const bool last = choices.below(2);
  Draft draft = random_draft(choices);
  for (Step& step : draft.steps) {
    if (step.op == Op::kFlatten) step.channels_last = last;
    if (step.op != Op::kInput && step.op != Op::kOutput) continue;
    const ImageSize size = draft.values[step.op == Op::kInput ? step.output : step.inputs[0]];
    step.rank = size.pixels() == 1 && choices.below(2) ? 1 : 3;
    step.channels_last = last;
  }
  return draft;
}

std::vector<uint8_t> file_of(const Draft& draft, Choices& choices, bool rows) {
  return Writer(draft, choices, rows).file();
}

bool is_small(const Model& model) {
  constexpr int64_t kMostWork = 1 << 18;
  return model.work <= kMostWork &&
         std::all_of(model.programs.begin(), model.programs.end(),
                     [](const SavedProgram& saved) { return is_small(saved.program); });
}

void damage(Choices& choices, std::vector<uint8_t>& file) {
  const auto size = static_cast<int64_t>(file.size());
  for (int64_t n = 1 + choices.below(3); n > 0; n--) {
    uint8_t& byte = file[(choices.below(65536) << 8 | choices.below(256)) % size];
    byte = static_cast<uint8_t>(
        choices.of({'0', '1', '7', '9', '-', '"', '[', ']', ',', byte ^ 1, choices.below(256)}));
  }
  if (choices.percent(5)) file.resize(choices.below(size));
}

std::string file_problem(const Kernels& kernels, const uint8_t* bytes, size_t size) {
  Choices choices(bytes, size);
  const bool damaged = choices.percent(50);
  const int32_t threads = static_cast<int32_t>(choices.of({1, 1, 3}));
  const Draft draft = saved_draft(choices);
  std::vector<uint8_t> file = file_of(draft, choices);
  if (damaged) {
    damage(choices, file);
    run_any_file(file.data(), file.size());
    return "";
  }
  sparsejax_model* model = nullptr;
  if (sparsejax_load(file.data(), file.size(), &model) != SPARSEJAX_OK)
    return std::string("a valid file is refused: ") + sparsejax_last_error();
  const Program program = parse(draft);
  const Run run(program);
  Executable executable(program, kernels, {112, 400});
  const FloatMode flushed(flushing_denormals());
  const auto expected = run.on(executable, ThreadPool{});
  sparsejax_set_threads(model, threads);
  const auto results = results_of(model, run.operands());
  sparsejax_free(model);
  return results == expected || run.difference(program, results).empty()
             ? ""
             : "a file computes something else";
}

void run_model(sparsejax_model* model) { results_of(model, {}); }

void run_any_file(const uint8_t* bytes, size_t size) {
  const std::vector<uint8_t> tight(bytes, bytes + size);
  Model read;
  if (!read_model(tight.data(), static_cast<int64_t>(size), kernels().isa, read).empty()) return;
  if (!is_small(read)) return;
  sparsejax_model* model = nullptr;
  if (sparsejax_load(tight.data(), size, &model) != SPARSEJAX_OK) return;
  run_model(model);
  sparsejax_free(model);
}

}  // namespace sparsejax::test
