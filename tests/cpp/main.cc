// Runs the kernel tests on every instruction set of this CPU, and on a 16-lane build that needs no
// AVX-512.
#include <atomic>

#include "testing.h"

#ifdef SPARSEJAX_TEST_WIDE
namespace sparsejax::wide {
extern const SpmmKernels spmm;
extern const BcrKernels bcr;
extern const DepthwiseKernels depthwise;
extern const DepthwisePlaneKernels depthwise_planes;
extern const WindowKernels window;
extern const ElementwiseKernels elementwise;
extern const ProductKernels product;
}  // namespace sparsejax::wide
#endif

namespace sparsejax::test {

void test_parallel_for() {
  for (int64_t n : {0, 1, 2, 7, 1000}) {
    std::vector<std::atomic<int>> times(n);
    Threads threads;
    parallel_for(threads.pool(4), n, [&](int64_t i) { times[i]++; });
    for (int64_t i = 0; i < n; i++) expect(times[i] == 1, "each item runs once");
  }
  int64_t sum = 0;  // a pool that never helps
  parallel_for(Pool{4, [](std::function<void()>) {}}, 10, [&](int64_t i) { sum += i; });
  expect(sum == 45, "the caller does the work alone");
  // Rounding upwards stands for any mode: 1 + 1e-9 is 1 in the mode that threads begin with.
  const uint64_t before = float_mode();
#if defined(__x86_64__)
  set_float_mode((before & ~uint64_t{0x6000}) | 0x4000);
#else
  set_float_mode((before & ~uint64_t{0xc00000}) | 0x400000);
#endif
  std::atomic<int> rounded_up{0};
  volatile float tiny = 1e-9f;
  Threads threads;
  parallel_for(threads.pool(4), 100, [&](int64_t) { rounded_up += 1.f + tiny > 1.f; });
  threads.join();
  set_float_mode(before);
  expect(rounded_up == 100, "helpers round as their caller does");
}

}  // namespace sparsejax::test

// An argument is the name of the only instruction set to test, and leaves out what has no threads.
int main(int num_arguments, char** arguments) {
  using namespace sparsejax;
  test::test_parallel_for();
  test::test_matrix();
  test::test_bcr_matrix();
  test::expect(!use("none"), "an unknown instruction set is refused");
  std::vector<Kernels> sets = usable_kernels();
#ifdef SPARSEJAX_TEST_WIDE
  if (__builtin_cpu_supports("avx2"))
    sets.push_back({"wide", &wide::spmm, &wide::bcr, &wide::depthwise, &wide::depthwise_planes,
                    &wide::window, &wide::elementwise, &wide::product});
#endif
  for (const Kernels& set : sets) {
    if (num_arguments > 1 && std::string(arguments[1]) != set.isa) continue;
    test::test_spmm(set);
    test::test_bcr(set);
    test::test_depthwise(set);
    test::test_program(set);
    if (num_arguments == 1) {
      test::test_window(set);
      test::test_elementwise(set);
      test::test_product(set);
    }
    std::printf("%s: %d failures\n", set.isa, test::failures);
  }
  return test::failures != 0;
}
