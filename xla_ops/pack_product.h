// Owned, packed weights for product.h.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "product.h"

namespace sparsejax {

struct ProductLayout {
  Storage storage;
  int64_t block;       // rows interleaved (kRows: 1, 2, 4), block height (kBlocks: 1, 2, 4, 8), 4 (kMasks)
  int64_t tile;        // vectors of pixels a pass takes, 0 = what suits
  int64_t chunk_cols;  // columns of a chunk, 0 = what suits
  int64_t num_parts;   // groups of rows, 0 = what suits
};

class PackedProduct {
 public:
  // weights[rows][cols], zeros are left out (but those within a block, and padding). Throws
  // std::invalid_argument when the layout cannot hold them.
  PackedProduct(const float* weights, int64_t rows, int64_t cols, int64_t pixels, int64_t x_pitch,
                ProductLayout layout, int64_t lanes);
  const ProductMatrix& matrix() const { return matrix_; }
  int64_t stored() const { return stored_; }  // values, padding included

 private:
  ProductMatrix matrix_;
  int64_t stored_ = 0;
  std::vector<float> values_;
  std::vector<uint16_t> offsets_;
  std::vector<ProductRun> runs_;
  std::vector<int32_t> rows_;
  std::vector<ProductChunk> chunks_;
};

}  // namespace sparsejax
