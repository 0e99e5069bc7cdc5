// Whether this build has threads, how many the machine runs, a lock, which without threads locks
// nothing, and the size of a core's first-level cache.
#pragma once
#include <cstdint>
#if defined(__linux__)
#include <unistd.h>
#endif

#ifndef SPARSEJAX_THREADS
#define SPARSEJAX_THREADS 1
#endif
#if SPARSEJAX_THREADS
#include <mutex>
#include <thread>
#endif

namespace sparsejax {

#if SPARSEJAX_THREADS
using Mutex = std::mutex;
using Lock = std::lock_guard<std::mutex>;
inline int64_t num_machine_threads() { return std::thread::hardware_concurrency(); }
#else
struct Mutex {};
struct Lock {
  explicit Lock(Mutex&) {}
};
inline int64_t num_machine_threads() { return 1; }
#endif

// Bytes of data; where the system does not say, those of a Cortex-A76 or a Neoverse, or 32 KiB.
inline int64_t cache_bytes() {
#ifdef __aarch64__
  constexpr int64_t kUsual = 64 * 1024;
#else
  constexpr int64_t kUsual = 32 * 1024;
#endif
#ifdef _SC_LEVEL1_DCACHE_SIZE
  const int64_t said = sysconf(_SC_LEVEL1_DCACHE_SIZE);
  return said > 0 ? said : kUsual;
#else
  return kUsual;
#endif
}

}  // namespace sparsejax
