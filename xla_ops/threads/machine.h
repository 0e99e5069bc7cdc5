// Whether this build has threads, how many the machine runs, and a lock, which without threads
// locks nothing.
#pragma once
#include <cstdint>

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

}  // namespace sparsejax
