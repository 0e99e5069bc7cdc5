// A team of threads for a run of many short parallel loops: helpers are woken once and then spin
// from loop to loop, as a wake-up (15 us in a virtual machine) costs more than many a loop takes.
// A pool that runs a task at once on the thread that schedules it (a full queue's way) has one
// helper less.
#pragma once
#include "threads/machine.h"
#if SPARSEJAX_SHARED_MEMORY
#include "threads/browser.h"
#elif !SPARSEJAX_THREADS
#include "threads/alone.h"
#else
#include <algorithm>
#include <memory>
#include <thread>

#include "threads/float_mode.h"
#include "threads/spun_loop.h"
#include "threads/thread_pool.h"

namespace sparsejax {

class Team {
 public:
  explicit Team(const ThreadPool& pool, int64_t most_threads = 1 << 10)
      : num_threads_(std::max<int64_t>(1, std::min(pool.num_threads, most_threads))) {
    if (num_threads_ == 1) return;
    shared_ = std::make_shared<SpunLoop>();
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
    if (!shared_ || n <= 1 || n > SpunLoop::kMost) {
      for (int64_t i = 0; i < n; i++) f(i);
      return;
    }
    shared_->run(n, &f, [](const void* g, int64_t i) { (*static_cast<const F*>(g))(i); });
  }

 private:
  void finish() const {
    if (shared_) shared_->finished.store(true, std::memory_order_release);
  }

  int64_t num_threads_;
  std::shared_ptr<SpunLoop> shared_;
};

}  // namespace sparsejax
#endif
