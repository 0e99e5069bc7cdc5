// Safetensors: eight bytes with the length of a JSON header, the header, the tensors' bytes.
//
// Nothing is allocated but what the header needs, a constant times its length; tensors are where
// they lie in the file, at any address.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/problem.h"

namespace sparsejax {

enum class DType { kF32, kF16, kU8, kU16 };

struct Tensor {
  DType dtype;
  const uint8_t* data;
  int64_t elements, bytes;
};

struct Container {
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;
};

// Tensors fill the file without holes and do not overlap, so that all of them together are no
// larger than it. False where `problem` says what is wrong.
bool read_container(const uint8_t* bytes, int64_t size, Container& container, Problem& problem);

}  // namespace sparsejax
