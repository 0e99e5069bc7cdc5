// Packs weights for product.h: rows to parts, columns to chunks, equal counts together.
#include "engine/pack_product.h"

#include <algorithm>

#include "engine/windows.h"
#include "kernels/sizes.h"

namespace sparsejax {
namespace {

struct Columns {
  int64_t begin, end;
};

// The nonzeros of a row, or the columns of a block of rows, in one chunk: where they are among all
// that were read.
struct Line {
  int64_t row;
  size_t begin, count;
};

// Whole groups, where there are several, about as many to each part. Else cuts `rows` into parts of
// about the same number of nonzeros, which begin at multiples of 16, for blocks.
std::vector<int32_t> parts_of(const ProductWeights& weights, int64_t num_parts) {
  const int64_t rows = weights.rows, cols = weights.cols, groups = weights.groups;
  std::vector<int32_t> begins;
  for (int64_t p = 0; p <= num_parts && groups > 1; p++)
    begins.push_back(static_cast<int32_t>(groups * p / num_parts * weights.group_rows()));
  if (groups > 1) return begins;
  constexpr int64_t kRowCost = 8;  // a row's start and end, in nonzeros
  std::vector<int64_t> cost(rows + 1, 0);
  for (int64_t r = 0; r < rows; r++)
    cost[r + 1] = cost[r] + kRowCost + count_nonzeros(weights.floats + r * cols, cols);
  for (int64_t p = 0; p < num_parts; p++) {
    const auto at = std::lower_bound(cost.begin(), cost.end(), cost[rows] * p / num_parts);
    const int64_t row = round_up(at - cost.begin(), 16);
    begins.push_back(static_cast<int32_t>(std::min(row, rows)));
  }
  begins.push_back(static_cast<int32_t>(rows));
  return begins;
}

}  // namespace

bool is_layout(const ProductLayout& l) {
  if (l.tile < 0 || l.chunk_cols < 0 || l.num_parts < 0) return false;
  if (kSkipsZeros && l.storage == Storage::kColumns) return l.block <= 1;
  if (l.block == 0) return true;
  if (l.storage == Storage::kMasks) return l.block == 4;
  return l.block == 2 || l.block == 4 || l.block == 8 ||
         (l.block == 1 && l.storage == Storage::kRows);
}

int64_t count_nonzeros(const float* weights, int64_t n) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; i++) count += weights[i] != 0;
  return count;
}

// Appends groups to the arrays of a PackedProduct.
class PackedProduct::Packer {
 public:
  Packer(PackedProduct& out, const ProductWeights& weights, int64_t lanes)
      : out_(out),
        matrix_(out.matrix_),
        weights_(weights),
        height_(matrix_.storage == Storage::kRows ? 1 : matrix_.block),
        lanes_(lanes),
        window_(weights.alone ? window_of(matrix_.storage, matrix_.block, lanes) : 0) {}

  // Columns that the rows of a part have.
  Columns columns_of(int64_t part) const {
    const int64_t first = out_.part_rows_[part], end = out_.part_rows_[part + 1];
    const int64_t rows = weights_.group_rows(), cols = weights_.group_cols();
    return {first / rows * cols, divide_up(end, rows) * cols};
  }

