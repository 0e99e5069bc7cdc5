// Products of matrices of runs and their gradients against sums in float64, over random sizes
// around the edges of tiles.
#include <algorithm>

#include "engine/bcr_matrix.h"
#include "testing.h"

namespace sparsejax::test {
namespace {

struct Case {
  int64_t num_rows = 0, num_cols = 0, images = 1, pixels = 1;
  bool channels_last = true, has_bias = false;
  Activation activation = Activation::kNone;
  std::vector<int32_t> rows, run_starts{0}, columns, column_starts{0}, value_starts{0};

  BcrMatrix matrix(const float* values) const {
    return {num_rows,
            num_cols,
            static_cast<int64_t>(run_starts.size()) - 1,
            values,
            rows.data(),
            run_starts.data(),
            columns.data(),
            column_starts.data(),
            value_starts.data()};
  }
  BcrLengths lengths() const {
    return {value_starts.back(), static_cast<int64_t>(rows.size()),
            static_cast<int64_t>(columns.size())};
  }
  int64_t at(int64_t image, int64_t channels, int64_t channel, int64_t pixel) const {
    return channels_last ? (image * pixels + pixel) * channels + channel
                         : (image * channels + channel) * pixels + pixel;
  }
  std::string name(const Kernels& kernels) const {
    return std::string(kernels.isa) + " " + std::to_string(num_rows) + "x" +
           std::to_string(num_cols) + " pixels " + std::to_string(pixels) +
           (channels_last ? " channels last" : "");
  }
};

void add_run(Case& c, int64_t row_begin, int64_t row_end) {
  const double keep = any_of({0, 30, 100}) / 100.0;
  for (int64_t row = row_begin; row < row_end; row++)
    if (uniform() < 0.9) c.rows.push_back(static_cast<int32_t>(row));
  for (int64_t k = 0; k < c.num_cols; k++)
    if (uniform() < keep) c.columns.push_back(static_cast<int32_t>(k));
  const int64_t num_rows = c.rows.size() - c.run_starts.back();
  const int64_t num_columns = c.columns.size() - c.column_starts.back();
  c.run_starts.push_back(static_cast<int32_t>(c.rows.size()));
  c.column_starts.push_back(static_cast<int32_t>(c.columns.size()));
  c.value_starts.push_back(static_cast<int32_t>(c.value_starts.back() + num_rows * num_columns));
}

Case random_case(const Kernels& kernels) {
  Case c;
  const int64_t tile = kernels.bcr->tile_pixels, step = any_of({1, 3, 4, 7, 16, 40});
  c.num_rows = any_of({0, 1, 2, 3, 8, 15, 33, 100});
  c.num_cols = any_of({0, 1, 2, 7, 8, 33, 100});
  c.images = any_of({1, 1, 2});
  c.pixels = any_of({0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 49, tile - 1, tile, tile + 1, 2 * tile + 5});
  c.channels_last = random()() % 2;
  c.has_bias = random()() % 2;
  c.activation = static_cast<Activation>(random()() % 3);
  for (int64_t row = 0; row < c.num_rows; row += step)
    for (int64_t i = any_of({0, 1, 1, 3}); i > 0; i--)
      add_run(c, row, std::min(row + step, c.num_rows));
  return c;
}

template <class F>  // f(value, row, col, image, pixel)
void for_each_product(const Case& c, const F& f) {
  for (size_t r = 0; r + 1 < c.run_starts.size(); r++) {
    int64_t i = c.value_starts[r];
    for (int64_t k = c.column_starts[r]; k < c.column_starts[r + 1]; k++)
      for (int64_t m = c.run_starts[r]; m < c.run_starts[r + 1]; m++, i++)
        for (int64_t image = 0; image < c.images; image++)
          for (int64_t p = 0; p < c.pixels; p++) f(i, c.rows[m], c.columns[k], image, p);
  }
}

void test_forward(const Kernels& kernels, const Case& c, bool transpose) {
  const int64_t out = transpose ? c.num_cols : c.num_rows;
  const int64_t in = transpose ? c.num_rows : c.num_cols;
  const Floats values = random_floats(c.value_starts.back()), bias = random_floats(out);
  const Floats x = random_floats(c.images * in * c.pixels);
  BcrMatrix matrix = c.matrix(values.data());
  BcrTransposed other = {};
  if (transpose) {
    other = transposed(matrix);
    matrix = other.matrix;
    expect(problem(matrix, {c.lengths().values, c.lengths().columns, c.lengths().rows}).empty(),
           "the transpose is a matrix of runs");
  }
  std::vector<double> expected(c.images * out * c.pixels), magnitude(expected.size());
  for_each_product(c, [&](int64_t i, int64_t r, int64_t k, int64_t image, int64_t p) {
    const int64_t to = c.at(image, out, transpose ? k : r, p);
    const double product = double{values[i]} * x[c.at(image, in, transpose ? r : k, p)];
    expected[to] += product;
    magnitude[to] += std::abs(product);
  });
  for (int64_t image = 0; image < c.images; image++)
    for (int64_t m = 0; m < out; m++)
      for (int64_t p = 0; p < c.pixels; p++) {
        double& y = expected[c.at(image, out, m, p)];
        y = activated(c.activation, y + (c.has_bias ? bias[m] : 0));
      }
  const BcrCall call = {matrix, c.has_bias ? bias.data() : nullptr, c.activation, c.channels_last,
                        c.pixels};
  Floats y(c.images * out * c.pixels, NAN), with_threads = y;
  run_bcr(kernels, ThreadPool{}, call, c.images, x.data(), y.data());
  expect_close(y, expected, magnitude, "bcr " + c.name(kernels));
  Threads threads;
  run_bcr(kernels, threads.pool(3), call, c.images, x.data(), with_threads.data());
  expect(y.same_bits(with_threads), "bcr with 3 threads " + c.name(kernels));
}

void test_grad_values(const Kernels& kernels, const Case& c) {
  const Floats x = random_floats(c.images * c.num_cols * c.pixels);
  const Floats grad_y = random_floats(c.images * c.num_rows * c.pixels);
  std::vector<double> expected(c.value_starts.back()), magnitude(expected.size());
  for_each_product(c, [&](int64_t i, int64_t r, int64_t k, int64_t image, int64_t p) {
    const double product =
        double{grad_y[c.at(image, c.num_rows, r, p)]} * x[c.at(image, c.num_cols, k, p)];
    expected[i] += product;
    magnitude[i] += std::abs(product);
  });
  const BcrCall call = {c.matrix(nullptr), nullptr, Activation::kNone, c.channels_last, c.pixels};
  Floats grad(c.value_starts.back(), NAN), grad3 = grad;
  run_bcr_grad_values(kernels, ThreadPool{}, call, c.images, x.data(), grad_y.data(), grad.data());
  expect_close(grad, expected, magnitude, "gradient of bcr's values " + c.name(kernels));
  Threads threads;
  run_bcr_grad_values(kernels, threads.pool(3), call, c.images, x.data(), grad_y.data(),
                      grad3.data());
  expect(grad.same_bits(grad3), "gradient of bcr's values with 3 threads " + c.name(kernels));
}

void test_groups(const Case& c) {
  for (int64_t wanted : {1, 2, 5}) {
    const BcrGroups groups = grouped(c.matrix(nullptr), wanted);
    std::vector<int> times(c.num_rows);
    int64_t next = 0;
    for (const BcrGroup& group : groups.groups) {
      expect(group.run_begin == next, "each run is in one group");
      next = group.run_end;
      for (int64_t i = 0; i < group.num_rows; i++) times[group.rows[i]]++;
      for (int64_t i = c.run_starts[group.run_begin]; i < c.run_starts[group.run_end]; i++) {
        const int32_t* end = group.rows + group.num_rows;
        expect(std::find(group.rows, end, c.rows[i]) != end, "a group has the rows of its runs");
      }
    }
    expect(next + 1 == static_cast<int64_t>(c.run_starts.size()), "groups have all runs");
    for (int n : times) expect(n == 1, "each row is in one group");
    expect(static_cast<int64_t>(groups.groups.size()) <= wanted, "groups are not too many");
  }
}

void test_bcr(const Kernels& kernels) {
  for (int i = 0; i < 250; i++) {
    const Case c = random_case(kernels);
    const std::string wrong = problem(c.matrix(nullptr), c.lengths());
    expect(wrong.empty(), "a matrix of runs is accepted: " + wrong);
    test_forward(kernels, c, false);
    test_forward(kernels, c, true);
    test_grad_values(kernels, c);
    test_groups(c);
  }
}

void test_bcr_matrix() {
  Case good;  // rows 0, 2 x columns 1, 2 and row 1 x column 0
  good.num_rows = good.num_cols = 3;
  good.rows = {0, 2, 1}, good.run_starts = {0, 2, 3};
  good.columns = {1, 2, 0}, good.column_starts = {0, 2, 3};
  good.value_starts = {0, 4, 5};
  expect(problem(good.matrix(nullptr), good.lengths()).empty(), "a matrix of runs is accepted");
  using List = std::vector<int32_t>;
  const auto refused = [&](List Case::* list, List numbers, const char* word) {
    Case bad = good;
    bad.*list = std::move(numbers);
    const std::string wrong = problem(bad.matrix(nullptr), good.lengths());
    expect(wrong.find(word) == 0, std::string(word) + " is named: " + wrong);
  };
  refused(&Case::rows, {0, 3, 1}, "rows");
  refused(&Case::rows, {-1, 2, 1}, "rows");
  refused(&Case::rows, {2, 2, 1}, "rows");
  refused(&Case::columns, {1, 3, 0}, "columns");
  refused(&Case::columns, {2, 1, 0},
          "columns must ascend within a run, got columns[0] = 2 before columns[1] = 1");
  refused(&Case::run_starts, {1, 2, 3}, "run_starts must begin with 0, got run_starts[0] = 1");
  refused(&Case::run_starts, {0, 2, 2}, "run_starts");
  refused(&Case::run_starts, {0, 2147483647, 3}, "run_starts");
  refused(&Case::column_starts, {0, 4, 3},
          "column_starts must not decrease, got column_starts[1] = 4 before column_starts[2] = 3");
  refused(&Case::column_starts, {0, -2, 3}, "column_starts");
  refused(&Case::value_starts, {0, 3, 5},
          "value_starts must leave rows x columns values to a run, got 3 instead of 4 for run 0");
  refused(&Case::value_starts, {0, 4, 6}, "value_starts");
  for (auto length : {&BcrLengths::rows, &BcrLengths::columns, &BcrLengths::values})
    for (int64_t more : {-1, 1}) {
      BcrLengths lengths = good.lengths();
      lengths.*length += more;
      const std::string wrong = problem(good.matrix(nullptr), lengths);
      expect(wrong.find("_starts must end with") != std::string::npos, "a list's end: " + wrong);
    }
  const BcrGroups groups = grouped(good.matrix(nullptr), 2);
  expect(groups.groups.size() == 2, "runs without common rows are cut apart");
  expect(groups.groups[0].num_rows == 2 && groups.groups[1].rows[0] == 1, "and so are their rows");
}

const Test bcr(test_bcr), bcr_matrix(test_bcr_matrix);

}  // namespace
}  // namespace sparsejax::test
