// Sparse matrix times dense activations, fp32: y = activation(W x + bias), and its gradient in W's
// values.
//
// W has `rows` x `cols` in blocks of `block` x 1 (1 = CSR): values[nonzero][block],
// indices[nonzero] ascending within a block row. Channel-major images are x[cols][pixels] and
// y[rows][pixels]; channels-last ones x[pixels][cols] and y[pixels][rows]. Nothing is aligned;
// inputs and outputs do not overlap.
#pragma once
#include <cstdint>

#include "kernels/activation.h"

namespace sparsejax {

// Columns are taken in chunks, so that a packed tile of x (chunk columns x tile pixels) stays in
// half of a second-level cache. Block row r of chunk c owns the nonzeros begins[c * chunk_stride +
// r] ... ends[c * chunk_stride + r].
struct SparseMatrix {
  int64_t rows, cols, block;
  const float* values;
  const int32_t* indices;
  const int32_t *begins, *ends;
  int64_t num_chunks, chunk_cols, chunk_stride;
};

struct SpmmCall {
  SparseMatrix matrix;
  const float* bias;  // may be null
  Activation activation;
  bool channels_last;
  int64_t pixels;  // of one image
};

struct SpmmKernels {
  int64_t tile_pixels;  // pixels a tile may have at most
  int64_t chunk_cols;   // columns a chunk should have
  // Computes block rows [row_begin, row_end) at pixels [first, first + count) of one image, count
  // <= tile_pixels. Tiles may run on any threads. Scratch: 64-byte aligned, (chunk_cols + rows of
  // the tile) * tile_pixels floats.
  void (*tile)(const SpmmCall& call, const float* x, float* y, int64_t first, int64_t count,
               int64_t row_begin, int64_t row_end, float* scratch);
  // Adds to grad_values and grad_bias (of those block rows) what those pixels say. Scratch as
  // above.
  void (*grad_values_tile)(const SpmmCall& call, const float* x, const float* grad_y, int64_t first,
                           int64_t count, int64_t row_begin, int64_t row_end, float* grad_values,
                           float* grad_bias, float* scratch);
};

}  // namespace sparsejax
