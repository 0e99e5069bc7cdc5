// Memory for what a kernel computes on the way.
#pragma once
#include <cstdint>
#include <memory>

namespace sparsejax {

// At least `floats` floats, 64-byte aligned, with any content, for as long as the object lives. A
// thread keeps at most kKept floats (4 MB) for its next call; what is larger is freed at the end.
class Scratch {
 public:
  static constexpr int64_t kKept = int64_t{1} << 20;

  explicit Scratch(int64_t floats) {
    Block& kept = this_thread();
    taken_ = floats <= kKept && !kept.in_use;
    Block& block = taken_ ? kept : own_;
    if (block.floats < floats) block = allocated(floats);
    block.in_use = true;
    const auto address = reinterpret_cast<uintptr_t>(block.memory.get());
    data_ = block.memory.get() + ((64 - address % 64) % 64) / sizeof(float);
  }
  ~Scratch() {
    if (taken_) this_thread().in_use = false;
  }
  Scratch(const Scratch&) = delete;

  float* data() const { return data_; }

  // That this thread keeps between calls.
  static int64_t kept_floats() { return this_thread().floats; }

 private:
  struct Block {
    std::unique_ptr<float[]> memory;
    int64_t floats = 0;
    bool in_use = false;
  };
  static Block& this_thread() {
    static thread_local Block block;
    return block;
  }
  static Block allocated(int64_t floats) {
    return {std::unique_ptr<float[]>(new float[floats + 16]), floats, false};
  }

  bool taken_;  // of what the thread keeps
  Block own_;
  float* data_;
};

}  // namespace sparsejax
