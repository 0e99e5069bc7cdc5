// The kernels of one instruction set.
#pragma once

namespace sparsejax {

#define TABLE(Type, file) struct Type;
#include "kernels/kernels.def"

struct Kernels {
  const char* isa;
#define TABLE(Type, file) const Type* file;
#include "kernels/kernels.def"
};

}  // namespace sparsejax
