// Windows of columns in which a group of rows has two nonzeros each.
#include "engine/windows.h"

#include <algorithm>
#include <numeric>

#include "testing.h"

namespace sparsejax::test {
namespace {

typedef std::vector<std::vector<int64_t>> Rows;

Windows windows_of(const Rows& rows, int64_t width, int64_t end) {
  Ascending ascending[kWindowRows];
  for (int r = 0; r < kWindowRows; r++)
    ascending[r] = {rows[r].data(), static_cast<int64_t>(rows[r].size())};
  return sparsejax::windows_of(ascending, width, end);
}

// Windows of 32: 0 to 31 has all pairs but row 0's second one, which lies at 40; from 16 on all
// rows have two, of which row 1 skips its first. Row 0 has nothing left behind them.
void test_by_hand() {
  Rows rows(kWindowRows, {16, 20, 90, 91});
  rows[0] = {17, 40};
  rows[1] = {3, 18, 30, 95};
  for (auto& row : rows) row.resize(4, row.back());  // padded, as a group's rows are
  const Windows windows = windows_of(rows, 32, 100);
  expect(windows.starts == std::vector<int64_t>{16}, "one window, from 16 on");
  expect(windows.order[0] == std::vector<int64_t>{0, 1, 2, 3}, "row 0 as it was");
  expect(windows.order[1] == std::vector<int64_t>{1, 2, 0, 3}, "row 1 has skipped 3");
  expect(windows_of(Rows(kWindowRows, {1, 2}), 32, 31).starts.empty(), "x is too short");
  const Windows last = windows_of(Rows(kWindowRows, {69, 69}), 32, 70);
  expect(last.starts == std::vector<int64_t>{38}, "the last window ends with x");
}

Rows random_rows(int64_t end) {
  const int64_t count = random()() % (end / 2 + 1);
  const bool repeats = random()() % 4 == 0;
  Rows rows(kWindowRows);
  for (auto& row : rows) {
    while (static_cast<int64_t>(row.size()) < count) {
      row.push_back(static_cast<int64_t>(random()() % end));
      if (repeats && random()() % 2) row.back() = row.front();
    }
    std::sort(row.begin(), row.end());
  }
  return rows;
}

void expect_windows(const Rows& rows, const Windows& windows, int64_t width, int64_t end) {
  for (int r = 0; r < kWindowRows; r++) {
    std::vector<int64_t> sorted = windows.order[r], all(rows[r].size());
    std::iota(all.begin(), all.end(), 0);
    std::sort(sorted.begin(), sorted.end());
    expect(sorted == all, "each nonzero has its place");
    for (size_t i = 0; i < 2 * windows.starts.size(); i++) {
      const int64_t start = windows.starts[i / 2], column = rows[r][windows.order[r][i]];
      expect(start <= column && column < start + width, "windows hold what is picked from them");
    }
  }
  for (int64_t start : windows.starts) {
    expect(start >= 0 && start + width <= end, "windows lie in x");
    expect(start % 16 == 0 || start == end - width, "windows begin where vectors do");
  }
}

void test_random() {
  for (int i = 0; i < 2000; i++) {
    const int64_t end = any_of({1, 15, 63, 64, 65, 100, 256, 1000}), width = any_of({16, 32, 64});
    const Rows rows = random_rows(end);
    expect_windows(rows, windows_of(rows, width, end), width, end);
  }
}

// At 90 % zeros most nonzeros come in windows: none would be correct, too.
void test_most_are_in_windows() {
  std::vector<int64_t> all(1024);
  std::iota(all.begin(), all.end(), 0);
  Rows rows(kWindowRows);
  for (auto& row : rows) {
    std::shuffle(all.begin(), all.end(), random());
    row.assign(all.begin(), all.begin() + 102);
    std::sort(row.begin(), row.end());
  }
  expect(windows_of(rows, 64, 1024).starts.size() > 30, "30 of 51 pairs are in windows");
}

const Test by_hand(test_by_hand), any(test_random), most(test_most_are_in_windows);

}  // namespace
}  // namespace sparsejax::test
