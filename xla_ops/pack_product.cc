// Packs weights for product.h: rows to parts, columns to chunks, equal counts together.
#include "pack_product.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace sparsejax {
namespace {

void require(bool condition, const std::string& what) {
  if (!condition) throw std::invalid_argument("PackedProduct needs " + what);
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The nonzeros of a row, or the columns of a block of rows, in one chunk.
struct Line {
  std::vector<int32_t> rows;
  std::vector<int64_t> cols;
  std::vector<float> values;  // [column][row]
};

struct Columns {
  int64_t begin, end;
};

// One line for rows [first, first + block), the last row repeated where there are fewer.
Line line_of(const float* weights, int64_t rows, int64_t cols, int64_t first, int64_t block,
             Columns chunk) {
  Line line;
  for (int64_t r = 0; r < block; r++)
    line.rows.push_back(static_cast<int32_t>(std::min(first + r, rows - 1)));
  for (int64_t k = chunk.begin; k < chunk.end; k++) {
    const auto used = [&](int32_t row) { return weights[row * cols + k] != 0; };
    if (std::none_of(line.rows.begin(), line.rows.end(), used)) continue;
    line.cols.push_back(k);
    for (int32_t row : line.rows) line.values.push_back(weights[row * cols + k]);
  }
  return line;
}

// Gives a row `count` nonzeros by splitting its last into halves, quarters, ...: exact, and x is
// multiplied with nothing that it was not multiplied with before (0 times infinity is NaN).
void pad(Line& line, size_t count) {
  const size_t base = line.cols.size() - 1;
  for (size_t pieces = 1; line.cols.size() < count; pieces *= 2)
    for (size_t i = base; i < base + pieces && line.cols.size() < count; i++) {
      line.values[i] *= 0.5f;
      line.values.push_back(line.values[i]);
      line.cols.push_back(line.cols[i]);
    }
}

// Cuts `rows` into parts of about the same number of nonzeros, at multiples of `unit`.
std::vector<int32_t> parts_of(const float* weights, int64_t rows, int64_t cols, int64_t num_parts,
                              int64_t unit) {
  constexpr int64_t kRowCost = 8;  // a row's start and end, in nonzeros
  std::vector<int64_t> cost(rows + 1, 0);
  for (int64_t r = 0; r < rows; r++)
    cost[r + 1] =
        cost[r] + kRowCost + cols - std::count(weights + r * cols, weights + (r + 1) * cols, 0.f);
  std::vector<int32_t> begins;
  for (int64_t p = 0; p < num_parts; p++) {
    const auto at = std::lower_bound(cost.begin(), cost.end(), cost[rows] * p / num_parts);
    const int64_t row = ceil_div(at - cost.begin(), unit) * unit;
    begins.push_back(static_cast<int32_t>(std::min(row, rows)));
  }
  begins.push_back(static_cast<int32_t>(rows));
  return begins;
}

void check_sizes(int64_t rows, int64_t cols, int64_t pixels, int64_t x_pitch,
                 const ProductLayout& layout) {
  require(rows >= 1 && cols >= 1 && rows <= INT32_MAX, "rows and columns");
  require(pixels >= 1 && (x_pitch == 1 ? pixels == 1 : x_pitch >= pixels && x_pitch % 16 == 0),
          "a pitch of whole lines, or of 1 for one pixel, got " + std::to_string(x_pitch) +
              " for " + std::to_string(pixels) + " pixels");
  require(layout.tile >= 0 && layout.chunk_cols >= 0 && layout.num_parts >= 0,
          "no negative tile, columns or parts");
}

void check_block(Storage storage, int64_t block) {
  const bool power = block == 2 || block == 4 || block == 8;
  const bool one = block == 1 && storage == Storage::kRows;
  require(storage == Storage::kMasks ? block == 4 : power || one,
          "another block than " + std::to_string(block));
}

}  // namespace

// Appends groups to the arrays of a PackedProduct.
class PackedProduct::Packer {
 public:
  Packer(PackedProduct& out, const float* weights) : out_(out), weights_(weights) {}

  void chunk(int64_t part, Columns columns, bool middle) {
    const ProductMatrix& matrix = out_.matrix_;
    const int64_t runs = out_.runs_.size();
    first_col_ = columns.begin;
    starts_.push_back(
        {out_.values_.size(), out_.offsets_.size(), out_.runs_.size(), out_.rows_.size()});
    out_.chunks_.push_back({nullptr, nullptr, nullptr, 0, nullptr, columns.begin});
    std::vector<Line> lines;
    const int64_t height = matrix.storage == Storage::kRows ? 1 : matrix.block;
    for (int64_t row = out_.part_rows_[part]; row < out_.part_rows_[part + 1]; row += height)
      lines.push_back(line_of(weights_, matrix.rows, matrix.cols, row, height, columns));
    if (middle)  // neither bias nor activation: nothing to do for empty lines
      lines.erase(std::remove_if(lines.begin(), lines.end(),
                                 [](const Line& line) { return line.cols.empty(); }),
                  lines.end());
    if (matrix.storage == Storage::kMasks) {
      for (const Line& line : lines) masks(line);
    } else {
      std::stable_sort(lines.begin(), lines.end(),
                       [](const Line& a, const Line& b) { return a.cols.size() > b.cols.size(); });
      if (height > 1)
        for (const Line& line : lines) group({line});
      else
        interleave(std::move(lines));
    }
    out_.chunks_.back().num_runs = out_.runs_.size() - runs;
    run_begin_ = out_.runs_.size();
  }

