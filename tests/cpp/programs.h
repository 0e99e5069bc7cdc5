// Programs for tests: drafted step by step, drawn by the bytes that a fuzzer or a random generator
// gives, and run in the slow and obvious way.
#pragma once
#include <initializer_list>

#include "engine/executable.h"
#include "testing.h"

namespace sparsejax::test {

// Choices that a string of bytes makes; the first of each where it has ended.
class Choices {
 public:
  Choices(const uint8_t* data, size_t size) : next_(data), left_(size) {}
  int64_t below(int64_t n) { return n <= 1 ? 0 : (byte() + 256 * (n > 256 ? byte() : 0)) % n; }
  int64_t of(std::initializer_list<int64_t> choices) {
    return choices.begin()[below(static_cast<int64_t>(choices.size()))];
  }
  bool percent(int64_t share) { return below(100) >= 100 - share; }

 private:
  int64_t byte() { return left_ > 0 ? (left_--, *next_++) : 0; }
  const uint8_t* next_;
  size_t left_;
};

inline std::vector<uint8_t> random_bytes(int64_t n) {
  std::vector<uint8_t> bytes(n);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random()());
  return bytes;
}

// A program before it is written down.
struct Draft {
  std::vector<ImageSize> values;
  std::vector<Step> steps;
  std::vector<float> floats;

  // A step with nothing but inputs; it makes a value of that size unless it is an output.
  Step& add(Op op, ImageSize size, std::vector<int64_t> inputs);
  int64_t last() const { return static_cast<int64_t>(values.size()) - 1; }
  // Where so many random weights begin; their squares add up to about 1.
  int64_t keep(int64_t count, int64_t length, std::mt19937& generator);
  std::vector<int64_t> words() const;  // as read_step in program.cc reads them
};

Program parse(const std::vector<int64_t>& words, const std::vector<float>& floats);
inline Program parse(const Draft& draft) { return parse(draft.words(), draft.floats); }

// A valid program with any kinds of steps, windows, layouts and several inputs and outputs.
Draft random_draft(Choices& choices);

// Small enough to run under a sanitizer.
bool is_small(const Program& program);

// Operands and results of one run, with nothing behind them.
class Run {
 public:
  explicit Run(const Program& program);
  std::vector<std::vector<float>> on(Executable& executable, const ThreadPool& pool) const;
  const std::vector<std::vector<float>>& operands() const { return operands_; }
  // Compares results with sums in float64; says what differs, or nothing.
  std::string difference(const Program& program,
                         const std::vector<std::vector<float>>& results) const;

 private:
  std::vector<std::vector<float>> operands_, results_;
};

// One program that `bytes` describe, damaged perhaps: what is accepted gives the right values.
// Returns what is wrong, or nothing.
std::string program_problem(const Kernels& kernels, const uint8_t* bytes, size_t size);

}  // namespace sparsejax::test