  void chunk(int64_t part, Columns columns, bool middle) {
    const auto taps = static_cast<int64_t>(weights_.places.taps.size());
    first_col_ = taps ? columns.begin / taps * weights_.places.channel : columns.begin;
    run_begin_ = out_.runs_.size();
    starts_.push_back({out_.values_.size(), out_.columns_.size(), run_begin_, out_.rows_.size(),
                       out_.windows_.size()});
    if (kSkipsZeros && matrix_.storage == Storage::kColumns) {
      all_weights(part, columns);
      out_.chunks_.push_back({nullptr, nullptr, nullptr, 1, nullptr, first_col_, nullptr});
      return;
    }
    read_lines(out_.part_rows_[part], out_.part_rows_[part + 1], columns);
    if (middle)  // neither bias nor activation: nothing to do for empty lines
      lines_.erase(std::remove_if(lines_.begin(), lines_.end(),
                                  [](const Line& line) { return line.count == 0; }),
                   lines_.end());
    if (matrix_.storage != Storage::kMasks)
      std::stable_sort(lines_.begin(), lines_.end(),
                       [](const Line& a, const Line& b) { return a.count > b.count; });
    if (matrix_.storage == Storage::kRows) interleave();
    if (matrix_.storage == Storage::kBlocks)
      for (const Line& line : lines_) group(&line, 1);
    if (matrix_.storage == Storage::kMasks)
      for (const Line& line : lines_) masks(line);
    const int64_t num_runs = out_.runs_.size() - run_begin_;
    out_.chunks_.push_back({nullptr, nullptr, nullptr, num_runs, nullptr, first_col_, nullptr});
  }

  // Once all arrays are where they stay.
  void point() {
    for (size_t i = 0; i < starts_.size(); i++) {
      ProductChunk& chunk = out_.chunks_[i];
      chunk.values = out_.values_.data() + starts_[i].values;
      chunk.columns = out_.columns_.data() + starts_[i].columns;
      chunk.runs = out_.runs_.data() + starts_[i].runs;
      chunk.rows = out_.rows_.data() + starts_[i].rows;
      if (window_) chunk.windows = out_.windows_.data() + starts_[i].windows;
    }
  }

 private:
  struct Start {
    size_t values, columns, runs, rows, windows;
  };

  int32_t row_of(const Line& line, int64_t r) const {  // the last row is repeated
    return static_cast<int32_t>(std::min(line.row + r, matrix_.rows - 1));
  }

  void read_lines(int64_t row_begin, int64_t row_end, Columns columns) {
    lines_.clear();
    const int64_t widest = std::min(columns.end - columns.begin, weights_.group_cols());
    const size_t most = divide_up(row_end - row_begin, height_) * widest;
    cols_.resize(most + 1);
    values_.resize((most + 1) * height_);
    size_t at = 0;
    for (int64_t row = row_begin; row < row_end; row += height_) at = read_line(row, at, columns);
    cols_.resize(at);
    values_.resize(at * height_);
  }

  // What a block of rows has of the columns, from `at` on; returns where it ends.
  size_t read_line(int64_t row, size_t at, Columns columns) {
    Line line = {row, at, 0};
    const int64_t cols = weights_.group_cols(), first = row / weights_.group_rows() * cols;
    const float* w[8];
    for (int64_t r = 0; r < height_; r++) w[r] = weights_.floats + row_of(line, r) * cols;
    const int64_t end = std::min(columns.end, first + cols);
    for (int64_t k = std::max(columns.begin, first); k < end; k++) {
      bool used = false;  // written in any case: there is no telling which are
      for (int64_t r = 0; r < height_; r++) {
        values_[at * height_ + r] = w[r][k - first];
        used |= w[r][k - first] != 0;
      }
      cols_[at] = k;
      at += used;
    }
    line.count = at - line.begin;
    lines_.push_back(line);
    return at;
  }

  // A row with `count` nonzeros, the last one split into halves, quarters, ...: exact, and x is
  // multiplied with nothing that it was not multiplied with before (0 times infinity is NaN).
  Line padded(const Line& line, size_t count) {
    if (line.count == count) return line;
    const Line longer = {line.row, cols_.size(), count};
    for (size_t i = 0; i < count; i++) {
      const size_t from = line.begin + std::min(i, line.count - 1);
      cols_.push_back(cols_[from]);
      values_.push_back(values_[from]);
    }
    const size_t base = longer.begin + line.count - 1, end = longer.begin + count;
    size_t pieces = 1;
    for (size_t last = base + 1; last < end; pieces *= 2)
      for (size_t i = base; i < base + pieces && last < end; i++, last++)
        values_[last] = values_[i] *= 0.5f;
    return longer;
  }

