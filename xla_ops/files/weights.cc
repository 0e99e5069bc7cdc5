// Decodes weights; see weights.h.
#include "files/weights.h"

#include <algorithm>
#include <cstring>

namespace sparsejax {
namespace {

constexpr int64_t kMostBlock = 8;

uint16_t short_at(const Tensor& tensor, int64_t i) {
  return static_cast<uint16_t>(tensor.data[2 * i] | tensor.data[2 * i + 1] << 8);
}

float half(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16, exponent = bits >> 10 & 31;
  const uint32_t fraction = bits & 1023;
  if (exponent == 0) {  // zero, or a denormal: fraction / 2^24
    const float value = static_cast<float>(fraction) / 16777216.f;
    return sign ? -value : value;
  }
  const uint32_t wide = sign | (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return value;
}

struct Cells {
  int64_t rows, cols, block, count;
};

Cells cells_of(const StoredWeights& stored, int64_t rows, int64_t cols) {
  return {rows, cols, stored.block, (rows + stored.block - 1) / stored.block * cols};
}

// Writes cell after cell, each further along than the one before.
class Writer {
 public:
  Writer(const StoredWeights& stored, const Cells& cells, float* out)
      : values_(*stored.values), cells_(cells), out_(out) {}

  // False where no value is left.
  bool write(int64_t cell) {
    if (next_ + cells_.block > values_.elements) return false;
    const int64_t row = cell / cells_.cols * cells_.block, col = cell % cells_.cols;
    const int64_t rows = std::min(cells_.block, cells_.rows - row);
    for (int64_t r = 0; r < rows; r++)
      out_[(row + r) * cells_.cols + col] = float_at(values_, next_ + r);
    next_ += cells_.block;
    return true;
  }
  bool is_done() const { return next_ == values_.elements; }

 private:
  const Tensor& values_;
  const Cells& cells_;
  float* out_;
  int64_t next_ = 0;
};

bool write_masked(const Tensor& mask, int64_t count, Writer& writer) {
  for (int64_t cell = 0; cell < count; cell++)
    if (mask.data[cell / 8] >> cell % 8 & 1 && !writer.write(cell)) return false;
  return true;
}

bool write_gaps(const Tensor& gaps, int64_t count, Writer& writer) {
  const bool wide = gaps.dtype == DType::kU16;
  const int64_t most = wide ? 65535 : 255;
  int64_t cell = 0;
  for (int64_t i = 0; i < gaps.elements; i++) {
    const int64_t gap = wide ? short_at(gaps, i) : gaps.data[i];
    if (gap > count - cell) return false;
    cell += gap;
    if (gap == most) continue;
    if (cell == count) return i + 1 == gaps.elements;  // the cells behind the last value
    if (!writer.write(cell++)) return false;
  }
  return cell == count;
}

bool is_float(const Tensor& tensor) {
  return tensor.dtype == DType::kF32 || tensor.dtype == DType::kF16;
}

bool has_index(const StoredWeights& stored, int64_t count) {
  if (stored.form == Form::kAll) return stored.values->elements == count * stored.block;
  if (!stored.where) return false;
  const DType dtype = stored.where->dtype;
  if (stored.form == Form::kMask)
    return dtype == DType::kU8 && stored.where->bytes == (count + 7) / 8;
  return dtype == DType::kU8 || dtype == DType::kU16;
}

}  // namespace

float float_at(const Tensor& tensor, int64_t i) {
  if (tensor.dtype == DType::kF16) return half(short_at(tensor, i));
  float value;
  std::memcpy(&value, tensor.data + 4 * i, sizeof(value));
  return value;
}

bool check_weights(const StoredWeights& stored, int64_t rows, int64_t cols, Problem& problem) {
  const int64_t block = stored.block;
  const bool known = (block & (block - 1)) == 0 && block >= 1 && block <= kMostBlock;
  if (!problem.need(known && stored.values && is_float(*stored.values),
                    "weights are stored in a way this reader does not know"))
    return false;
  const int64_t bytes = stored.values->bytes + (stored.where ? stored.where->bytes : 0);
  return problem.need(rows * cols <= bytes * (kMostExpansion / 4),
                      "weights are more than their bytes can hold") &&
         problem.need(has_index(stored, cells_of(stored, rows, cols).count),
                      "weights do not have the shape of their layer");
}

bool decode_weights(const StoredWeights& stored, int64_t rows, int64_t cols, float* out,
                    Problem& problem) {
  const Cells cells = cells_of(stored, rows, cols);
  Writer writer(stored, cells, out);
  bool written = true;
  if (stored.form == Form::kAll)
    for (int64_t cell = 0; cell < cells.count; cell++) writer.write(cell);
  if (stored.form == Form::kMask) written = write_masked(*stored.where, cells.count, writer);
  if (stored.form == Form::kGaps) written = write_gaps(*stored.where, cells.count, writer);
  return problem.need(written && writer.is_done(), "weights do not fit where they belong");
}

}  // namespace sparsejax
