// Packed products against sums in float64, over sizes around the edges of tiles, groups and chunks.
#include <cstdlib>
#include <memory>
#include <stdexcept>

#include "engine/pack_product.h"
#include "kernels/sizes.h"
#include "testing.h"

namespace sparsejax::test {
namespace {

// [channels][pitch] at a 64-byte boundary with nothing behind it: a sanitizer sees the first float
// too far.
class Strip {
 public:
  Strip(int64_t channels, int64_t pitch) : size_(channels * pitch), pitch_(pitch) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, size_ * sizeof(float)) != 0) std::abort();
    data_.reset(static_cast<float*>(memory));
    for (int64_t i = 0; i < size_; i++) data_[i] = NAN;
  }
  float* data() { return data_.get(); }
  const float* data() const { return data_.get(); }
  int64_t pitch() const { return pitch_; }
  float& at(int64_t channel, int64_t pixel) { return data_[channel * pitch_ + pixel]; }
  float at(int64_t channel, int64_t pixel) const { return data_[channel * pitch_ + pixel]; }

 private:
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  int64_t size_, pitch_;
  std::unique_ptr<float[], Free> data_;
};

struct Case {
  int64_t rows, cols, pixels, x_pitch, y_pitch, groups;
  ProductLayout layout;
  std::vector<float> weights, bias;
  ActivationCall activation;
  bool has_residual, placed = false, alone = false;

  float weight(int64_t row, int64_t col) const {
    const int64_t own = cols / groups, first = row / (rows / groups) * own;
    return col >= first && col < first + own ? weights[row * own + col - first] : 0.f;
  }
  PackedProduct packed(const Kernels& kernels) const {
    ProductWeights matrix = {weights.data(), rows, cols, groups, {}};
    matrix.alone = alone;
    if (placed)  // two taps to a channel, the second one first
      matrix.places = {{x_pitch / 4, 0}, x_pitch / 2};
    return PackedProduct(matrix, pixels, x_pitch, layout, *kernels.product);
  }
  // Where column k of a matrix without places lies in x.
  int64_t at(int64_t k) const { return placed ? k ^ 1 : k; }
  std::string name(const Kernels& kernels) const {
    return std::string(kernels.isa) + " product " + std::to_string(rows) + "x" +
           std::to_string(cols) + " storage " + std::to_string(static_cast<int>(layout.storage)) +
           " block " + std::to_string(layout.block) + " pixels " + std::to_string(pixels) +
           " pitch " + std::to_string(x_pitch) + " tile " + std::to_string(layout.tile) +
           " chunk " + std::to_string(layout.chunk_cols) + " parts " +
           std::to_string(layout.num_parts) + " activation " +
           std::to_string(static_cast<int>(activation.function)) + " groups " +
           std::to_string(groups) + (placed ? " placed" : "") + (alone ? " alone" : "");
  }
};

int64_t rounded(int64_t pixels) { return (pixels + 15) / 16 * 16; }

ProductLayout random_layout(bool vector) {
  ProductLayout layout = {};
  layout.storage = static_cast<Storage>(random()() % 4);
  if (layout.storage == Storage::kRows) layout.block = any_of({0, 1, 2, 4, 8});
  if (layout.storage == Storage::kBlocks) layout.block = any_of({0, 2, 4, 8});
  if (layout.storage == Storage::kColumns) layout.block = any_of({0, 1});
  layout.tile = any_of({0, 0, 1, 2, 3, 5, 100});
  layout.chunk_cols = vector ? any_of({0, 40}) : any_of({0, 0, 1, 5, 64, 100000});
  layout.num_parts = any_of({0, 1, 2, 3, 20});
  return layout;
}

