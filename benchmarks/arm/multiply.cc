// One layer of random weights: multiply STORAGE BLOCK ROWS COLS PIXELS SPARSITY REPEATS
//
// Packs the weights, multiplies as often as it is told, and compares the last result with the sums
// in double precision. Prints the number of nonzeros; exits with 1 when a result is wrong.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "engine/pack_product.h"

namespace sparsejax::neon {
extern const ProductKernels product;
}

using namespace sparsejax;

namespace {

struct Layer {
  ProductLayout layout;
  int64_t rows, cols, pixels;
  std::vector<float> weights, bias;
};

// Single weights, or blocks of `block` x 1, of which the fraction `sparsity` is zero.
Layer make(int64_t storage, int64_t block, int64_t rows, int64_t cols, int64_t pixels,
           double sparsity) {
  std::mt19937 random(0);
  std::normal_distribution<float> normal;
  const bool blocks = Storage(storage) == Storage::kBlocks;
  const int64_t height = blocks ? block : 1;
  Layer layer{{Storage(storage), block, 0, 0, 1}, rows, cols, pixels, {}, {}};
  layer.weights.resize(rows * cols);
  layer.bias.resize(rows);
  for (float& b : layer.bias) b = normal(random);
  std::vector<int64_t> places(rows / height * cols);
  std::iota(places.begin(), places.end(), 0);
  std::shuffle(places.begin(), places.end(), random);
  places.resize(std::llround(places.size() * (1 - sparsity)));
  for (const int64_t place : places)
    for (int64_t r = 0; r < height; ++r)
      layer.weights[(place / cols * height + r) * cols + place % cols] = normal(random);
  return layer;
}

float* aligned(std::vector<float>& memory, int64_t size) {
  memory.assign(size + 16, 0.0f);
  void* start = memory.data();
  size_t space = memory.size() * sizeof(float);
  return static_cast<float*>(std::align(64, size * sizeof(float), start, space));
}

bool right(const Layer& layer, const float* x, const float* y, int64_t pitch) {
  for (int64_t r = 0; r < layer.rows; ++r) {
    std::vector<int64_t> used;
    const float* weights = &layer.weights[r * layer.cols];
    for (int64_t c = 0; c < layer.cols; ++c)
      if (weights[c] != 0) used.push_back(c);
    for (int64_t p = 0; p < layer.pixels; ++p) {
      double sum = layer.bias[r], size = std::fabs(sum);
      for (const int64_t c : used) {
        const double term = double(weights[c]) * x[c * pitch + p];
        sum += term;
        size += std::fabs(term);
      }
      const double expected = std::min(std::max(sum, 0.0), 6.0);
      if (!(std::fabs(y[r * pitch + p] - expected) <= 1e-5 * size)) return false;
    }
  }
  return true;
}

int run(const Layer& layer, int repeats) {
  const int64_t pitch = (layer.pixels + 15) / 16 * 16;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> x_memory, y_memory;
  float* x = aligned(x_memory, layer.cols * pitch);
  float* y = aligned(y_memory, layer.rows * pitch);
  for (int64_t i = 0; i < layer.cols * pitch; ++i) x[i] = normal(random);
  const PackedProduct packed({layer.weights.data(), layer.rows, layer.cols}, layer.pixels, pitch,
                             layer.layout, neon::product);
  const ProductCall call{&packed.matrix(),        x, pitch, y, pitch, layer.bias.data(), nullptr, 0,
                         {Function::kClamp, 0, 6}};
  for (int i = 0; i < repeats; ++i)
    for (int64_t part = 0; part < packed.matrix().num_parts; ++part)
      neon::product.multiply(call, part, 0, layer.pixels);
  const int64_t zeros = std::count(layer.weights.begin(), layer.weights.end(), 0.0f);
  std::printf("%lld\n", static_cast<long long>(layer.rows * layer.cols - zeros));
  return repeats > 1 || right(layer, x, y, pitch) ? 0 : 1;
}

}  // namespace

int main(int, char** arguments) {
  int64_t numbers[5];
  for (int i = 0; i < 5; ++i) numbers[i] = std::atoll(arguments[i + 1]);
  const Layer layer =
      make(numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], std::atof(arguments[6]));
  return run(layer, std::atoi(arguments[7]));
}
