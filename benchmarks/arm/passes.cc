// One pass of a kernel over random maps: passes KIND CHANNELS SIZE STRIDE REPEATS
//
// KIND is "depthwise" (3x3, with bias and relu6), "affine", "add" or "silu". Computes as often as
// it is told and compares the last result with the sums in double precision. Prints how many
// numbers are multiplied or, of the others, come out; exits with 1 when a result is wrong.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/elementwise.h"
#include "kernels/window.h"

namespace sparsejax::neon {
extern const ElementwiseKernels elementwise;
extern const WindowKernels window;
}  // namespace sparsejax::neon

using namespace sparsejax;

namespace {

constexpr int64_t kBeside = 16;  // floats that kernels may touch
constexpr ActivationCall kRelu6 = {Function::kClamp, 0, 6}, kSilu = {Function::kSilu, 0, 0};

struct Floats {
  std::vector<float> memory;
  float* data;
  explicit Floats(int64_t size, bool random = true) : memory(size + 3 * kBeside) {
    static std::mt19937 generator(0);
    std::normal_distribution<float> normal;
    for (float& x : memory)
      if (random) x = normal(generator);
    void* start = memory.data() + kBeside;
    size_t space = memory.size() * sizeof(float);
    data = static_cast<float*>(std::align(64, size * sizeof(float), start, space));
  }
};

bool close(double expected, float found) {
  return std::fabs(expected - found) <= 1e-5 * (1 + std::fabs(expected));
}

double relu6(double x) { return std::min(std::max(x, 0.0), 6.0); }

struct Maps {
  int64_t channels, size, stride;
  int64_t out() const { return (size - 1) / stride + 1; }
  int64_t pitch() const { return size * size + kBeside; }
};

double depthwise_at(const Maps& m, const float* x, const float* weights, int64_t row, int64_t col) {
  double sum = 0;
  for (int64_t k = 0; k < 9; k++) {
    const int64_t y = row * m.stride + k / 3 - 1, z = col * m.stride + k % 3 - 1;
    if (y >= 0 && y < m.size && z >= 0 && z < m.size) sum += double(weights[k]) * x[y * m.size + z];
  }
  return sum;
}

bool depthwise(const Maps& m, int repeats) {
  const int64_t out = m.out(), pixels = out * out;
  const Floats x(m.channels * m.pitch()), weights(9 * m.channels), bias(m.channels);
  Floats y(m.channels * (pixels + kBeside), false);
  std::vector<const float*> rows((out - 1) * m.stride + 3);
  for (int64_t row = 0; row < static_cast<int64_t>(rows.size()); row++)
    rows[row] = row >= 1 && row <= m.size ? x.data + (row - 1) * m.size : nullptr;
  const Window window = {3, 3, m.stride, m.stride, 1, 1, 1, m.size, out};
  const Floats scratch(neon::window.scratch_floats(window, out), false);
  const WindowCall call = {window, rows.data(),      m.pitch(), 0,           m.channels,
                           y.data, pixels + kBeside, out,       scratch.data};
  for (int i = 0; i < repeats; i++)
    neon::window.depthwise(call, weights.data, bias.data, kRelu6, nullptr);
  for (int64_t c = 0; c < m.channels; c++)
    for (int64_t p = 0; p < pixels; p++) {
      const double sum =
          depthwise_at(m, x.data + c * m.pitch(), weights.data + 9 * c, p / out, p % out);
      if (!close(relu6(bias.data[c] + sum), y.data[c * (pixels + kBeside) + p])) return false;
    }
  return true;
}

bool elementwise(const std::string& kind, int64_t n, int repeats) {
  const Floats a(n), b(n);
  Floats y(n, false);
  const ElementwiseKernels& kernels = neon::elementwise;
  for (int i = 0; i < repeats; i++) {
    if (kind == "affine") kernels.affine(kRelu6, a.data, 1.5f, 0.25f, n, y.data);
    if (kind == "add") kernels.binary(Binary::kAdd, kRelu6, a.data, b.data, n, y.data);
    if (kind == "silu") kernels.activate(kSilu, a.data, n, y.data);
  }
  for (int64_t i = 0; i < n; i++) {
    const double x = a.data[i];
    const double expected = kind == "affine" ? relu6(1.5 * x + 0.25)
                            : kind == "add"  ? relu6(x + b.data[i])
                                             : x / (1 + std::exp(-x));
    if (!close(expected, y.data[i])) return false;
  }
  return true;
}

}  // namespace

int main(int, char** arguments) {
  const std::string kind = arguments[1];
  const Maps maps = {std::atoll(arguments[2]), std::atoll(arguments[3]), std::atoll(arguments[4])};
  const int repeats = std::atoi(arguments[5]);
  const bool window = kind == "depthwise";
  const int64_t out = maps.channels * maps.out() * maps.out();
  std::printf("%lld\n", static_cast<long long>(window ? 9 * out : out));
  return (window ? depthwise(maps, repeats) : elementwise(kind, out, repeats)) ? 0 : 1;
}