Case random_case() {
  Case c;
  const bool vector = random()() % 4 == 0;
  c.rows = any_of({1, 2, 3, 4, 5, 7, 8, 9, 16, 31, 64, 70});
  c.cols = any_of({1, 2, 3, 8, 33, 130, 300});
  c.pixels =
      vector ? 1 : any_of({1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 49, 100, 113, 196, 250});
  c.x_pitch = vector ? 1 : rounded(c.pixels) + 16 * (random()() % 2);
  c.y_pitch = vector ? 1 : rounded(c.pixels) + 16 * (random()() % 2);
  if (!vector && c.pixels <= 8 && random()() % 2) c.x_pitch = c.y_pitch = c.pixels <= 4 ? 4 : 8;
  c.layout = random_layout(vector);
  c.alone = random()() % 2;
  c.groups = any_of({1, 1, 2, 3, 8});
  if (c.groups > 1) c.rows = round_up(c.rows, c.groups), c.cols = round_up(c.cols, c.groups);
  if (c.groups > 1 && (c.layout.storage == Storage::kColumns ||
                       c.rows / c.groups % (c.layout.block ? c.layout.block : 4) != 0))
    c.layout.storage = Storage::kRows;
  c.placed = c.cols % 2 == 0 && c.y_pitch >= 16 && random()() % 3 == 0;
  const double sparsity = any_of({0, 50, 90, 100}) / 100.0;
  for (int64_t i = 0; i < c.rows * c.cols / c.groups; i++)
    c.weights.push_back(uniform() < sparsity ? 0.f : static_cast<float>(2 * uniform() - 1));
  for (int64_t r = 0; r < c.rows; r++) c.bias.push_back(static_cast<float>(uniform() - 0.5));
  c.activation = {static_cast<Function>(random()() % 3), -0.25f, 0.5f};
  c.has_residual = random()() % 2;
  return c;
}

Strip random_strip(int64_t channels, int64_t pixels, int64_t pitch) {
  Strip strip(channels, pitch);
  for (int64_t k = 0; k < channels; k++)
    for (int64_t p = 0; p < pixels; p++)
      strip.at(k, p) = random()() % 3 == 0 ? 0.f : static_cast<float>(2 * uniform() - 1);
  return strip;
}

double activated(const ActivationCall& activation, double x) {
  if (activation.function == Function::kIdentity) return x;
  if (activation.function == Function::kSigmoid) return 1 / (1 + std::exp(-x));
  x = x < activation.low ? activation.low : x;
  return x > activation.high ? activation.high : x;
}

ProductCall call_of(const Case& c, const Kernels& kernels, const ProductMatrix& matrix,
                    const Strip& x, const Strip& residual, Strip& y) {
  static std::vector<float> scratch;
  scratch.assign(kernels.product->scratch_floats(matrix), NAN);
  return {&matrix,
          x.data(),
          c.placed ? 4 : c.x_pitch,
          y.data(),
          c.y_pitch,
          c.bias.data(),
          c.has_residual ? residual.data() : nullptr,
          residual.pitch(),
          c.activation,
          scratch.data()};
}

void expect_product(const Case& c, const Strip& x, const Strip& residual, const Strip& y,
                    const std::string& what) {
  for (int64_t r = 0; r < c.rows; r++)
    for (int64_t p = 0; p < c.pixels; p++) {
      double sum = c.bias[r], magnitude = 1;
      for (int64_t k = 0; k < c.cols; k++) {
        if (c.weight(r, k) == 0) continue;
        sum += double{c.weight(r, k)} * x.at(c.at(k), p);
        magnitude += std::abs(double{c.weight(r, k)} * x.at(c.at(k), p));
      }
      if (c.has_residual) sum += residual.at(r, p);
      const double expected = activated(c.activation, sum), got = y.at(r, p);
      if (std::abs(got - expected) <= 2e-6 * magnitude) continue;
      return expect(false, what + " [" + std::to_string(r) + ", " + std::to_string(p) + "]: " +
                               std::to_string(got) + " instead of " + std::to_string(expected));
    }
  for (int64_t r = 0; r < c.rows; r++)
    for (int64_t p = rounded(c.pixels); p < c.y_pitch; p++)
      expect(std::isnan(y.at(r, p)), what + " writes behind its pixels");
}

bool same_bits(const Case& c, const Strip& a, const Strip& b) {
  for (int64_t r = 0; r < c.rows; r++)
    if (std::memcmp(&a.data()[r * c.y_pitch], &b.data()[r * c.y_pitch], c.pixels * sizeof(float)))
      return false;
  return true;
}

// Parts last to first, pixels in two pieces.
void multiply_in_pieces(const Kernels& kernels, const ProductCall& call, const Case& c) {
  const int64_t cut = c.pixels == 1 ? 0 : random()() % c.pixels / 16 * 16;
  for (int64_t part = call.matrix->num_parts - 1; part >= 0; part--) {
    kernels.product->multiply(call, part, cut, c.pixels - cut);
    if (cut > 0) kernels.product->multiply(call, part, 0, cut);
  }
}

