// Fuzzes whole programs and files (by value), files of any bytes and the custom calls (by a
// sanitizer) with bytes: those of libFuzzer where there is one, else of seeds 0, 1, 2, ... for so
// many seconds. fuzz_files.cc has files alone.
#include <chrono>
#include <cstdlib>

#include "calls.h"
#include "files.h"

namespace sparsejax::test {
namespace {

std::string value_problem(const Kernels& set, bool file, const uint8_t* bytes, size_t size) {
  return file ? file_problem(set, bytes, size) : program_problem(set, bytes, size);
}

// The first byte chooses among the targets and the instruction sets.
void fuzz_once(const uint8_t* bytes, size_t size) {
  if (size == 0) return;
  const std::vector<Kernels>& sets = usable_kernels();
  const Kernels& set = sets[bytes[0] / 4 % sets.size()];
  use(set.isa);
  const int target = bytes[0] % 4;
  if (target == 1) return call_by_bytes(bytes + 1, size - 1);
  if (target == 2) return run_any_file(bytes + 1, size - 1);
  const std::string problem = value_problem(set, target == 3, bytes + 1, size - 1);
  if (problem.empty()) return;
  std::printf("FAILED on %s: %s\n", set.isa, problem.c_str());
  std::abort();
}

}  // namespace
}  // namespace sparsejax::test

#ifdef SPARSEJAX_LIBFUZZER
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  sparsejax::test::fuzz_once(bytes, size);
  return 0;
}
#else
int main(int num_arguments, char** arguments) {
  using Clock = std::chrono::steady_clock;
  const auto end =
      Clock::now() + std::chrono::seconds(num_arguments > 1 ? std::atoi(arguments[1]) : 60);
  const uint32_t first = num_arguments > 2 ? std::atoi(arguments[2]) : 0;
  int64_t executions = 0;
  for (uint32_t seed = first; Clock::now() < end; seed++) {
    sparsejax::test::random().seed(seed);
    const std::vector<uint8_t> bytes = sparsejax::test::random_bytes(20 + seed % 500);
    std::printf("\rseed %u, %lld before", seed, static_cast<long long>(executions));
    std::fflush(stdout);  // the one that fails is the last
    sparsejax::test::fuzz_once(bytes.data(), bytes.size());
    executions++;
  }
  std::printf("\r%lld executions without a failure\n", static_cast<long long>(executions));
}
#endif
