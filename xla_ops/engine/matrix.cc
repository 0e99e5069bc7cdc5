// Checks, chunk boundaries and transpose of sparse matrices; see matrix.h.
#include "engine/matrix.h"

#include "kernels/sizes.h"

namespace sparsejax {
namespace {

std::string at(const char* array, int64_t i, int64_t value) {
  return std::string(array) + "[" + std::to_string(i) + "] = " + std::to_string(value);
}

// Says which index of a row is wrong; only called when one is.
std::string index_problem(const Structure& s, int64_t row) {
  for (int64_t i = s.row_starts[row]; i < s.row_starts[row + 1]; i++) {
    if (s.indices[i] < 0 || s.indices[i] >= s.cols)
      return "indices must be in [0, " + std::to_string(s.cols) + "), got " +
             at("indices", i, s.indices[i]);
    if (i > s.row_starts[row] && s.indices[i] <= s.indices[i - 1])
      return "indices must ascend within a row, got " + at("indices", i - 1, s.indices[i - 1]) +
             " before " + at("indices", i, s.indices[i]);
  }
  return "";
}

}  // namespace

std::string problem(const Structure& s) {
  const int64_t num_rows = s.rows / s.block;
  if (s.row_starts[0] != 0)
    return "row_starts must begin with 0, got " + at("row_starts", 0, s.row_starts[0]);
  for (int64_t r = 0; r < num_rows; r++) {
    if (s.row_starts[r + 1] < s.row_starts[r])
      return "row_starts must not decrease, got " + at("row_starts", r, s.row_starts[r]) +
             " before " + at("row_starts", r + 1, s.row_starts[r + 1]);
  }
  if (s.row_starts[num_rows] != s.num_nonzeros)
    return "row_starts must end with the number of nonzeros, " + std::to_string(s.num_nonzeros) +
           ", got " + at("row_starts", num_rows, s.row_starts[num_rows]);
  for (int64_t r = 0; r < num_rows; r++) {
    const int64_t begin = s.row_starts[r], end = s.row_starts[r + 1];
    if (begin == end) continue;
    int descents = s.indices[begin] < 0 || s.indices[end - 1] >= s.cols;
    for (int64_t i = begin + 1; i < end; i++) descents |= s.indices[i] <= s.indices[i - 1];
    if (descents) return index_problem(s, r);
  }
  return "";
}

ChunkedMatrix chunked(const Structure& s, const float* values, int64_t chunk_cols) {
  const int64_t num_rows = s.rows / s.block;
  const int64_t num_chunks = s.cols <= chunk_cols ? 1 : divide_up(s.cols, chunk_cols);
  // Chunks of equal size: a short last one costs as much per row as a full one.
  const int64_t equal_cols = s.cols ? divide_up(s.cols, num_chunks) : 1;
  ChunkedMatrix out;
  out.matrix = {s.rows,       s.cols,           s.block,    values,     s.indices,
                s.row_starts, s.row_starts + 1, num_chunks, equal_cols, num_rows};
  if (num_chunks == 1) return out;
  out.boundaries.resize((num_chunks + 1) * num_rows);
  int32_t* boundaries = out.boundaries.data();
  for (int64_t r = 0; r < num_rows; r++) {
    int64_t i = s.row_starts[r];
    const int64_t end = s.row_starts[r + 1];
    for (int64_t c = 0; c < num_chunks; c++) {
      boundaries[c * num_rows + r] = static_cast<int32_t>(i);
      const int64_t limit = (c + 1) * equal_cols;
      while (i < end && s.indices[i] < limit) i++;
    }
    boundaries[num_chunks * num_rows + r] = static_cast<int32_t>(end);
  }
  out.matrix.begins = boundaries;
  out.matrix.ends = boundaries + num_rows;
  return out;
}

Transposed transposed(const Structure& s, const float* values) {
  Transposed out = {s.cols, s.rows, {}, {}, {}};
  out.row_starts.assign(s.cols + 1, 0);
  out.indices.resize(s.num_nonzeros * s.block);
  out.values.resize(s.num_nonzeros * s.block);
  for (int64_t i = 0; i < s.num_nonzeros; i++) out.row_starts[s.indices[i] + 1] += s.block;
  for (int64_t c = 0; c < s.cols; c++) out.row_starts[c + 1] += out.row_starts[c];
  std::vector<int32_t> next(out.row_starts.begin(), out.row_starts.end() - 1);
  for (int64_t r = 0; r < s.rows / s.block; r++)
    for (int64_t i = s.row_starts[r]; i < s.row_starts[r + 1]; i++)
      for (int64_t b = 0; b < s.block; b++) {
        const int32_t to = next[s.indices[i]]++;
        out.indices[to] = static_cast<int32_t>(r * s.block + b);
        out.values[to] = values[i * s.block + b];
      }
  return out;
}

}  // namespace sparsejax