void test_case(const Kernels& kernels, const Case& c) {
  const Strip x = random_strip(c.cols, c.pixels, c.x_pitch);
  const Strip residual = random_strip(c.rows, c.pixels, c.y_pitch);
  Strip y(c.rows, c.y_pitch), pieces(c.rows, c.y_pitch), one(c.rows, c.y_pitch);
  const PackedProduct packed = c.packed(kernels);
  const ProductMatrix& matrix = packed.matrix();
  const ProductCall call = call_of(c, kernels, matrix, x, residual, y);
  for (int64_t part = 0; part < matrix.num_parts; part++)
    kernels.product->multiply(call, part, 0, c.pixels);
  expect_product(c, x, residual, y, c.name(kernels));
  multiply_in_pieces(kernels, call_of(c, kernels, matrix, x, residual, pieces), c);
  expect(same_bits(c, y, pieces), "pieces give the same bits: " + c.name(kernels));
  const int64_t part = random()() % matrix.num_parts;
  kernels.product->multiply(call_of(c, kernels, matrix, x, residual, one), part, 0, c.pixels);
  for (int64_t r = 0; r < c.rows; r++) {
    const bool inside = r >= matrix.part_rows[part] && r < matrix.part_rows[part + 1];
    expect(std::isnan(one.at(r, 0)) != inside, "a part writes its rows: " + c.name(kernels));
  }
}

// Rows of kRows see only the columns that they use; no storage but kColumns, of which no weight is
// left out, sees columns that no row uses.
void test_not_finite(const Kernels& kernels, Case c) {
  if (c.layout.storage == Storage::kColumns) c.layout = {Storage::kRows, 0, 0, 0, 0};
  const int64_t col = random()() % c.cols;
  c.activation = {Function::kIdentity, 0, 0};
  c.has_residual = false;
  if (c.layout.storage != Storage::kRows)
    for (int64_t r = 0; r < c.rows; r++)
      c.weights[r * (c.cols / c.groups) + col % (c.cols / c.groups)] = 0;
  Strip x = random_strip(c.cols, c.pixels, c.x_pitch);
  for (int64_t p = 0; p < c.pixels; p++) x.at(c.at(col), p) = INFINITY;
  Strip y(c.rows, c.y_pitch);
  const PackedProduct packed = c.packed(kernels);
  const ProductCall call = call_of(c, kernels, packed.matrix(), x, y, y);
  for (int64_t part = 0; part < packed.matrix().num_parts; part++)
    kernels.product->multiply(call, part, 0, c.pixels);
  for (int64_t r = 0; r < c.rows; r++)
    for (int64_t p = 0; p < c.pixels; p++) {
      const float weight = c.weight(r, col);
      const bool right = weight == 0  ? std::isfinite(y.at(r, p))
                         : weight > 0 ? y.at(r, p) == INFINITY
                                      : y.at(r, p) == -INFINITY;
      expect(right, "infinity stays in its rows: " + c.name(kernels));
    }
}

void test_clamps_keep_nan(const Kernels& kernels) {
  Case c = {};
  c.rows = c.cols = 4;
  c.groups = 1;
  c.pixels = c.x_pitch = c.y_pitch = 16;
  c.layout = {Storage::kBlocks, 4, 0, 0, 0};
  c.weights.assign(16, 1);
  c.bias.assign(4, 0);
  c.activation = {Function::kClamp, 0, 6};
  const Strip x(4, 16);
  Strip y(4, 16);
  const PackedProduct packed = c.packed(kernels);
  kernels.product->multiply(call_of(c, kernels, packed.matrix(), x, y, y), 0, 0, 16);
  expect(std::isnan(y.at(0, 0)), "relu6 of NaN is NaN");
}

void test_layouts() {
  expect(is_layout({Storage::kRows, 0, 0, 0, 0}), "what is chosen is a layout");
  for (int64_t block : {1, 2, 4, 8}) {
    expect(is_layout({Storage::kRows, block, 0, 0, 0}), "rows are interleaved");
    expect(is_layout({Storage::kBlocks, block, 0, 0, 0}) == (block > 1), "blocks have rows");
    expect(is_layout({Storage::kMasks, block, 0, 0, 0}) == (block == 4), "masks are of 4 rows");
    expect(is_layout({Storage::kColumns, block, 0, 0, 0}) == (block == 1), "columns have no block");
  }
  expect(!is_layout({Storage::kRows, 3, 0, 0, 0}), "3 rows are no layout");
  for (Storage storage : {Storage::kRows, Storage::kColumns})
    expect(!is_layout({storage, 1, -1, 0, 0}), "a negative tile is no layout");
}

void test_product(const Kernels& kernels) {
  for (int i = 0; i < 600; i++) {
    const Case c = random_case();
    test_case(kernels, c);
    test_not_finite(kernels, c);
  }
  test_clamps_keep_nan(kernels);
}

const Test product(test_product), layouts(test_layouts);

}  // namespace
}  // namespace sparsejax::test
