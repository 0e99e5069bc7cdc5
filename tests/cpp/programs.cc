// Drafts of programs, written down, damaged and run; see programs.h.
#include "programs.h"

#include <stdexcept>

namespace sparsejax::test {

Step& Draft::add(Op op, ImageSize size, std::vector<int64_t> inputs) {
  Step step = {};
  step.op = op;
  step.output = kNone;
  step.window = {1, 1, 1, 1, 1, 1, 0, 0, 0};
  step.groups = 1;
  step.residual = step.gate = step.weights = step.bias = step.argument = kNone;
  step.inputs = std::move(inputs);
  if (op != Op::kOutput) {
    step.output = static_cast<int64_t>(values.size());
    values.push_back(size);
  }
  steps.push_back(step);
  return steps.back();
}

int64_t Draft::keep(int64_t count, int64_t length, std::mt19937& generator) {
  const auto begin = static_cast<int64_t>(floats.size());
  const double scale = 2 / std::sqrt(static_cast<double>(length));
  for (int64_t i = 0; i < count; i++) {
    const double at = static_cast<double>(generator()) / 4294967296.0;
    floats.push_back(generator() % 2 ? 0.f : static_cast<float>(scale * (2 * at - 1)));
  }
  return begin;
}

std::vector<int64_t> Draft::words() const {
  std::vector<int64_t> words = {kMagic, static_cast<int64_t>(values.size())};
  for (const ImageSize& size : values)
    words.insert(words.end(), {size.channels, size.height, size.width});
  words.push_back(static_cast<int64_t>(steps.size()));
  const auto bits = [](float x) {
    uint32_t word;
    std::memcpy(&word, &x, sizeof(word));
    return int64_t{word};
  };
  for (const Step& s : steps) {
    const Window& w = s.window;
    const ProductLayout& l = s.layout;
    words.insert(words.end(), {static_cast<int64_t>(s.op),
                               s.output,
                               w.kernel_y,
                               w.kernel_x,
                               w.stride_y,
                               w.stride_x,
                               w.dilation_y,
                               w.dilation_x,
                               s.pad_top,
                               w.pad_left,
                               static_cast<int64_t>(s.activation.function),
                               bits(s.activation.low),
                               bits(s.activation.high),
                               s.residual,
                               s.gate,
                               s.groups,
                               static_cast<int64_t>(l.storage),
                               l.block,
                               l.tile,
                               l.chunk_cols,
                               l.num_parts,
                               s.channels_last,
                               static_cast<int64_t>(s.pooling),
                               static_cast<int64_t>(s.binary),
                               s.weights,
                               s.bias,
                               s.argument,
                               s.rank});
    for (const std::vector<int64_t>* list : {&s.inputs, &s.channels}) {
      words.push_back(static_cast<int64_t>(list->size()));
      words.insert(words.end(), list->begin(), list->end());
    }
  }
  return words;
}

Program parse(const std::vector<int64_t>& words, const std::vector<float>& floats) {
  // Copies that end where they end: a sanitizer sees what is read behind them.
  const std::vector<int64_t> tight(words.begin(), words.end());
  Program program;
  const std::string wrong =
      parse_program(tight.data(), static_cast<int64_t>(tight.size()), floats, program);
  if (!wrong.empty()) throw std::invalid_argument(wrong);
  return program;
}

namespace {

void damage(Choices& c, std::vector<int64_t>& words) {
  for (int64_t n = 1 + c.below(2); n > 0; n--) {
    int64_t& word = words[c.below(static_cast<int64_t>(words.size()))];
    word = c.of({word + 1, word - 1, word < (1 << 20) ? 2 * word : 5, 0, -1, 1, 7, 300,
                 int64_t{1} << 23, int64_t{1} << 62, -(int64_t{1} << 62), c.below(65536)});
  }
  if (c.percent(10)) words.resize(c.below(static_cast<int64_t>(words.size())));
}

}  // namespace

bool is_small(const Program& program) {
  int64_t floats = 0;
  for (const ImageSize& size : program.values) {
    floats += size.floats() + size.channels * size.width * 16;
    if (floats > 4000000) return false;
  }
  for (const Step& step : program.steps) {
    if (step.output == kNone || step.inputs.empty()) continue;
    const ImageSize out = program.values[step.output], in = program.values[step.inputs[0]];
    const int64_t taps = step.window.kernel_y * step.window.kernel_x;
    const bool product = step.op == Op::kProduct;
    if (taps > 4000 || (product ? in.channels : 1) * taps * out.floats() > 8000000) return false;
    if (in.channels * taps * (out.width + 16) * 16 > 4000000) return false;
    if (step.pad_top + step.window.pad_left > 1 << 16) return false;
  }
  return true;
}

Run::Run(const Program& program) : operands_(program.num_operands), results_(program.num_results) {
  for (const Step& step : program.steps) {
    const bool input = step.op == Op::kInput;
    if (!input && step.op != Op::kOutput) continue;
    const int64_t value = input ? step.output : step.inputs[0];
    std::vector<float>& floats = (input ? operands_ : results_)[step.argument];
    floats.assign(program.values[value].floats(), -1.f);
    for (float& x : floats)
      if (input) x = static_cast<float>(2 * uniform() - 1);
  }
}

std::vector<std::vector<float>> Run::on(Executable& executable, const ThreadPool& pool) const {
  std::vector<std::vector<float>> results = results_;
  std::vector<const float*> from;
  std::vector<float*> to;
  for (const std::vector<float>& operand : operands_) from.push_back(operand.data());
  for (std::vector<float>& result : results) to.push_back(result.data());
  executable.run_image(pool, from.data(), to.data());
  return results;
}

std::string program_problem(const Kernels& kernels, const uint8_t* bytes, size_t size) {
  Choices choices(bytes, size);
  const bool damaged = choices.percent(30);
  const int64_t threads = choices.of({1, 1, 2, 5});
  const PlanOptions options = {choices.of({24, 6, 100000}), choices.of({60, 0, 300, 100000}),
                               choices.of({0, 500, 3000})};
  const Draft draft = random_draft(choices);
  std::vector<int64_t> words = draft.words();
  if (damaged) damage(choices, words);
  try {
    Program program = parse(words, draft.floats);
    if (!is_small(program)) return "";
    const Run run(program);
    Executable executable(program, kernels, options);
    Threads pool;
    const auto results = run.on(executable, threads > 1 ? pool.pool(threads) : ThreadPool{});
    return run.difference(program, results);
  } catch (const std::invalid_argument& error) {
    return damaged ? "" : std::string("a valid program is refused: ") + error.what();
  }
}

}  // namespace sparsejax::test
