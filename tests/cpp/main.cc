// Runs the kernel tests on every instruction set of this CPU, and on a 16-lane build that needs no
// AVX-512.
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

int main() {
  using namespace sparsejax;
  test::test_threads();
  test::test_refused();
  test::test_ranges();
  test::test_matrix();
  test::test_bcr_matrix();
  test::test_registration();
  test::expect(!use("none"), "an unknown instruction set is refused");
  std::vector<Kernels> sets = usable_kernels();
#ifdef SPARSEJAX_TEST_WIDE
  if (__builtin_cpu_supports("avx2"))
    sets.push_back({"wide", &wide::spmm, &wide::bcr, &wide::depthwise, &wide::depthwise_planes,
                    &wide::window, &wide::elementwise, &wide::product});
#endif
  for (const Kernels& set : sets) {
    test::test_spmm(set);
    test::test_bcr(set);
    test::test_depthwise(set);
    test::test_program(set);
    test::test_window(set);
    test::test_elementwise(set);
    test::test_product(set);
    use(set.isa);
    test::test_handlers();
    std::printf("%s: %d failures\n", set.isa, test::failures);
  }
  return test::failures != 0;
}
