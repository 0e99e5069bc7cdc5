// See memory.h.
#include "engine/memory.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "threads/machine.h"

namespace sparsejax {

Memory::Memory(int64_t floats) : owned_(new float[floats + 16]), floats_(floats) {
  const auto address = reinterpret_cast<uintptr_t>(owned_.get());
  data_ = owned_.get() + ((64 - address % 64) % 64) / sizeof(float);
  std::memset(owned_.get(), 0, (floats + 16) * sizeof(float));
}

namespace {

struct Kept {
  Mutex mutex;
  std::vector<std::unique_ptr<Memory>> pieces;  // the oldest first

  int64_t floats() const {
    int64_t sum = 0;
    for (const auto& piece : pieces) sum += piece->floats();
    return sum;
  }
};

Kept& kept() {
  static Kept* const kept = new Kept;  // threads may outlive the module's statics
  return *kept;
}

}  // namespace

std::unique_ptr<Memory> take_memory(int64_t floats) {
  {
    const Lock lock(kept().mutex);
    auto& pieces = kept().pieces;
    auto best = pieces.end();
    for (auto it = pieces.begin(); it != pieces.end(); ++it)
      if ((*it)->floats() >= floats &&
          (best == pieces.end() || (*it)->floats() < (*best)->floats()))
        best = it;
    if (best != pieces.end()) {
      std::unique_ptr<Memory> memory = std::move(*best);
      pieces.erase(best);
      return memory;
    }
  }
  return std::make_unique<Memory>(floats);
}

void give_memory(std::unique_ptr<Memory> memory) {
  std::vector<std::unique_ptr<Memory>> freed;  // when the lock is gone
  const Lock lock(kept().mutex);
  auto& pieces = kept().pieces;
  pieces.push_back(std::move(memory));
  const size_t most = std::max<int64_t>(2, num_machine_threads());
  while (pieces.size() > most || kept().floats() > kKeptFloats) {
    freed.push_back(std::move(pieces.front()));
    pieces.erase(pieces.begin());
  }
}

KeptMemory kept_memory() {
  const Lock lock(kept().mutex);
  return {static_cast<int64_t>(kept().pieces.size()), kept().floats()};
}

}  // namespace sparsejax
