// Memory that runs compute in: of all executables together, so that programs of many shapes keep no
// more than those that run at a time need.
#pragma once
#include <cstdint>
#include <memory>

namespace sparsejax {

// 64-byte aligned floats.
class Memory {
 public:
  explicit Memory(int64_t floats);
  float* data() { return data_; }
  int64_t floats() const { return floats_; }

 private:
  std::unique_ptr<float[]> owned_;
  float* data_;
  int64_t floats_;
};

// At least `floats` floats with any content: the smallest kept one that has them, or a new one.
std::unique_ptr<Memory> take_memory(int64_t floats);

// Keeps memory for later runs: never more pieces than the machine has threads (or 2), nor more
// than kKeptFloats together; the oldest are freed.
void give_memory(std::unique_ptr<Memory> memory);
constexpr int64_t kKeptFloats = int64_t{1} << 26;  // 256 MB

struct KeptMemory {
  int64_t pieces, floats;
};
KeptMemory kept_memory();

}  // namespace sparsejax
