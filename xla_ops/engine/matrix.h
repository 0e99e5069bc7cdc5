// What a sparse matrix needs before the kernels may trust it: checks, chunk boundaries, the
// transpose.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/spmm.h"

namespace sparsejax {

// Structure of a rows x cols matrix in blocks of `block` x 1, as it arrives from outside.
struct Structure {
  int64_t rows, cols, block, num_nonzeros;  // num_nonzeros counts blocks
  const int32_t* indices;                   // [num_nonzeros]
  const int32_t* row_starts;                // [rows / block + 1]
};

// What is wrong with it, as "indices must ..., got ..."; empty if nothing is.
std::string problem(const Structure& structure);

// A valid matrix with the storage of its chunk boundaries. The arrays behind `structure` and
// `values` must outlive it.
struct ChunkedMatrix {
  SparseMatrix matrix;
  std::vector<int32_t> boundaries;
};
ChunkedMatrix chunked(const Structure& structure, const float* values, int64_t chunk_cols);

// The transpose, in 1x1 blocks: cols x rows.
struct Transposed {
  int64_t rows, cols;
  std::vector<int32_t> row_starts, indices;
  std::vector<float> values;

  Structure structure() const {
    return {rows, cols, 1, static_cast<int64_t>(indices.size()), indices.data(), row_starts.data()};
  }
};
Transposed transposed(const Structure& structure, const float* values);

}  // namespace sparsejax
