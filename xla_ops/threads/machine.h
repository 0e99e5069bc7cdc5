// Whether this build has threads, how many the machine runs, a lock, which without threads locks
// nothing, and the sizes of a core's caches.
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
// WebAssembly that shares its memory with instances on other threads, which JavaScript makes.
#if defined(__wasm_atomics__) && !SPARSEJAX_THREADS
#define SPARSEJAX_SHARED_MEMORY 1
#include <atomic>
#else
#define SPARSEJAX_SHARED_MEMORY 0
#endif

namespace sparsejax {

#if SPARSEJAX_THREADS
using Mutex = std::mutex;
using Lock = std::lock_guard<std::mutex>;
// Opens files: microseconds.
inline int64_t num_machine_threads() { return std::thread::hardware_concurrency(); }
inline void let_others_run() { std::this_thread::yield(); }
#elif SPARSEJAX_SHARED_MEMORY
inline void let_others_run() {  // for 50 us
  int32_t never = 0;
  __builtin_wasm_memory_atomic_wait32(&never, 0, 50000);
}
class Mutex {
 public:
  void lock() {
    while (held_.exchange(true, std::memory_order_acquire)) let_others_run();
  }
  void unlock() { held_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> held_{false};
};
class Lock {
 public:
  explicit Lock(Mutex& mutex) : mutex_(mutex) { mutex_.lock(); }
  ~Lock() { mutex_.unlock(); }

 private:
  Mutex& mutex_;
};
inline int64_t num_machine_threads() { return 1; }
#else
struct Mutex {};
struct Lock {
  explicit Lock(Mutex&) {}
};
inline int64_t num_machine_threads() { return 1; }
#endif

// Bytes of data in a core's first or second cache; where the system does not say, those of a
// Cortex-A76 or a Neoverse, or 32 KiB, and 512 KiB.
inline int64_t cache_bytes(int level) {
#ifdef __aarch64__
  constexpr int64_t kFirst = 64 * 1024;
#else
  constexpr int64_t kFirst = 32 * 1024;
#endif
#ifdef _SC_LEVEL1_DCACHE_SIZE  // and of the second, too
  const int64_t said = sysconf(level == 1 ? _SC_LEVEL1_DCACHE_SIZE : _SC_LEVEL2_CACHE_SIZE);
  if (said > 0) return said;
#endif
  return level == 1 ? kFirst : 512 * 1024;
}

}  // namespace sparsejax
