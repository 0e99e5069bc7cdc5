// Chooses kernels by what the CPU can do; see kernels.h.
#include "kernels/kernels.h"

namespace sparsejax {

#define SPARSEJAX_DECLARE(target)                      \
  namespace target {                                   \
  extern const SpmmKernels spmm;                       \
  extern const BcrKernels bcr;                         \
  extern const DepthwiseKernels depthwise;             \
  extern const DepthwisePlaneKernels depthwise_planes; \
  extern const WindowKernels window;                   \
  extern const ElementwiseKernels elementwise;         \
  extern const ProductKernels product;                 \
  }
#define SPARSEJAX_SET(target)                                                            \
  Kernels {                                                                              \
    #target, &target::spmm, &target::bcr, &target::depthwise, &target::depthwise_planes, \
        &target::window, &target::elementwise, &target::product                          \
  }

#if defined(__x86_64__)
SPARSEJAX_DECLARE(avx512)
SPARSEJAX_DECLARE(avx2)
SPARSEJAX_DECLARE(sse2)
#else
SPARSEJAX_DECLARE(neon)
#endif

namespace {

std::vector<Kernels> find_usable() {
  std::vector<Kernels> found;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    found.push_back(SPARSEJAX_SET(avx512));
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    found.push_back(SPARSEJAX_SET(avx2));
  found.push_back(SPARSEJAX_SET(sse2));
#else
  found.push_back(SPARSEJAX_SET(neon));
#endif
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
