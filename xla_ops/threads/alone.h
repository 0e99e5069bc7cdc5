// Team of a build without threads.
#pragma once
#include "threads/thread_pool.h"

namespace sparsejax {

class Team {
 public:
  explicit Team(const ThreadPool&, int64_t = 1) {}
  int64_t num_threads() const { return 1; }
  template <class F>
  void for_each(int64_t n, const F& f) const {
    for (int64_t i = 0; i < n; i++) f(i);
  }
};

}  // namespace sparsejax
