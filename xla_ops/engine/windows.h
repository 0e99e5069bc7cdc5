// Which nonzeros of a group of rows a kernel of one pixel takes together (ProductChunk::windows).
#pragma once
#include <cstdint>
#include <vector>

namespace sparsejax {

constexpr int kWindowRows = 8;

// Columns of a row's nonzeros in one chunk, ascending; the rows of a group have equally many.
struct Ascending {
  const int64_t* columns;
  int64_t count;
};

// In which order a group's nonzeros are stored: first those that come in windows.
struct Windows {
  std::vector<int64_t> starts;
  std::vector<int64_t> order[kWindowRows];
};

// As many windows of `width` columns as the rows have two nonzeros each in, one behind the other;
// what they skip follows. They begin at multiples of 16 columns, where vectors of x do, and end in
// front of column `end`.
Windows windows_of(const Ascending* rows, int64_t width, int64_t end);

}  // namespace sparsejax
