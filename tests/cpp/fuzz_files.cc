// Fuzzes the reader of files and the whole runtime under sanitizers, by libFuzzer where there is
// one, else by seeds 0, 1, 2, ...: most inputs are files themselves, one kind of four is choices
// that make a file, damage it perhaps, and know what it must compute. Whatever a file says, reading
// and loading it ask for no more than the header says, and a run of a small one does no harm.
#include <atomic>
#include <cstdlib>

#include "files.h"

// As sanitizer/allocator_interface.h has them, which clang brings and g++ does not.
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void*,
                                                                             size_t),
                                                         void (*free_hook)(const volatile void*));
extern "C" size_t __sanitizer_get_allocated_size(const volatile void*);

namespace sparsejax::test {
namespace {

// Bytes that are asked for at a time while a file of one byte more is read, and loaded.
constexpr int64_t kReading = 1200, kLoading = 4000, kAnyway = 1 << 16;

std::atomic<int64_t> asked{0}, most{0};

void count(const volatile void*, size_t bytes) {
  const int64_t now = asked += static_cast<int64_t>(bytes);
  if (now > most) most = now;
}
void discount(const volatile void* memory) {
  if (memory) asked -= static_cast<int64_t>(__sanitizer_get_allocated_size(memory));
}

void need(bool holds, const std::string& what) {
  if (holds) return;
  std::printf("FAILED: %s\n", what.c_str());
  std::abort();
}

// What `f` asks for at a time is at most so much for each byte of a file.
template <class F>
void limited(const char* doing, size_t size, int64_t multiple, const F& f) {
  const int64_t before = asked;
  most = before;
  f();
  const int64_t bytes = most - before, allowed = multiple * static_cast<int64_t>(size) + kAnyway;
  need(bytes <= allowed, std::string(doing) + " a file of " + std::to_string(size) +
                             " bytes asks for " + std::to_string(bytes));
}

void run_limited(const uint8_t* bytes, size_t size) {
  const std::vector<uint8_t> tight(bytes, bytes + size);
  bool small = false;
  limited("reading", size, kReading, [&] {
    Model read;
    small = read_model(tight.data(), static_cast<int64_t>(size), kernels().isa, read).empty() &&
            is_small(read);
  });
  if (!small) return;
  sparsejax_model* model = nullptr;
  limited("loading", size, kLoading, [&] { sparsejax_load(tight.data(), size, &model); });
  if (model) run_model(model);
  sparsejax_free(model);
}

std::vector<uint8_t> made_file(const std::vector<uint8_t>& bytes) {
  Choices choices(bytes.data(), bytes.size());
  if (choices.percent(40)) return looped_file(choices);
  const Draft draft = saved_draft(choices);
  return file_of(draft, choices);
}

// The first byte chooses the kernels and what the others are.
void fuzz_once(const uint8_t* bytes, size_t size) {
  if (size == 0) return;
  const std::vector<Kernels>& sets = usable_kernels();
  const Kernels& set = sets[bytes[0] / 4 % sets.size()];
  use(set.isa);
  if (bytes[0] % 4) return run_limited(bytes + 1, size - 1);
  need(file_problem(set, bytes + 1, size - 1).empty(), "a file computes something else");
}

}  // namespace
}  // namespace sparsejax::test

#ifdef SPARSEJAX_LIBFUZZER
using sparsejax::test::fuzz_once;

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  __sanitizer_install_malloc_and_free_hooks(sparsejax::test::count, sparsejax::test::discount);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  fuzz_once(bytes, size);
  return 0;
}

extern "C" size_t LLVMFuzzerMutate(uint8_t* bytes, size_t size, size_t most);

// Now and then a whole file, which mutations alone would hardly find.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* bytes, size_t size, size_t most, unsigned seed) {
  if (seed % 64) return LLVMFuzzerMutate(bytes, size, most);
  sparsejax::test::random().seed(seed);
  const auto file = sparsejax::test::made_file(sparsejax::test::random_bytes(seed % 251));
  if (file.size() >= most) return LLVMFuzzerMutate(bytes, size, most);
  bytes[0] = static_cast<uint8_t>(4 * (seed % 3) + 1);
  std::copy(file.begin(), file.end(), bytes + 1);
  return file.size() + 1;
}
#else
namespace sparsejax::test {
namespace {

// A file with other damages, as many times as it takes to be worth its making.
int64_t run_damaged(uint32_t seed) {
  constexpr int64_t kDamages = 50;
  constexpr size_t kMostBytes = 1 << 14;
  const std::vector<uint8_t> bytes = random_bytes(20 + seed % 500);
  fuzz_once(bytes.data(), bytes.size());
  const std::vector<uint8_t> file = made_file(bytes);
  for (int64_t i = 0; i < kDamages && file.size() <= kMostBytes; i++) {
    const std::vector<uint8_t> more = random_bytes(30);
    Choices damages(more.data(), more.size());
    std::vector<uint8_t> damaged = file;
    damage(damages, damaged);
    run_limited(damaged.data(), damaged.size());
  }
  return 1 + kDamages;
}

}  // namespace
}  // namespace sparsejax::test

int main(int num_arguments, char** arguments) {
  __sanitizer_install_malloc_and_free_hooks(sparsejax::test::count, sparsejax::test::discount);
  const int64_t wanted = num_arguments > 1 ? std::atoll(arguments[1]) : 10000;
  int64_t executions = 0;
  for (uint32_t seed = 0; executions < wanted; seed++) {
    sparsejax::test::random().seed(seed);
    std::printf("\rseed %u, %lld before", seed, static_cast<long long>(executions));
    std::fflush(stdout);  // the one that fails is the last
    executions += sparsejax::test::run_damaged(seed);
  }
  std::printf("\r%lld executions without a failure\n", static_cast<long long>(executions));
}
#endif
