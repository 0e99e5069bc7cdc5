// Whole programs: the same bits for any number of threads and at once, and no harm from damaged
// ones.
#include <atomic>
#include <stdexcept>

#include "../../xla_ops/executable.h"
#include "testing.h"

namespace sparsejax::test {
namespace {

// A random program in the words of program.h.
class Builder {
 public:
  Builder() {
    const ImageSize size = {any_of({1, 3, 8, 17}), any_of({1, 5, 16, 33}), any_of({1, 7, 24, 40})};
    value_ = add(Op::kInput, size, {}, {0, 3});
    for (int64_t i = 0; i < 7; i++) grow();
    const int64_t image = value_;
    add(Op::kMean, {size_of(image).channels, 1, 1}, {image});
    add(Op::kOutput, {}, {static_cast<int64_t>(sizes_.size()) - 1}, {0, 1});
    add(Op::kOutput, {}, {image}, {1, 3});
  }

  std::vector<int64_t> words() const {
    std::vector<int64_t> words = {kMagic, static_cast<int64_t>(sizes_.size())};
    for (const ImageSize& size : sizes_)
      words.insert(words.end(), {size.channels, size.height, size.width});
    words.push_back(num_steps_);
    words.insert(words.end(), steps_.begin(), steps_.end());
    return words;
  }
  const std::vector<float>& floats() const { return floats_; }

 private:
  ImageSize size_of(int64_t value) const { return sizes_[value]; }

  int64_t keep(int64_t n) {
    const int64_t begin = static_cast<int64_t>(floats_.size());
    for (int64_t i = 0; i < n; i++)
      floats_.push_back(uniform() < 0.6 ? 0.f : static_cast<float>(2 * uniform() - 1));
    return begin;
  }

  // As read_step in program.cc reads it.
  int64_t add(Op op, ImageSize size, std::vector<int64_t> inputs, std::vector<int64_t> index = {},
              std::vector<int64_t> window = {1, 1, 1, 1, 1, 1, 0, 0}, int64_t mode = 0,
              int64_t residual = kNone, int64_t gate = kNone, int64_t weights = kNone,
              int64_t bias = kNone) {
    const int64_t output = op == Op::kOutput ? kNone : static_cast<int64_t>(sizes_.size());
    if (op != Op::kOutput) sizes_.push_back(size);
    steps_.insert(steps_.end(), {static_cast<int64_t>(op), output});
    steps_.insert(steps_.end(), window.begin(), window.end());
    const int64_t storage = any_of({0, 1, 2}), one = 0x3f800000;
    steps_.insert(steps_.end(), {any_of({0, 1, 2, 3}), 0, one, residual, gate, storage,
                                 storage == 0   ? any_of({1, 2, 4})
                                 : storage == 1 ? any_of({2, 4, 8})
                                                : 4,
                                 0, 0, any_of({0, 1, 3}), mode, weights, bias});
    steps_.push_back(static_cast<int64_t>(inputs.size()));
    steps_.insert(steps_.end(), inputs.begin(), inputs.end());
    steps_.push_back(static_cast<int64_t>(index.size()));
    steps_.insert(steps_.end(), index.begin(), index.end());
    num_steps_++;
    return output;
  }

  void grow() {
    const ImageSize in = size_of(value_);
    const int64_t kernel = any_of({1, 1, 3, 5}), stride = any_of({1, 1, 2}), pad = kernel / 2;
    ImageSize out = {in.channels, (in.height - 1) / stride + 1, (in.width - 1) / stride + 1};
    const std::vector<int64_t> window = {kernel, kernel, stride, stride, 1, 1, pad, pad};
    const int64_t before = value_, taps = kernel * kernel;
    switch (random()() % 7) {
      case 0:
      case 1: {
        out.channels = any_of({1, 6, 33, 70});
        const int64_t residual = out == in ? before : kNone;
        const int64_t gate =
            uniform() < 0.3 ? add(Op::kMean, {in.channels, 1, 1}, {before}) : kNone;
        const int64_t weights = keep(out.channels * in.channels * taps), bias = keep(out.channels);
        value_ = add(Op::kProduct, out, {before}, {}, window, 0, residual, gate, weights, bias);
        return;
      }
      case 2: {
        const int64_t weights = keep(in.channels * taps), bias = keep(in.channels);
        value_ = add(Op::kDepthwise, out, {before}, {}, window, 0, kNone, kNone, weights, bias);
        return;
      }
      case 3:
        value_ = add(Op::kPool, out, {before}, {}, window, any_of({0, 1, 2}));
        return;
      case 4:
        value_ = add(Op::kBinary, in, {before, before}, {}, {1, 1, 1, 1, 1, 1, 0, 0},
                     any_of({0, 1, 2, 3}));
        return;
      case 5:
        value_ = add(Op::kConcat, {2 * in.channels, in.height, in.width}, {before, before});
        return;
      default:
        value_ = add(Op::kPad, {in.channels, in.height + 3, in.width + 2}, {before}, {},
                     {1, 1, 1, 1, 1, 1, 2, 1});
    }
  }

