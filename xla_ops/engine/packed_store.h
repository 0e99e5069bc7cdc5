// Packed weights by what they contain: executables of other shapes share those of equal weights.
#pragma once
#include <memory>

#include "engine/pack_product.h"

namespace sparsejax {

// PackedProduct(...) of these, or one that is alive and was made of equal ones for the same
// kernels. Equal are weights whose digest of 128 bits is.
std::shared_ptr<const PackedProduct> packed_product(const ProductWeights& weights, int64_t pixels,
                                                    int64_t x_pitch, const ProductLayout& layout,
                                                    const ProductKernels& kernels);

// That the packed weights of the process take, each counted once.
int64_t packed_bytes();

}  // namespace sparsejax
