// Memory that runs compute in: of several executables together, so that programs of many shapes
// keep no more than those that run at a time need.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "threads/machine.h"

namespace sparsejax {

// 64-byte aligned floats. Many come from the system and go back to it: an allocator would keep them
// for each thread that ever had some.
class Memory {
 public:
  static constexpr int64_t kMany = int64_t{1} << 16;

  explicit Memory(int64_t floats);
  ~Memory();
  Memory(const Memory&) = delete;
  float* data() { return data_; }
  int64_t floats() const { return floats_; }

 private:
  std::unique_ptr<float[]> owned_;  // null where the system's
  float* data_;
  int64_t floats_;
};

class KeptMemory {
 public:
  static constexpr int64_t kMostFloats = int64_t{1} << 26;  // 256 MB

  // At least `floats` floats with any content: the smallest kept one that has them, or a new one.
  std::unique_ptr<Memory> take(int64_t floats);

  // Keeps memory for later runs: never more pieces than the machine has threads (or 2), nor more
  // than kMostFloats together; the oldest are freed.
  void give(std::unique_ptr<Memory> memory);

  struct Amount {
    int64_t pieces, floats;
  };
  Amount amount();

 private:
  Amount counted() const;

  const int64_t most_ = std::max<int64_t>(2, num_machine_threads());
  Mutex mutex_;
  std::vector<std::unique_ptr<Memory>> pieces_;  // the oldest first
};

}  // namespace sparsejax
