// Memory that a thread keeps between calls.
#pragma once
#include <cstdint>
#include <vector>

namespace sparsejax {

// At least `floats` floats, 64-byte aligned, with any content; valid until this thread asks again.
inline float* scratch(int64_t floats) {
  thread_local std::vector<float> memory;
  if (static_cast<int64_t>(memory.size()) < floats + 16) memory.resize(floats + 16);
  const auto address = reinterpret_cast<uintptr_t>(memory.data());
  return memory.data() + ((64 - address % 64) % 64) / sizeof(float);
}

}  // namespace sparsejax
