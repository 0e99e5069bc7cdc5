// GFLOP/s that one core reaches: with multiply-adds alone, and with one vector load from the
// first-level cache for each. Prints both; the best of several runs.
#include <algorithm>
#include <chrono>
#include <cstdio>

namespace {

#if defined(__x86_64__)
#define VECTOR_REGISTER "+v"
#else
#define VECTOR_REGISTER "+w"
#endif
#if defined(__AVX512F__)
constexpr int kLanes = 16, kSums = 24;
#elif defined(__AVX2__)
constexpr int kLanes = 8, kSums = 12;
#else
constexpr int kLanes = 4, kSums = 12;
#endif
typedef float Vec __attribute__((vector_size(4 * kLanes)));

constexpr long kTurns = 200000;
alignas(64) float memory[kSums * kLanes];

template <bool kLoads>
__attribute__((noinline)) double gflops() {
  Vec sums[kSums] = {}, factor = Vec{} + memory[0], other = Vec{} + memory[1];
  const auto start = std::chrono::steady_clock::now();
  for (long turn = 0; turn < kTurns; turn++) {
#pragma GCC unroll 32
    for (int i = 0; i < kSums; i++) {
      if (kLoads)
        sums[i] += factor * reinterpret_cast<const Vec*>(memory)[i];
      else
        sums[i] += factor * other;
      asm volatile("" : VECTOR_REGISTER(sums[i]) : : "memory");  // no turn may be left out
    }
    asm volatile("" : VECTOR_REGISTER(factor));  // nor a product be kept
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return 2e-9 * kTurns * kSums * kLanes / seconds.count();
}

}  // namespace

int main() {
  double alone = 0, loading = 0;
  for (int i = 0; i < 20; i++) {
    alone = std::max(alone, gflops<false>());
    loading = std::max(loading, gflops<true>());
  }
  std::printf("%.1f %.1f\n", alone, loading);
}
