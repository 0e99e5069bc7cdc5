// Chooses kernels by what the CPU can do; see kernels.h.
#include "kernels/kernels.h"

namespace sparsejax {

// SPARSEJAX_TARGETS lists the instruction sets that were built, best first: TARGET(avx2) ...
#define TARGET(isa)           \
  namespace isa {             \
  extern const Kernels table; \
  }
SPARSEJAX_TARGETS
#undef TARGET

namespace {

bool has_cpu([[maybe_unused]] const std::string& isa) {
#if defined(__x86_64__)
  if (isa == "avx512")
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
  if (isa != "sse2") return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return true;  // every CPU of this kind has it
}

std::vector<Kernels> find_usable() {
  std::vector<Kernels> found;
#define TARGET(isa) \
  if (has_cpu(#isa)) found.push_back(isa::table);
  SPARSEJAX_TARGETS
#undef TARGET
  return found;
}

const Kernels* chosen = nullptr;

}  // namespace

const std::vector<Kernels>& usable_kernels() {
  static const std::vector<Kernels> usable = find_usable();
  return usable;
}

const Kernels& kernels() { return chosen ? *chosen : usable_kernels().front(); }

bool use(const std::string& isa) {
  for (const Kernels& set : usable_kernels()) {
    if (isa != set.isa) continue;
    chosen = &set;
    return true;
  }
  return false;
}

}  // namespace sparsejax