  void column(int64_t col) {
    const auto& [taps, channel] = weights_.places;
    const auto count = static_cast<int64_t>(taps.size());
    const int64_t place = count ? col / count * channel + taps[col % count] : col;
    out_.columns_.push_back(static_cast<uint16_t>(place - first_col_));
  }

  void value_rows(const Line& line) {
    for (int64_t r = 0; r < height_; r++) out_.rows_.push_back(row_of(line, r));
  }

  // Lines of equal count next to each other, [nonzero][line], in an order of their own if any.
  void group(const Line* lines, int64_t num_lines, const Windows* windows = nullptr) {
    for (int64_t l = 0; l < num_lines; l++) value_rows(lines[l]);
    const size_t count = lines[0].count;
    for (size_t i = 0; i < count; i++)
      for (int64_t l = 0; l < num_lines; l++) {
        const size_t from = lines[l].begin + (windows ? windows->order[l][i] : i);
        column(cols_[from]);
        for (int64_t r = 0; r < height_; r++) out_.values_.push_back(values_[from * height_ + r]);
      }
    if (out_.runs_.size() > run_begin_ && out_.runs_.back().count == static_cast<int32_t>(count))
      out_.runs_.back().groups++;
    else
      out_.runs_.push_back({static_cast<int32_t>(count), 1});
  }

  // Rows without nonzeros share no group with others: they could only be padded with zeros.
  void interleave() {
    const auto empty = std::find_if(lines_.begin(), lines_.end(),
                                    [](const Line& line) { return line.count == 0; });
    const int64_t bounds[] = {0, empty - lines_.begin(), static_cast<int64_t>(lines_.size())};
    for (int kind = 0; kind < 2; kind++)
      for (int64_t i = bounds[kind]; i < bounds[kind + 1]; i += matrix_.block) {
        Line taken[8];
        for (int64_t r = 0; r < matrix_.block; r++)
          taken[r] = padded(lines_[std::min(i + r, bounds[kind + 1] - 1)], lines_[i].count);
        if (kPicks && window_)
          group_in_windows(taken);
        else
          group(taken, matrix_.block);
      }
  }

  void group_in_windows(const Line* lines) {
    Ascending rows[kWindowRows];
    std::vector<int64_t> columns[kWindowRows];
    for (int r = 0; r < kWindowRows; r++) {
      const auto begin = cols_.begin() + static_cast<int64_t>(lines[r].begin);
      columns[r].assign(begin, begin + static_cast<int64_t>(lines[r].count));
      for (int64_t& column : columns[r]) column -= first_col_;
      rows[r] = {columns[r].data(), static_cast<int64_t>(lines[r].count)};
    }
    const Windows windows = windows_of(rows, window_, matrix_.cols - first_col_);
    out_.windows_.push_back(static_cast<uint16_t>(windows.starts.size()));
    for (int64_t start : windows.starts) out_.windows_.push_back(static_cast<uint16_t>(start));
    group(lines, kWindowRows, &windows);
  }

  // Rows by eight vectors, and those left by one, or all of them; column by column.
  void all_weights(int64_t part, Columns columns) {
    const int64_t end = out_.part_rows_[part + 1];
    int64_t left = round_up(end - out_.part_rows_[part], 16);
    for (int64_t row = out_.part_rows_[part]; left > 0;) {
      const int64_t rows = matrix_.tile == 1 ? left : left >= 8 * lanes_ ? 8 * lanes_ : lanes_;
      for (int64_t k = columns.begin; k < columns.end; k++)
        for (int64_t r = row; r < row + rows; r++)
          out_.values_.push_back(r < end ? weights_.floats[r * weights_.cols + k] : 0.f);
      row += rows;
      left -= rows;
    }
    for (int64_t k = columns.begin; k < columns.end; k++) column(k);
    out_.runs_.push_back({static_cast<int32_t>(columns.end - columns.begin), 1});
  }

