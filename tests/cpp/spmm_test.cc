// spmm and its gradients against sums in float64, over random sizes around the edges of tiles.
#include "testing.h"

namespace sparsejax::test {
namespace {

struct Case {
  int64_t rows, cols, block, images, pixels;
  bool channels_last;
  Activation activation;
  bool has_bias;
  int64_t chunk_cols;
  std::vector<int32_t> row_starts{0}, indices;

  Structure structure() const {
    return {
        rows, cols, block, static_cast<int64_t>(indices.size()), indices.data(), row_starts.data()};
  }
  int64_t at(int64_t image, int64_t channels, int64_t channel, int64_t pixel) const {
    return channels_last ? (image * pixels + pixel) * channels + channel
                         : (image * channels + channel) * pixels + pixel;
  }
  std::string name(const Kernels& kernels) const {
    return std::string(kernels.isa) + " " + std::to_string(rows) + "x" + std::to_string(cols) +
           " block " + std::to_string(block) + " pixels " + std::to_string(pixels) + " chunk " +
           std::to_string(chunk_cols) + (channels_last ? " channels last" : "");
  }
};

Case random_case(const Kernels& kernels) {
  Case c;
  const int64_t tile = kernels.spmm->tile_pixels;
  c.block = any_of({1, 2, 4, 8});
  c.rows = c.block * any_of({0, 1, 2, 3, 5, 16, 140});
  c.cols = any_of({0, 1, 2, 7, 8, 33, 100});
  c.images = any_of({1, 1, 2});
  c.pixels = any_of({0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 49, tile - 1, tile, tile + 1, 2 * tile + 5});
  c.channels_last = random()() % 2;
  c.activation = static_cast<Activation>(random()() % 3);
  c.has_bias = random()() % 2;
  c.chunk_cols = any_of({1, 3, 8, 1000});
  const double sparsity = any_of({0, 50, 90, 100}) / 100.0;
  for (int64_t r = 0; r < c.rows / c.block; r++) {
    for (int64_t k = 0; k < c.cols; k++)
      if (uniform() >= sparsity) c.indices.push_back(static_cast<int32_t>(k));
    c.row_starts.push_back(static_cast<int32_t>(c.indices.size()));
  }
  return c;
}

template <class F>  // f(nonzero, row, col, image, pixel)
void for_each_product(const Case& c, const F& f) {
  for (int64_t r = 0; r < c.rows; r++)
    for (int64_t i = c.row_starts[r / c.block]; i < c.row_starts[r / c.block + 1]; i++)
      for (int64_t image = 0; image < c.images; image++)
        for (int64_t p = 0; p < c.pixels; p++)
          f(i * c.block + r % c.block, r, c.indices[i], image, p);
}

void test_forward(const Kernels& kernels, const Case& c, bool transpose) {
  const int64_t out = transpose ? c.cols : c.rows, in = transpose ? c.rows : c.cols;
  const Floats values = random_floats(c.indices.size() * c.block), bias = random_floats(out);
  const Floats x = random_floats(c.images * in * c.pixels);
  Structure structure = c.structure();
  const float* weights = values.data();
  Transposed other = {};
  if (transpose) {
    other = transposed(structure, weights);
    structure = other.structure();
    weights = other.values.data();
    expect(problem(structure).empty(), "the transpose is a matrix: " + problem(structure));
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
  const ChunkedMatrix matrix = chunked(structure, weights, c.chunk_cols);
  const SpmmCall call = {matrix.matrix, c.has_bias ? bias.data() : nullptr, c.activation,
                         c.channels_last, c.pixels};
  Floats y(c.images * out * c.pixels, NAN), with_threads = y;
  run_spmm(kernels, ThreadPool{}, call, c.images, x.data(), y.data());
  expect_close(y, expected, magnitude, "spmm " + c.name(kernels));
  Threads threads;
  run_spmm(kernels, threads.pool(3), call, c.images, x.data(), with_threads.data());
  expect(y.same_bits(with_threads), "spmm with 3 threads " + c.name(kernels));
}

void test_grad_values(const Kernels& kernels, const Case& c) {
  const Floats x = random_floats(c.images * c.cols * c.pixels);
  const Floats grad_y = random_floats(c.images * c.rows * c.pixels);
  const int64_t num_values = c.indices.size() * c.block;
  std::vector<double> expected(num_values), magnitude(num_values), bias(c.rows), all(c.rows);
  for_each_product(c, [&](int64_t i, int64_t r, int64_t k, int64_t image, int64_t p) {
    const double product = double{grad_y[c.at(image, c.rows, r, p)]} * x[c.at(image, c.cols, k, p)];
    expected[i] += product;
    magnitude[i] += std::abs(product);
  });
  for (int64_t image = 0; image < c.images; image++)
    for (int64_t r = 0; r < c.rows; r++)
      for (int64_t p = 0; p < c.pixels; p++) {
        bias[r] += grad_y[c.at(image, c.rows, r, p)];
        all[r] += std::abs(grad_y[c.at(image, c.rows, r, p)]);
      }
  const ChunkedMatrix matrix = chunked(c.structure(), nullptr, c.chunk_cols);
  const SpmmCall call = {matrix.matrix, nullptr, Activation::kNone, c.channels_last, c.pixels};
  Floats grad(num_values, NAN), grad_bias(c.rows, NAN), grad3 = grad, grad_bias3 = grad_bias;
  run_spmm_grad_values(kernels, ThreadPool{}, call, c.images, x.data(), grad_y.data(), grad.data(),
                       grad_bias.data());
  expect_close(grad, expected, magnitude, "gradient of values " + c.name(kernels));
  expect_close(grad_bias, bias, all, "gradient of spmm's bias " + c.name(kernels));
  Threads threads;
  run_spmm_grad_values(kernels, threads.pool(3), call, c.images, x.data(), grad_y.data(),
                       grad3.data(), grad_bias3.data());
  expect(grad.same_bits(grad3) && grad_bias.same_bits(grad_bias3),
         "gradient of values with 3 threads " + c.name(kernels));
}

void test_spmm(const Kernels& kernels) {
  for (int i = 0; i < 250; i++) {
    const Case c = random_case(kernels);
    expect(problem(c.structure()).empty(), "a matrix is accepted");
    test_forward(kernels, c, false);
    test_forward(kernels, c, true);
    test_grad_values(kernels, c);
  }
}

void test_matrix() {
  const int32_t indices[] = {0, 2, 1}, starts[] = {0, 2, 3};
  const Structure good = {2, 3, 1, 3, indices, starts};
  expect(problem(good).empty(), "a matrix is accepted");
  const auto refused = [&](std::vector<int32_t> ix, std::vector<int32_t> rs, const char* word) {
    const Structure bad = {2, 3, 1, 3, ix.data(), rs.data()};
    expect(problem(bad).find(word) == 0, std::string(word) + " is named: " + problem(bad));
  };
  refused({0, 2, 3}, {0, 2, 3}, "indices must be in [0, 3), got indices[2] = 3");
  refused({-1, 2, 1}, {0, 2, 3}, "indices must be in [0, 3), got indices[0] = -1");
  refused({2, 0, 1}, {0, 2, 3},
          "indices must ascend within a row, got indices[0] = 2 before indices[1] = 0");
  refused({1, 1, 1}, {0, 2, 3},
          "indices must ascend within a row, got indices[0] = 1 before indices[1] = 1");
  refused({0, 2, 1}, {1, 2, 3}, "row_starts must begin with 0, got row_starts[0] = 1");
  refused({0, 2, 1}, {0, 2, 2}, "row_starts");
  refused({0, 2, 1}, {0, 4, 3},
          "row_starts must not decrease, got row_starts[1] = 4 before row_starts[2] = 3");
  refused({0, 2, 1}, {0, -2, 3}, "row_starts");
  refused({0, 2, 1}, {0, 2, 2147483647}, "row_starts");
}

const Test spmm(test_spmm), matrix(test_matrix);

}  // namespace
}  // namespace sparsejax::test
