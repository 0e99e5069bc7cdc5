// Owned, packed weights for product.h.
#pragma once
#include <vector>

#include "kernels/product.h"

namespace sparsejax {

// What is 0 is chosen.
struct ProductLayout {
  Storage storage;
  int64_t block;       // rows interleaved (kRows: 1, 2, 4, 8), block height (kBlocks: 2, 4, 8), 4
                       // (kMasks)
  int64_t tile;        // vectors of pixels that a pass takes
  int64_t chunk_cols;  // columns of a chunk
  int64_t num_parts;   // groups of rows
};

// Is there a kernel for it?
bool is_layout(const ProductLayout& layout);

int64_t count_nonzeros(const float* weights, int64_t n);

// `wanted` with what is 0 replaced by what suits.
ProductLayout completed(const ProductLayout& wanted, const float* weights, int64_t rows,
                        int64_t cols, int64_t pixels, int64_t x_pitch,
                        const ProductKernels& kernels);

class PackedProduct {
 public:
  // weights[rows][cols], neither of them 0; zeros are left out, but those within blocks. x_pitch is
  // 1 for one pixel, else 4, 8 or a multiple of 16 that is not below `pixels`; is_layout(layout).
  PackedProduct(const float* weights, int64_t rows, int64_t cols, int64_t pixels, int64_t x_pitch,
                const ProductLayout& layout, const ProductKernels& kernels);
  PackedProduct(PackedProduct&&) = default;  // a copy's matrix would point into the original
  const ProductMatrix& matrix() const { return matrix_; }
  const ProductLayout& layout() const { return layout_; }  // nothing of it is 0
  int64_t stored() const { return stored_; }               // values, padding included
  int64_t bytes() const;                                   // of all arrays

 private:
  class Packer;
  ProductMatrix matrix_;
  ProductLayout layout_;
  int64_t stored_ = 0;
  std::vector<float> values_;
  std::vector<uint16_t> columns_;
  std::vector<ProductRun> runs_;
  std::vector<int32_t> rows_;
  std::vector<ProductChunk> chunks_;
  std::vector<int32_t> part_rows_;
};

}  // namespace sparsejax
