// Matrices of weights as files store them: the values of what is not zero, and where they are.
//
// The rows are taken in groups of `block`, so that a cell is `block` weights below each other;
// cells count along the columns, then down the groups. Cells that are not zero are stored with all
// their weights (rows beyond the last are zero). Where they are is said by a bit a cell (kMask, the
// lowest bit of a byte first), or by the gaps before them (kGaps): g < most passes g cells and then
// takes one, g == most passes so many and takes none, up to the last cell. kAll stores every cell.
#pragma once
#include "files/container.h"

namespace sparsejax {

enum class Form : int64_t { kAll = 0, kMask = 1, kGaps = 2 };

// Bytes of float32 weights for each stored byte at most: a file cannot ask for more.
constexpr int64_t kMostExpansion = 1024;

struct StoredWeights {
  Form form;
  int64_t block;
  const Tensor* values;  // float32 or float16
  const Tensor* where;   // uint8, gaps also uint16; null for kAll
};

// Can so many weights be stored so? Before anything is allocated for them.
bool check_weights(const StoredWeights& stored, int64_t rows, int64_t cols, Problem& problem);

// out[rows][cols], zeros so far; weights that check_weights has passed.
bool decode_weights(const StoredWeights& stored, int64_t rows, int64_t cols, float* out,
                    Problem& problem);

// Of a float32 or float16 tensor.
float float_at(const Tensor& tensor, int64_t i);

}  // namespace sparsejax