  // Once all arrays are where they stay.
  void point() {
    for (int64_t i = 0; i < 64; i++) out_.values_.push_back(0), out_.offsets_.push_back(0);
    for (size_t i = 0; i < starts_.size(); i++) {
      ProductChunk& chunk = out_.chunks_[i];
      chunk.values = out_.values_.data() + starts_[i].values;
      chunk.offsets = out_.offsets_.data() + starts_[i].offsets;
      chunk.runs = out_.runs_.data() + starts_[i].runs;
      chunk.rows = out_.rows_.data() + starts_[i].rows;
    }
  }

 private:
  struct Start {
    size_t values, offsets, runs, rows;
  };

  void offset(int64_t col) {
    const int64_t pitch = out_.matrix_.x_pitch;
    const int64_t floats = (col - first_col_) * pitch;
    out_.offsets_.push_back(static_cast<uint16_t>(pitch == 1 ? floats : floats / 2));
  }

  void run(size_t count) {
    if (out_.runs_.size() > run_begin_ && out_.runs_.back().count == static_cast<int32_t>(count))
      out_.runs_.back().groups++;
    else
      out_.runs_.push_back({static_cast<int32_t>(count), 1});
  }

  // Lines of equal count next to each other: [nonzero][line].
  void group(const std::vector<Line>& lines) {
    const size_t count = lines[0].cols.size();
    for (const Line& line : lines)
      out_.rows_.insert(out_.rows_.end(), line.rows.begin(), line.rows.end());
    for (size_t i = 0; i < count; i++)
      for (const Line& line : lines) {
        const size_t height = line.rows.size();
        offset(line.cols[i]);
        out_.values_.insert(out_.values_.end(), line.values.begin() + i * height,
                            line.values.begin() + (i + 1) * height);
      }
    run(count);
  }

  // Rows without nonzeros share no group with others: they could only be padded with zeros.
  void interleave(std::vector<Line> lines) {
    const auto empty = std::find_if(lines.begin(), lines.end(),
                                    [](const Line& line) { return line.cols.empty(); });
    const size_t bounds[] = {0, static_cast<size_t>(empty - lines.begin()), lines.size()};
    const size_t block = out_.matrix_.block;
    for (int kind = 0; kind < 2; kind++)
      for (size_t i = bounds[kind]; i < bounds[kind + 1]; i += block) {
        std::vector<Line> taken;
        for (size_t r = i; r < i + block; r++)
          taken.push_back(lines[std::min(r, bounds[kind + 1] - 1)]);
        if (kind == 0)
          for (Line& line : taken) pad(line, taken[0].cols.size());
        group(taken);
      }
  }

  void masks(const Line& line) {
    out_.rows_.insert(out_.rows_.end(), line.rows.begin(), line.rows.end());
    for (int mask = 1; mask < 16; mask++) {
      int32_t count = 0;
      for (size_t i = 0; i < line.cols.size(); i++) {
        const float* values = line.values.data() + 4 * i;
        int used = 0;
        for (int r = 0; r < 4; r++) used |= (values[r] != 0) << r;
        if (used != mask) continue;
        count++;
        offset(line.cols[i]);
        for (int r = 0; r < 4; r++)
          if (values[r] != 0) out_.values_.push_back(values[r]);
      }
      out_.runs_.push_back({count, 1});
    }
  }

  PackedProduct& out_;
  const float* weights_;
  int64_t first_col_ = 0;
  size_t run_begin_ = 0;
  std::vector<Start> starts_;
};

PackedProduct::PackedProduct(const float* weights, int64_t rows, int64_t cols, int64_t pixels,
                             int64_t x_pitch, const ProductLayout& wanted,
                             const ProductKernels& kernels) {
  check_sizes(rows, cols, pixels, x_pitch, wanted);
  if (wanted.block != 0) check_block(wanted.storage, wanted.block);
  const ProductLayout& layout = layout_ =
      completed(wanted, weights, rows, cols, pixels, x_pitch, kernels);
  matrix_ = {rows,         cols,        x_pitch,          layout.storage,
             layout.block, layout.tile, layout.num_parts, ceil_div(cols, layout.chunk_cols),
             nullptr,      nullptr};
  const int64_t height = layout.storage == Storage::kRows ? 1 : layout.block;
  part_rows_ = parts_of(weights, rows, cols, layout.num_parts, x_pitch == 1 ? 16 : height);
  Packer packer(*this, weights);
  for (int64_t p = 0; p < matrix_.num_parts; p++)
    for (int64_t c = 0; c < matrix_.num_chunks; c++) {
      const int64_t begin = c * layout.chunk_cols;
      packer.chunk(p, {begin, std::min(cols, begin + layout.chunk_cols)},
                   c > 0 && c < matrix_.num_chunks - 1);
    }
  stored_ = values_.size();
  packer.point();
  matrix_.chunks = chunks_.data();
  matrix_.part_rows = part_rows_.data();
}

}  // namespace sparsejax
