// Runs programs and files on the runtime as it is built without threads, exceptions, Python and
// XLA.
#include "files.h"

int main() {
  using namespace sparsejax;
  for (int64_t trial = 0; trial < 300; trial++) {
    const std::vector<uint8_t> bytes = test::random_bytes(400);
    std::string problem = test::program_problem(kernels(), bytes.data(), bytes.size());
    test::expect(problem.empty(), "a program on the engine alone: " + problem);
    problem = test::file_problem(kernels(), bytes.data(), bytes.size());
    test::expect(problem.empty(), "a file on the runtime alone: " + problem);
  }
  std::printf("the engine alone on %s: %d failures\n", kernels().isa, test::failures);
  return test::failures != 0;
}
