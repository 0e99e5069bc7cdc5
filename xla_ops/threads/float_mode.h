// How a thread treats denormals and rounds. XLA flushes denormals on the thread that makes a custom
// call but not on the threads of its pool, so helpers take over the caller's mode for as long as
// they help.
#pragma once
#include <cstdint>

namespace sparsejax {

inline uint64_t float_mode() {
#if defined(__x86_64__)
  return __builtin_ia32_stmxcsr();
#elif defined(__aarch64__)
  uint64_t mode;
  __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
#else
  return 0;
#endif
}

inline void set_float_mode(uint64_t mode) {
#if defined(__x86_64__)
  __builtin_ia32_ldmxcsr(static_cast<unsigned>(mode));
#elif defined(__aarch64__)
  __asm__ volatile("msr fpcr, %0" : : "r"(mode));
#else
  (void)mode;
#endif
}

// This thread's mode with denormals as zeros, which is XLA's while it calls us.
inline uint64_t flushing_denormals() {
#if defined(__x86_64__)
  return float_mode() | 0x8040;  // of results and of operands
#elif defined(__aarch64__)
  return float_mode() | 1 << 24;
#else
  return 0;
#endif
}

class FloatMode {
 public:
  explicit FloatMode(uint64_t mode) : before_(float_mode()) { set_float_mode(mode); }
  ~FloatMode() { set_float_mode(before_); }
  FloatMode(const FloatMode&) = delete;

 private:
  uint64_t before_;
};

}  // namespace sparsejax
