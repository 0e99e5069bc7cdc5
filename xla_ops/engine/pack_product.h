// Owned, packed weights for product.h.
#pragma once
#include <vector>

#include "kernels/product.h"

namespace sparsejax {

// What is 0 is chosen.
struct ProductLayout {
  Storage storage;
  int64_t block;       // rows interleaved (kRows: 1, 2, 4, 8), block height (kBlocks: 2, 4, 8), 4
                       // (kMasks), 1 (kColumns)
  int64_t tile;        // vectors of pixels that a pass takes
  int64_t chunk_cols;  // columns of a chunk
  int64_t num_parts;   // groups of rows
};

// Is there a kernel for it?
bool is_layout(const ProductLayout& layout);

// Where columns begin in x, in units of 4 floats: column k of tap k % taps.size() at
// k / taps.size() * channel + that tap's place. Without taps they are x_pitch floats apart.
struct ColumnPlaces {
  std::vector<int64_t> taps;
  int64_t channel = 0;  // a chunk's places are 16 bits: 2 * channel <= 65536
};

struct ProductWeights {
  const float* floats;  // [rows][cols / groups]
  int64_t rows, cols;   // neither of them 0
  int64_t groups = 1;   // of rows, each with columns of its own
  ColumnPlaces places = {};
  bool alone = false;  // may strips have one pixel?

  int64_t group_rows() const { return rows / groups; }
  int64_t group_cols() const { return cols / groups; }
  // Do blocks of so many rows lie within groups? Others would meet what they must not.
  bool may_have(Storage storage, int64_t block) const {
    if (kSkipsZeros && storage == Storage::kColumns) return groups == 1;
    return groups == 1 || storage == Storage::kRows || group_rows() % block == 0;
  }
};

int64_t count_nonzeros(const float* weights, int64_t n);

// `wanted` with what is 0 replaced by what suits. Chunks are of the columns of a part's groups.
ProductLayout completed(const ProductLayout& wanted, const ProductWeights& weights, int64_t pixels,
                        int64_t x_pitch, const ProductKernels& kernels);

class PackedProduct {
 public:
  // Zeros are left out, but those within blocks. x_pitch is 1 for one pixel, else 4, 8 or a
  // multiple of 16 that is not below `pixels`, and about what a channel's taps share where columns
  // have places; is_layout(layout) and weights.may_have(it).
  PackedProduct(const ProductWeights& weights, int64_t pixels, int64_t x_pitch,
                const ProductLayout& layout, const ProductKernels& kernels);
  PackedProduct(PackedProduct&&) = default;  // a copy's matrix would point into the original
  const ProductMatrix& matrix() const { return matrix_; }
  const ProductLayout& layout() const { return layout_; }  // nothing of it is 0
  int64_t stored() const { return stored_; }               // values, padding included
  int64_t bytes() const;                                   // of all arrays
  bool has_places() const { return has_places_; }          // calls have x_pitch = 4 then

  // The matrix with column k multiplied by gate[k], its stored() values in `values`; not of columns
  // with places.
  ProductMatrix gated(const float* gate, float* values, std::vector<ProductChunk>& chunks) const;

 private:
  class Packer;
  ProductMatrix matrix_;
  ProductLayout layout_;
  int64_t stored_ = 0;
  bool has_places_ = false;
  std::vector<float> values_;
  std::vector<uint16_t> columns_;
  std::vector<ProductRun> runs_;
  std::vector<int32_t> rows_;
  std::vector<uint16_t> windows_;
  std::vector<ProductChunk> chunks_;
  std::vector<int32_t> part_rows_;
};

}  // namespace sparsejax
