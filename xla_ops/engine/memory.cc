// See memory.h.
#include "engine/memory.h"

#include <cstring>

// A sanitizer sees what lies beside the allocator's memory alone.
#if (defined(__linux__) || defined(__APPLE__)) && !defined(__SANITIZE_ADDRESS__)
#define SPARSEJAX_MAPS_MEMORY 1
#include <sys/mman.h>
#else
#define SPARSEJAX_MAPS_MEMORY 0
#endif

namespace sparsejax {

Memory::Memory(int64_t floats) : floats_(floats) {
#if SPARSEJAX_MAPS_MEMORY
  if (floats >= kMany) {
    void* pages = mmap(nullptr, floats * sizeof(float), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages != MAP_FAILED) {
      data_ = static_cast<float*>(pages);
      return;
    }
  }
#endif
  owned_.reset(new float[floats + 16]);
  const auto address = reinterpret_cast<uintptr_t>(owned_.get());
  data_ = owned_.get() + ((64 - address % 64) % 64) / sizeof(float);
  std::memset(owned_.get(), 0, (floats + 16) * sizeof(float));
}

Memory::~Memory() {
#if SPARSEJAX_MAPS_MEMORY
  if (!owned_) munmap(data_, floats_ * sizeof(float));
#endif
}

std::unique_ptr<Memory> KeptMemory::take(int64_t floats) {
  {
    const Lock lock(mutex_);
    auto best = pieces_.end();
    for (auto it = pieces_.begin(); it != pieces_.end(); ++it)
      if ((*it)->floats() >= floats &&
          (best == pieces_.end() || (*it)->floats() < (*best)->floats()))
        best = it;
    if (best != pieces_.end()) {
      std::unique_ptr<Memory> memory = std::move(*best);
      pieces_.erase(best);
      return memory;
    }
  }
  return std::make_unique<Memory>(floats);
}

void KeptMemory::give(std::unique_ptr<Memory> memory) {
  std::vector<std::unique_ptr<Memory>> freed;  // when the lock is gone
  const Lock lock(mutex_);
  pieces_.push_back(std::move(memory));
  while (counted().pieces > most_ || counted().floats > kMostFloats) {
    freed.push_back(std::move(pieces_.front()));
    pieces_.erase(pieces_.begin());
  }
}

KeptMemory::Amount KeptMemory::amount() {
  const Lock lock(mutex_);
  return counted();
}

KeptMemory::Amount KeptMemory::counted() const {
  int64_t floats = 0;
  for (const auto& piece : pieces_) floats += piece->floats();
  return {static_cast<int64_t>(pieces_.size()), floats};
}

}  // namespace sparsejax
