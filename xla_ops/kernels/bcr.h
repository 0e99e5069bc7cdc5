// Products of matrices whose rows share lists of columns (block-based column-row pruning), fp32:
// y = activation(W x + bias), and the gradient in W's values.
//
// W is a sum of runs. Run r is dense over the rows `rows[run_starts[r]]` ... and the columns
// `columns[column_starts[r]]` ..., both ascending; its values begin at `value_starts[r]`, as
// [column][row], so that one load of x feeds all rows of the run. Channel-major images are
// x[num_cols][pixels] and y[num_rows][pixels]; channels-last ones x[pixels][num_cols] and
// y[pixels][num_rows]. Nothing is aligned; inputs and outputs do not overlap.
#pragma once
#include <cstdint>

#include "kernels/spmm.h"

namespace sparsejax {

struct BcrMatrix {
  int64_t num_rows, num_cols, num_runs;
  const float* values;
  const int32_t *rows, *run_starts, *columns, *column_starts, *value_starts;
};

struct BcrCall {
  BcrMatrix matrix;
  const float* bias;  // may be null
  Activation activation;
  bool channels_last;
  int64_t pixels;  // of one image
};

// Runs [run_begin, run_end) and the rows that they write; no other run writes these.
struct BcrGroup {
  int64_t run_begin, run_end;
  const int32_t* rows;
  int64_t num_rows;
};

struct BcrKernels {
  int64_t tile_pixels;  // pixels a tile may have at most
  // Computes the rows of a group at pixels [first, first + count) of one image, count <=
  // tile_pixels. Tiles and groups may run on any threads. Scratch: 64-byte aligned, (num_cols +
  // num_rows) * (count rounded up to whole vectors) floats; a vector has at most 16.
  void (*tile)(const BcrCall& call, const BcrGroup& group, const float* x, float* y, int64_t first,
               int64_t count, float* scratch);
  // Adds to grad_values of runs [run_begin, run_end) what those pixels say. Scratch as above.
  void (*grad_values_tile)(const BcrCall& call, int64_t run_begin, int64_t run_end, const float* x,
                           const float* grad_y, int64_t first, int64_t count, float* grad_values,
                           float* scratch);
};

}  // namespace sparsejax