  void masks(const Line& line) {
    value_rows(line);
    std::vector<size_t> of_mask[16];
    for (size_t i = line.begin; i < line.begin + line.count; i++) {
      int used = 0;
      for (int r = 0; r < 4; r++) used |= (values_[4 * i + r] != 0) << r;
      of_mask[used].push_back(i);
    }
    for (int mask = 1; mask < 16; mask++) {
      for (size_t i : of_mask[mask]) {
        column(cols_[i]);
        for (int r = 0; r < 4; r++)
          if (mask >> r & 1) out_.values_.push_back(values_[4 * i + r]);
      }
      out_.runs_.push_back({static_cast<int32_t>(of_mask[mask].size()), 1});
    }
  }

  PackedProduct& out_;
  const ProductMatrix& matrix_;
  const ProductWeights& weights_;
  const int64_t height_, lanes_, window_;
  int64_t first_col_ = 0;
  size_t run_begin_ = 0;
  std::vector<Line> lines_;
  std::vector<int64_t> cols_;  // of all lines
  std::vector<float> values_;  // [column][row]
  std::vector<Start> starts_;
};

PackedProduct::PackedProduct(const ProductWeights& weights, int64_t pixels, int64_t x_pitch,
                             const ProductLayout& wanted, const ProductKernels& kernels)
    : layout_(completed(wanted, weights, pixels, x_pitch, kernels)),
      has_places_(!weights.places.taps.empty()),
      part_rows_(parts_of(weights, layout_.num_parts)) {
  const int64_t part_cols = divide_up(weights.groups, layout_.num_parts) * weights.group_cols();
  const int64_t widest = weights.groups == 1 ? weights.cols : part_cols;
  matrix_ = {weights.rows,
             weights.cols,
             layout_.storage,
             layout_.block,
             layout_.tile,
             layout_.num_parts,
             divide_up(widest, layout_.chunk_cols),
             nullptr,
             nullptr};
  Packer packer(*this, weights, kernels.lanes);
  for (int64_t p = 0; p < matrix_.num_parts; p++) {
    const Columns columns = packer.columns_of(p);
    for (int64_t c = 0; c < matrix_.num_chunks; c++) {
      const int64_t begin = std::min(columns.end, columns.begin + c * layout_.chunk_cols);
      packer.chunk(p, {begin, std::min(columns.end, begin + layout_.chunk_cols)},
                   c > 0 && c < matrix_.num_chunks - 1);
    }
  }
  stored_ = values_.size();
  values_.shrink_to_fit();
  columns_.shrink_to_fit();
  runs_.shrink_to_fit();
  rows_.shrink_to_fit();
  windows_.shrink_to_fit();
  packer.point();
  matrix_.chunks = chunks_.data();
  matrix_.part_rows = part_rows_.data();
}

ProductMatrix PackedProduct::gated(const float* gate, float* values,
                                   std::vector<ProductChunk>& chunks) const {
  chunks = chunks_;
  for (ProductChunk& chunk : chunks) {
    const float *from = chunk.values, *of_chunk = gate + chunk.first_col;
    float* to = values + (from - values_.data());
    const uint16_t* column = chunk.columns;
    chunk.values = to;
    for (int64_t i = 0; i < chunk.num_runs; i++) {
      const ProductRun& run = chunk.runs[i];
      const int64_t lines = matrix_.storage == Storage::kRows ? matrix_.block : 1;
      const int64_t together = matrix_.storage == Storage::kRows ? 1
                               : matrix_.storage == Storage::kBlocks
                                   ? matrix_.block
                                   : __builtin_popcount(i % 15 + 1);
      for (int64_t n = int64_t{run.count} * run.groups * lines; n > 0; n--, column++)
        for (int64_t r = 0; r < together; r++) *to++ = *from++ * of_chunk[*column];
    }
  }
  ProductMatrix matrix = matrix_;
  matrix.chunks = chunks.data();
  return matrix;
}

int64_t PackedProduct::bytes() const {
  const auto of = [](const auto& vector) { return vector.capacity() * sizeof(vector[0]); };
  return of(values_) + of(columns_) + of(runs_) + of(rows_) + of(windows_) + of(chunks_) +
         of(part_rows_);
}

}  // namespace sparsejax
