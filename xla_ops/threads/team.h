// A team of threads for a run of many short parallel loops: helpers are woken once and then spin
// from loop to loop, as a wake-up (15 us in a virtual machine) costs more than many a loop takes.
// A pool that runs a task at once on the thread that schedules it (a full queue's way) has one
// helper less.
#pragma once
#include "threads/machine.h"
#if !SPARSEJAX_THREADS
#include "threads/alone.h"
#else
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>

#include "threads/float_mode.h"
#include "threads/thread_pool.h"
#include "threads/thrown.h"

namespace sparsejax {

class Team {
 public:
  explicit Team(const ThreadPool& pool, int64_t most_threads = 1 << 10)
      : num_threads_(std::max<int64_t>(1, std::min(pool.num_threads, most_threads))) {
    if (num_threads_ == 1) return;
    shared_ = std::make_shared<Shared>();
    Thrown thrown;
    const bool scheduled = thrown.keep([&] {
      for (int64_t t = 1; t < num_threads_; t++)
        pool.schedule([shared = shared_, mode = float_mode(), caller = std::this_thread::get_id()] {
          if (std::this_thread::get_id() == caller) return;  // it would wait for itself
          const FloatMode same(mode);
          shared->help();
        });
    });
    if (scheduled) return;
    finish();  // for the helpers that are there: there is nobody else to send them home
    thrown.rethrow();
  }
  ~Team() { finish(); }
  Team(const Team&) = delete;

  int64_t num_threads() const { return num_threads_; }

  // f(0) ... f(n - 1), in any order and on any thread; what f throws is thrown here when all is
  // done. From one thread at a time.
  template <class F>
  void for_each(int64_t n, const F& f) const {
    if (!shared_ || n <= 1 || n > kMost) {
      for (int64_t i = 0; i < n; i++) f(i);
      return;
    }
    shared_->run(n, &f, [](const void* g, int64_t i) { (*static_cast<const F*>(g))(i); });
  }

 private:
  void finish() const {
    if (shared_) shared_->finished.store(true, std::memory_order_release);
  }

  static constexpr int kBits = 20;  // of the number of items, and of the next one
  static constexpr int64_t kMost = (int64_t{1} << kBits) - (1 << 16);

  // The loop that is under way is one word, so that an item that was claimed can never be taken for
  // one of a later loop: its number | items << 20 | next item. Who claims an item below the number
  // of items knows that the caller waits for it, and may read the rest.
  struct Shared {
    std::atomic<uint64_t> word{0};
    std::atomic<int64_t> done{0};
    std::atomic<bool> finished{false};
    const void* function = nullptr;
    void (*call)(const void*, int64_t) = nullptr;
    Thrown thrown;

    static int64_t next(uint64_t w) { return static_cast<int64_t>(w & ((1u << kBits) - 1)); }
    static int64_t items(uint64_t w) { return next(w >> kBits); }

    // Does one item if there is one.
    bool take() {
      uint64_t w = word.load(std::memory_order_acquire);
      if (next(w) >= items(w)) return false;
      w = word.fetch_add(1, std::memory_order_acq_rel);
      if (next(w) >= items(w)) return false;
      thrown.keep([&] { call(function, next(w)); });
      done.fetch_add(1, std::memory_order_acq_rel);
      return true;
    }

    void help() {
      for (int64_t idle = 0; !finished.load(std::memory_order_acquire);)
        idle = take() ? 0 : rest(idle);
    }

    // Spins for a little, then lets others run between two looks.
    static int64_t rest(int64_t idle) {
      if (idle < 200) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
      } else {
        std::this_thread::yield();
      }
      return idle + 1;
    }

    void run(int64_t n, const void* f, void (*g)(const void*, int64_t)) {
      function = f;
      call = g;
      done.store(0, std::memory_order_relaxed);
      const uint64_t loop = (word.load(std::memory_order_relaxed) >> (2 * kBits)) + 1;
      word.store(loop << (2 * kBits) | static_cast<uint64_t>(n) << kBits,
                 std::memory_order_release);
      while (take()) {
      }
      for (int64_t idle = 0; done.load(std::memory_order_acquire) < n;) idle = rest(idle);
      thrown.rethrow();
    }
  };

  int64_t num_threads_;
  std::shared_ptr<Shared> shared_;
};

}  // namespace sparsejax
#endif
