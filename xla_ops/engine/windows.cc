// See windows.h. The window that ends earliest is taken first: none that were taken later could
// leave more room behind it.
#include "engine/windows.h"

#include <algorithm>

#include "kernels/sizes.h"

namespace sparsejax {
namespace {

constexpr int64_t kEach = 2;  // nonzeros of a row in a window

class Search {
 public:
  Search(const Ascending* rows, int64_t width, int64_t end)
      : rows_(rows), width_(width), end_(end) {}

  // Moves on to the next nonzeros that lie in one window, if there are any.
  bool next() {
    for (bool moved = true; moved;) {
      int64_t last = 0;
      for (int r = 0; r < kWindowRows; r++) {
        if (at_[r] + kEach > rows_[r].count) return false;
        last = std::max(last, rows_[r].columns[at_[r] + kEach - 1]);
      }
      moved = skip_to(std::max<int64_t>(0, round_up(last + 1 - width_, 16)));
    }
    return true;
  }

  void take(Windows& windows) {
    int64_t first = rows_[0].columns[at_[0]];
    for (int r = 0; r < kWindowRows; r++) {
      first = std::min(first, rows_[r].columns[at_[r]]);
      for (int64_t i = 0; i < kEach; i++) windows.order[r].push_back(at_[r]++);
    }
    windows.starts.push_back(std::min(first / 16 * 16, end_ - width_));
  }

  void take_skipped(Windows& windows) {
    for (int r = 0; r < kWindowRows; r++) {
      for (int64_t i = at_[r]; i < rows_[r].count; i++) skipped_[r].push_back(i);
      windows.order[r].insert(windows.order[r].end(), skipped_[r].begin(), skipped_[r].end());
    }
  }

 private:
  // Passes over what lies in front of a column; true if there was something.
  bool skip_to(int64_t column) {
    bool moved = false;
    for (int r = 0; r < kWindowRows; r++)
      for (; at_[r] < rows_[r].count && rows_[r].columns[at_[r]] < column; moved = true)
        skipped_[r].push_back(at_[r]++);
    return moved;
  }

  const Ascending* rows_;
  const int64_t width_, end_;
  int64_t at_[kWindowRows] = {};
  std::vector<int64_t> skipped_[kWindowRows];
};

}  // namespace

Windows windows_of(const Ascending* rows, int64_t width, int64_t end) {
  Windows windows;
  Search search(rows, width, end);
  while (width <= end && search.next()) search.take(windows);
  search.take_skipped(windows);
  return windows;
}

}  // namespace sparsejax
