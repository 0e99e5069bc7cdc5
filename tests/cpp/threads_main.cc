// Runs what shares memory between threads, on the only instruction set that was built.
#include "testing.h"

int main(int, char** arguments) {
  using namespace sparsejax;
  test::expect(use(arguments[1]), "the instruction set is known");
  test::test_threads();
  test::test_spmm(kernels());
  test::test_bcr(kernels());
  test::test_depthwise(kernels());
  test::test_program(kernels());
  std::printf("threads on %s: %d failures\n", kernels().isa, test::failures);
  return test::failures != 0;
}
