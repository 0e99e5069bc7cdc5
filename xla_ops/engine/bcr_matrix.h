// What a matrix of runs needs before the kernels may trust it: checks, the transpose, groups of
// runs for threads.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/bcr.h"

namespace sparsejax {

// How long the arrays behind a BcrMatrix are, as they arrive from outside.
struct BcrLengths {
  int64_t values, rows, columns;
};

// What is wrong with it, as "columns must ..., got ..."; empty if nothing is.
std::string problem(const BcrMatrix& matrix, const BcrLengths& lengths);

// The transpose with the storage of its values; all else is shared with the matrix.
struct BcrTransposed {
  BcrMatrix matrix;
  std::vector<float> values;
};
BcrTransposed transposed(const BcrMatrix& matrix);

// At most `num_groups` groups of about equally many values, cut where no row goes on, and the rows
// that they write; together they have every row once.
struct BcrGroups {
  std::vector<BcrGroup> groups;
  std::vector<int32_t> rows;
};
BcrGroups grouped(const BcrMatrix& matrix, int64_t num_groups);

}  // namespace sparsejax