  std::vector<ImageSize> sizes_;
  std::vector<int64_t> steps_;
  std::vector<float> floats_;
  int64_t num_steps_ = 0, value_ = 0;
};

// Operands and results of one run, with nothing behind them.
class Run {
 public:
  explicit Run(const Program& program) {
    for (const Step& step : program.steps) {
      if (step.op == Op::kInput) operands_.resize(program.num_operands);
      if (step.op == Op::kInput)
        operands_[step.index[0]] = random_floats(program.values[step.output].floats());
    }
    for (const Step& step : program.steps) {
      if (step.op != Op::kOutput) continue;
      results_.resize(program.num_results);
      results_[step.index[0]].assign(program.values[step.inputs[0]].floats(), -1.f);
    }
  }
  std::vector<std::vector<float>> on(Executable& executable, const Pool& pool) const {
    std::vector<std::vector<float>> results = results_;
    std::vector<const float*> from;
    std::vector<float*> to;
    for (const Floats& operand : operands_) from.push_back(operand.data());
    for (std::vector<float>& result : results) to.push_back(result.data());
    executable.run_image(pool, from.data(), to.data());
    return results;
  }

 private:
  struct Operand : Floats {
    Operand() : Floats(0) {}
    Operand& operator=(Floats floats) {
      static_cast<Floats&>(*this) = std::move(floats);
      return *this;
    }
  };
  std::vector<Operand> operands_;
  std::vector<std::vector<float>> results_;
};

bool same(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b) {
  for (size_t i = 0; i < a.size(); i++)
    if (std::memcmp(a[i].data(), b[i].data(), a[i].size() * sizeof(float)) != 0) return false;
  return true;
}

Program parse(const std::vector<int64_t>& words, const std::vector<float>& floats) {
  return parse_program(words.data(), static_cast<int64_t>(words.size()), floats.data(),
                       static_cast<int64_t>(floats.size()));
}

void test_threads(const Kernels& kernels) {
  for (int64_t trial = 0; trial < 40; trial++) {
    const Builder builder;
    Executable executable(parse(builder.words(), builder.floats()), kernels, {24, 60});
    const Run run(executable.program());
    const auto alone = run.on(executable, Pool{});
    for (int64_t threads : {2, 3, 7}) {
      Threads pool;
      expect(same(alone, run.on(executable, pool.pool(threads))), "threads change no bit");
    }
    Threads callers;
    std::atomic<int> right{0};
    const Pool pool = callers.pool(3);
    for (int64_t i = 0; i < 3; i++)
      pool.schedule([&] { right += same(alone, run.on(executable, Pool{})); });
    callers.join();
    expect(right == 3, "callers do not disturb each other");
  }
}

// Small enough to run under a sanitizer.
bool is_small(const Program& program) {
  int64_t floats = 0;
  for (const ImageSize& size : program.values) {
    floats += size.floats() + size.channels * size.width * 16;
    if (floats > 4000000) return false;
  }
  for (const Step& step : program.steps)
    if (step.op == Op::kProduct &&
        program.values[step.inputs[0]].floats() * step.window.kernel_y * step.window.kernel_x >
            4000000)
      return false;
  return true;
}

// A damaged program is refused, or it runs within its memory.
void test_damaged(const Kernels& kernels) {
  int64_t refused = 0, run = 0;
  for (int64_t trial = 0; trial < 600; trial++) {
    const Builder builder;
    std::vector<int64_t> words = builder.words();
    std::vector<float> floats = builder.floats();
    for (int64_t damage = 0; damage < any_of({1, 1, 2}); damage++) {
      int64_t& word = words[random()() % words.size()];
      word = any_of({word + 1, word - 1, 2 * word, 0, -1, 1, 7, 300, int64_t{1} << 23,
                     int64_t{1} << 62, -(int64_t{1} << 62), static_cast<int64_t>(random()())});
    }
    if (uniform() < 0.1) words.resize(random()() % words.size());
    if (uniform() < 0.1) floats.resize(random()() % (floats.size() + 1));
    try {
      Program program = parse(words, floats);
      if (!is_small(program)) continue;
      const Run memory(program);
      Executable executable(std::move(program), kernels, {24, 60});
      memory.on(executable, Pool{});
      run++;
    } catch (const std::invalid_argument&) {
      refused++;
    } catch (const std::bad_alloc&) {
      refused++;
    } catch (const std::length_error&) {
      refused++;
    }
  }
  expect(refused > 100 && run > 20, "some damage is refused and some is harmless");
}

void test_memory_is_reused(const Kernels& kernels) {
  const Builder builder;
  Executable executable(parse(builder.words(), builder.floats()), kernels, {24, 60});
  const Run run(executable.program());
  for (int64_t i = 0; i < 100; i++) run.on(executable, Pool{});
  expect(executable.free_memories() == 1, "one caller needs one memory");
}

}  // namespace

void test_program(const Kernels& kernels) {
  test_threads(kernels);
  test_damaged(kernels);
  test_memory_is_reused(kernels);
}

}  // namespace sparsejax::test
