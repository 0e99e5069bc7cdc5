// Threads that wait for tasks.
#pragma once
#include "threads/machine.h"
#include "threads/thread_pool.h"

#if SPARSEJAX_THREADS
#include <condition_variable>
#include <deque>
#include <vector>
#endif

namespace sparsejax {

#if SPARSEJAX_THREADS
class Workers {
 public:
  // Throws where the system gives no more threads.
  explicit Workers(int64_t count);
  ~Workers();  // when all tasks are done
  Workers(const Workers&) = delete;
  void schedule(std::function<void()> task);

 private:
  void work();
  void stop();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  bool stopped_ = false;
  std::vector<std::thread> threads_;
};
#else
struct Workers {
  explicit Workers(int64_t) {}
  void schedule(std::function<void()>) {}
};
#endif

}  // namespace sparsejax
