// Checks, transpose and groups of matrices of runs; see bcr_matrix.h.
#include "engine/bcr_matrix.h"

#include <algorithm>

namespace sparsejax {
namespace {

std::string at(const char* array, int64_t i, int64_t value) {
  return std::string(array) + "[" + std::to_string(i) + "] = " + std::to_string(value);
}

std::string starts_problem(const char* name, const int32_t* starts, int64_t num_runs,
                           int64_t length) {
  const std::string must = std::string(name) + " must ";
  if (starts[0] != 0) return must + "begin with 0, got " + at(name, 0, starts[0]);
  for (int64_t r = 0; r < num_runs; r++)
    if (starts[r + 1] < starts[r])
      return must + "not decrease, got " + at(name, r, starts[r]) + " before " +
             at(name, r + 1, starts[r + 1]);
  if (starts[num_runs] != length)
    return must + "end with " + std::to_string(length) + ", got " +
           at(name, num_runs, starts[num_runs]);
  return "";
}

std::string list_problem(const char* name, const int32_t* list, const int32_t* starts,
                         int64_t num_runs, int64_t limit) {
  const std::string must = std::string(name) + " must ";
  for (int64_t r = 0; r < num_runs; r++)
    for (int64_t i = starts[r]; i < starts[r + 1]; i++) {
      if (list[i] < 0 || list[i] >= limit)
        return must + "be in [0, " + std::to_string(limit) + "), got " + at(name, i, list[i]);
      if (i > starts[r] && list[i] <= list[i - 1])
        return must + "ascend within a run, got " + at(name, i - 1, list[i - 1]) + " before " +
               at(name, i, list[i]);
    }
  return "";
}

}  // namespace

std::string problem(const BcrMatrix& m, const BcrLengths& lengths) {
  std::string wrong = starts_problem("run_starts", m.run_starts, m.num_runs, lengths.rows);
  if (wrong.empty())
    wrong = starts_problem("column_starts", m.column_starts, m.num_runs, lengths.columns);
  if (wrong.empty())
    wrong = starts_problem("value_starts", m.value_starts, m.num_runs, lengths.values);
  for (int64_t r = 0; wrong.empty() && r < m.num_runs; r++) {
    const int64_t size = int64_t{m.run_starts[r + 1] - m.run_starts[r]} *
                         (m.column_starts[r + 1] - m.column_starts[r]);
    if (m.value_starts[r + 1] - m.value_starts[r] != size)
      wrong = "value_starts must leave rows x columns values to a run, got " +
              std::to_string(m.value_starts[r + 1] - m.value_starts[r]) + " instead of " +
              std::to_string(size) + " for run " + std::to_string(r);
  }
  if (wrong.empty()) wrong = list_problem("rows", m.rows, m.run_starts, m.num_runs, m.num_rows);
  if (wrong.empty())
    wrong = list_problem("columns", m.columns, m.column_starts, m.num_runs, m.num_cols);
  return wrong;
}

BcrTransposed transposed(const BcrMatrix& m) {
  BcrTransposed out = {{m.num_cols, m.num_rows, m.num_runs, nullptr, m.columns, m.column_starts,
                        m.rows, m.run_starts, m.value_starts},
                       std::vector<float>(m.value_starts[m.num_runs])};
  for (int64_t r = 0; r < m.num_runs; r++) {
    const int64_t num_rows = m.run_starts[r + 1] - m.run_starts[r];
    const int64_t num_columns = m.column_starts[r + 1] - m.column_starts[r];
    const float* from = m.values + m.value_starts[r];
    float* to = out.values.data() + m.value_starts[r];
    for (int64_t c = 0; c < num_columns; c++)
      for (int64_t i = 0; i < num_rows; i++) to[i * num_columns + c] = from[c * num_rows + i];
  }
  out.matrix.values = out.values.data();
  return out;
}

BcrGroups grouped(const BcrMatrix& m, int64_t num_groups) {
  BcrGroups out;
  out.rows.reserve(m.num_rows);
  std::vector<int64_t> last_run(m.num_rows, -1);
  for (int64_t r = 0; r < m.num_runs; r++)
    for (int64_t i = m.run_starts[r]; i < m.run_starts[r + 1]; i++) last_run[m.rows[i]] = r;
  for (int64_t row = 0; row < m.num_rows; row++)  // rows of zeros
    if (last_run[row] < 0) out.rows.push_back(static_cast<int32_t>(row));
  const int64_t total = m.value_starts[m.num_runs];
  std::vector<int64_t> first_rows{0};
  int64_t begin = 0, reach = -1;
  const auto cut = [&](int64_t end) {
    out.groups.push_back({begin, end, nullptr, 0});
    first_rows.push_back(static_cast<int64_t>(out.rows.size()));
    begin = end;
  };
  for (int64_t r = 0; r < m.num_runs; r++) {
    for (int64_t i = m.run_starts[r]; i < m.run_starts[r + 1]; i++) {
      int64_t& last = last_run[m.rows[i]];
      reach = std::max(reach, last);
      if (last == r) out.rows.push_back(m.rows[i]);
    }
    const int64_t next = static_cast<int64_t>(out.groups.size()) + 1;
    const int64_t target = total * next / num_groups;
    if (next < num_groups && reach <= r && m.value_starts[r + 1] >= target && r + 1 < m.num_runs)
      cut(r + 1);
  }
  cut(m.num_runs);
  for (size_t g = 0; g < out.groups.size(); g++) {
    out.groups[g].rows = out.rows.data() + first_rows[g];
    out.groups[g].num_rows = first_rows[g + 1] - first_rows[g];
  }
  return out;
}

}  // namespace sparsejax
