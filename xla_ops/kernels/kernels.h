// The kernels of the instruction set in use, chosen once when the extension is loaded.
#pragma once
#include <string>
#include <vector>

#include "kernels/bcr.h"
#include "kernels/depthwise.h"
#include "kernels/elementwise.h"
#include "kernels/product.h"
#include "kernels/spmm.h"
#include "kernels/window.h"

namespace sparsejax {

struct Kernels {
  const char* isa;
  const SpmmKernels* spmm;
  const BcrKernels* bcr;
  const DepthwiseKernels* depthwise;
  const DepthwisePlaneKernels* depthwise_planes;
  const WindowKernels* window;
  const ElementwiseKernels* elementwise;
  const ProductKernels* product;
};

// Those that were built and that this CPU can run, best first; never empty.
const std::vector<Kernels>& usable_kernels();

// The set in use; the best one until `use` says otherwise.
const Kernels& kernels();

// Selects a set by name; false if it is not among the usable ones.
bool use(const std::string& isa);

}  // namespace sparsejax
