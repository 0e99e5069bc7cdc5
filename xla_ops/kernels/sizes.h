// Sizes in whole parts.
#pragma once
#include <cstdint>

namespace sparsejax {

// Always inlined: what is compiled for one instruction set must not be merged into another's code.
__attribute__((always_inline)) constexpr int64_t divide_up(int64_t size, int64_t part) {
  return (size + part - 1) / part;
}

__attribute__((always_inline)) constexpr int64_t round_up(int64_t size, int64_t part) {
  return divide_up(size, part) * part;
}

}  // namespace sparsejax
