// See workers.h.
#include "runtime/workers.h"

#if SPARSEJAX_THREADS
#include "threads/thrown.h"

namespace sparsejax {

Workers::Workers(int64_t count) {
  Thrown thrown;
  const bool all = thrown.keep([&] {
    for (int64_t i = 0; i < count; i++) threads_.emplace_back([this] { work(); });
  });
  if (all) return;
  stop();
  thrown.rethrow();
}

Workers::~Workers() { stop(); }

void Workers::stop() {
  {
    const Lock lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Workers::schedule(std::function<void()> task) {
  {
    const Lock lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  changed_.notify_one();
}

void Workers::work() {
  for (;;) {
    std::function<void()> task;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [this] { return stopped_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

}  // namespace sparsejax
#endif
