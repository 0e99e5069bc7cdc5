// The threads that whoever calls the engine lends it.
#pragma once
#include <cstdint>
#include <functional>

namespace sparsejax {

struct ThreadPool {
  int64_t num_threads = 1;
  std::function<void(std::function<void()>)> schedule;  // may run its task at any time, or never
};

}  // namespace sparsejax
