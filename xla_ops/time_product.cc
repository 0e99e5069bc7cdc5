// Times one layout of weights on this machine; see pack_product.h.
#include <chrono>
#include <cstdlib>
#include <memory>
#include <random>

#include "pack_product.h"

namespace sparsejax {
namespace {

struct Free {
  void operator()(float* p) const { std::free(p); }
};
typedef std::unique_ptr<float[], Free> Strip;

Strip strip(int64_t channels, int64_t pitch) {
  const size_t bytes = (channels * pitch * sizeof(float) + 63) / 64 * 64;
  return Strip(static_cast<float*>(std::aligned_alloc(64, bytes)));
}

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

double time_product(const float* weights, int64_t rows, int64_t cols, int64_t pixels,
                    int64_t x_pitch, const ProductLayout& layout, const ProductKernels& kernels,
                    double seconds) {
  const PackedProduct packed(weights, rows, cols, pixels, x_pitch, layout, kernels);
  const Strip x = strip(cols, x_pitch), y = strip(rows, x_pitch);
  std::minstd_rand random(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (int64_t i = 0; i < cols * x_pitch; i++) x[i] = uniform(random);
  const std::vector<float> bias(rows, 0.1f);
  const ProductCall call = {&packed.matrix(), x.get(), y.get(), x_pitch,
                            bias.data(),      nullptr, 0,       {Function::kClamp, 0.f, 6.f}};
  double best = 1e9;
  for (const double end = now() + seconds;;) {
    const double start = now();
    for (int64_t part = 0; part < packed.matrix().num_parts; part++)
      kernels.multiply(call, part, 0, pixels);
    const double stop = now();
    if (stop - start < best) best = stop - start;
    if (stop >= end) return best;
  }
}

}  // namespace sparsejax
