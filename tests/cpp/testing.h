// What the kernel tests share: random arrays at odd addresses, a pool of threads, comparisons.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/run.h"
#include "kernels/activation.h"
#include "kernels/kernels.h"

namespace sparsejax::test {

inline int failures = 0;

inline void expect(bool condition, const std::string& what) {
  if (condition) return;
  if (failures++ < 20) std::printf("FAILED %s\n", what.c_str());
}

// Floats at an address that is not 16-byte aligned, with nothing behind them: a sanitizer sees the
// first float too far.
class Floats {
 public:
  explicit Floats(int64_t n, float value = 0.f) : memory_(n + 1, value) {}
  float* data() { return memory_.data() + 1; }
  const float* data() const { return memory_.data() + 1; }
  int64_t size() const { return static_cast<int64_t>(memory_.size()) - 1; }
  float operator[](int64_t i) const { return memory_[i + 1]; }
  bool same_bits(const Floats& other) const {
    return std::memcmp(data(), other.data(), size() * sizeof(float)) == 0;
  }

 private:
  std::vector<float> memory_;
};

inline std::mt19937& random() {
  static std::mt19937 generator(7);
  return generator;
}

inline double uniform() { return std::uniform_real_distribution<double>(0, 1)(random()); }
inline int64_t any_of(std::initializer_list<int64_t> choices) {
  return choices.begin()[random()() % choices.size()];
}

inline Floats random_floats(int64_t n) {
  Floats out(n);
  for (int64_t i = 0; i < n; i++) out.data()[i] = static_cast<float>(2 * uniform() - 1);
  return out;
}

// A pool whose helpers are new threads; `join` waits for those that came too late to help.
class Threads {
 public:
  ~Threads() { join(); }
  ThreadPool pool(int64_t n) {
    return {n, [this](std::function<void()> task) { threads_.emplace_back(std::move(task)); }};
  }
  void join() {
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  std::vector<std::thread> threads_;
};

inline double activated(Activation activation, double x) {
  if (activation == Activation::kNone) return x;
  x = x < 0 ? 0 : x;
  return activation == Activation::kRelu6 && x > 6 ? 6 : x;
}

// An activation in float64.
double exact(const ActivationCall& call, double x);

// `magnitude[i]` is the sum of the absolute values of what was added up to `expected[i]`.
inline void expect_close(const Floats& got, const std::vector<double>& expected,
                         const std::vector<double>& magnitude, const std::string& what) {
  for (int64_t i = 0; i < got.size(); i++) {
    const double bound = 1e-6 + 2e-6 * magnitude[i];
    if (std::abs(got[i] - expected[i]) <= bound) continue;
    expect(false, what + " [" + std::to_string(i) + "]: " + std::to_string(got[i]) +
                      " instead of " + std::to_string(expected[i]));
    return;
  }
}

// A test that a file registers by having one: with the kernels of each instruction set, or once and
// before all of those.
struct Test {
  explicit Test(void (*run)()) : once(run) { all().push_back(*this); }
  explicit Test(void (*run)(const Kernels&)) : on_each(run) { all().push_back(*this); }
  static std::vector<Test>& all() {
    static std::vector<Test> tests;
    return tests;
  }

  void (*once)() = nullptr;
  void (*on_each)(const Kernels&) = nullptr;
};

}  // namespace sparsejax::test
