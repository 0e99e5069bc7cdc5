// Team of a build for browsers: the helpers are instances of the module on other threads, on the
// same memory, and there is one team of several at a time.
#pragma once
#include <algorithm>

#include "threads/spun_loop.h"
#include "threads/thread_pool.h"

namespace sparsejax {

class Helpers {
 public:
  static Helpers& all() {
    static Helpers helpers;
    return helpers;
  }

  SpunLoop loop;

  void wake() {
    loop.finished.store(false);
    calls_.fetch_add(1);
    __builtin_wasm_memory_atomic_notify(reinterpret_cast<int32_t*>(&calls_), UINT32_MAX);
  }

  // One of them met a fault: whoever waits for its item must not wait for ever.
  void fail() {
    failed_.store(true);
    loop.done.fetch_add(int64_t{1} << 40);
  }
  bool failed() const { return failed_.load(); }

  // Helps every team, and never returns.
  [[noreturn]] void help() {
    for (int32_t seen = 0;;) {
      __builtin_wasm_memory_atomic_wait32(reinterpret_cast<int32_t*>(&calls_), seen, -1);
      seen = calls_.load();
      loop.help();
    }
  }

 private:
  std::atomic<int32_t> calls_{0};
  std::atomic<bool> failed_{false};
};

class Team {
 public:
  explicit Team(const ThreadPool& pool, int64_t most_threads = 1 << 10)
      : num_threads_(std::max<int64_t>(1, std::min(pool.num_threads, most_threads))) {
    if (num_threads_ > 1) Helpers::all().wake();
  }
  ~Team() {
    if (num_threads_ > 1) Helpers::all().loop.finished.store(true);
  }
  Team(const Team&) = delete;

  int64_t num_threads() const { return num_threads_; }

  template <class F>
  void for_each(int64_t n, const F& f) const {
    each(n, &f, [](const void* g, int64_t i) { (*static_cast<const F*>(g))(i); });
  }

 private:
  // Once for all kinds of f: modules are small.
  __attribute__((noinline)) void each(int64_t n, const void* f,
                                      void (*call)(const void*, int64_t)) const {
    if (num_threads_ == 1 || n <= 1 || n > SpunLoop::kMost) {
      for (int64_t i = 0; i < n; i++) call(f, i);
      return;
    }
    Helpers::all().loop.run(n, f, call);
    if (Helpers::all().failed()) __builtin_trap();
  }

  int64_t num_threads_;
};

}  // namespace sparsejax
