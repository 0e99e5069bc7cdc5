// parallel_for: runs f(0) ... f(n - 1) on a pool of threads and returns when all are done.
#pragma once
#include "threads/machine.h"
#if !SPARSEJAX_THREADS
#include "threads/thread_pool.h"

namespace sparsejax {

template <class F>
void parallel_for(const ThreadPool&, int64_t n, const F& f) {
  for (int64_t i = 0; i < n; i++) f(i);
}

}  // namespace sparsejax
#else
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>

#include "threads/float_mode.h"
#include "threads/thread_pool.h"
#include "threads/thrown.h"

namespace sparsejax {

// Items are claimed from a shared counter and the caller takes part, so a helper that starts after
// the return finds nothing left and touches nothing but the counter. Which thread runs f must not
// change a result. What f throws is thrown here when all is done (one of them, if there are
// several). What schedule throws is thrown here, too, when the items that were begun are done; the
// others are never begun.
template <class F>
void parallel_for(const ThreadPool& pool, int64_t n, const F& f) {
  if (pool.num_threads <= 1 || n <= 1) {
    for (int64_t i = 0; i < n; i++) f(i);
    return;
  }
  struct Progress {
    std::atomic<int64_t> next{0}, done{0};
    Thrown thrown;
  };
  auto progress = std::make_shared<Progress>();
  auto work = [progress, n, mode = float_mode(), &f] {
    const FloatMode same(mode);
    for (int64_t i; (i = progress->next.fetch_add(1)) < n;) {
      progress->thrown.keep([&] { f(i); });
      progress->done.fetch_add(1, std::memory_order_release);
    }
  };
  const bool scheduled = progress->thrown.keep([&] {
    for (int64_t t = 1; t < std::min(pool.num_threads, n); t++) pool.schedule(work);
    work();  // throws nothing
  });
  const int64_t begun = scheduled ? n : std::min(n, progress->next.exchange(n));
  while (progress->done.load(std::memory_order_acquire) < begun) std::this_thread::yield();
  progress->thrown.rethrow();
}

}  // namespace sparsejax
#endif
