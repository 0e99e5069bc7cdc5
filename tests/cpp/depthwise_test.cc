// Depthwise convolution and its gradients against sums in float64, over random sizes, strides, pads
// and dilations.
#include "testing.h"

namespace sparsejax::test {
namespace {

AxisSizes random_axis() {
  AxisSizes s;
  s.in = any_of({0, 1, 2, 5, 7, 8, 13, 20, 37});
  s.kernel = any_of({1, 2, 3, 3, 3, 4, 5, 6, 7, 11});
  s.stride = any_of({1, 1, 2, 2, 3});
  s.dilation = any_of({1, 1, 1, 2, 3});
  s.pad_low = any_of({0, 1, 2, 3, 9, -1});
  const int64_t pad_high = any_of({0, 1, 2, 3, 9, -1});
  const int64_t room = s.in + s.pad_low + pad_high - (s.kernel - 1) * s.dilation - 1;
  s.out = room < 0 ? 0 : room / s.stride + 1;
  return s;
}

struct Index {
  const ConvSizes& sizes;
  int64_t height, width;
  int64_t operator()(int64_t image, int64_t y, int64_t x, int64_t c) const {
    return sizes.channels_last ? ((image * height + y) * width + x) * sizes.channels + c
                               : ((image * sizes.channels + c) * height + y) * width + x;
  }
};

template <class F>  // f(tap, channel, input, output)
void for_each_product(const ConvSizes& s, const F& f) {
  const Index in = {s, s.y.in, s.x.in}, out = {s, s.y.out, s.x.out};
  for (int64_t image = 0; image < s.images; image++)
    for (int64_t oy = 0; oy < s.y.out; oy++)
      for (int64_t ox = 0; ox < s.x.out; ox++)
        for (int64_t ky = 0; ky < s.y.kernel; ky++)
          for (int64_t kx = 0; kx < s.x.kernel; kx++) {
            const int64_t y = oy * s.y.stride + ky * s.y.dilation - s.y.pad_low;
            const int64_t x = ox * s.x.stride + kx * s.x.dilation - s.x.pad_low;
            if (y < 0 || y >= s.y.in || x < 0 || x >= s.x.in) continue;
            for (int64_t c = 0; c < s.channels; c++)
              f(ky * s.x.kernel + kx, c, in(image, y, x, c), out(image, oy, ox, c));
          }
}

struct Expected {
  explicit Expected(int64_t n) : sum(n), magnitude(n) {}
  void add(int64_t i, double product) {
    sum[i] += product;
    magnitude[i] += std::abs(product);
  }
  std::vector<double> sum, magnitude;
};

// Runs with one thread and with three, and compares.
template <class Run>
void check(const Run& run, int64_t n, const Expected& expected, const std::string& what) {
  Floats one(n, NAN), three(n, NAN);
  expect(run(ThreadPool{}, one.data()), what + " fits the scratch");
  expect_close(one, expected.sum, expected.magnitude, what);
  Threads threads;
  expect(run(threads.pool(3), three.data()), what + " fits the scratch");
  expect(one.same_bits(three), what + " with 3 threads");
}

void test_one(const Kernels& kernels) {
  const ConvSizes s = {any_of({0, 1, 3}), any_of({0, 1, 3, 4, 8, 15, 16, 17, 31, 40}),
                       random_axis(), random_axis(), random()() % 2 == 0};
  const std::string name = std::string(kernels.isa) + (s.channels_last ? " NHWC " : " NCHW ") +
                           std::to_string(s.channels) + "x" + std::to_string(s.y.in) + "x" +
                           std::to_string(s.x.in) + " kernel " + std::to_string(s.y.kernel) + "x" +
                           std::to_string(s.x.kernel) + " stride " + std::to_string(s.x.stride);
  const int64_t taps = s.y.kernel * s.x.kernel, in_size = s.images * s.channels * s.y.in * s.x.in;
  const int64_t out_size = s.images * s.channels * s.y.out * s.x.out;
  const Floats kernel = random_floats(taps * s.channels), bias = random_floats(s.channels);
  const Floats x = random_floats(in_size), grad_y = random_floats(out_size);
  const bool has_bias = random()() % 2;
  const Activation activation = static_cast<Activation>(random()() % 3);
  Expected y(out_size), grad_x(in_size), grads((taps + 1) * s.channels);
  for_each_product(s, [&](int64_t tap, int64_t c, int64_t in, int64_t out) {
    const int64_t k = tap * s.channels + c;
    y.add(out, double{kernel[k]} * x[in]);
    grad_x.add(in, double{kernel[k]} * grad_y[out]);
    grads.add(k, double{x[in]} * grad_y[out]);
  });
  for (int64_t i = 0; i < out_size; i++) {
    const int64_t c = s.channels_last ? i % s.channels : i / (s.y.out * s.x.out) % s.channels;
    y.sum[i] = activated(activation, y.sum[i] + (has_bias ? bias[c] : 0));
    grads.add(taps * s.channels + c, grad_y[i]);
  }
  check(
      [&](const ThreadPool& pool, float* to) {
        return run_depthwise(kernels, pool, s, kernel.data(), has_bias ? bias.data() : nullptr,
                             activation, x.data(), to);
      },
      out_size, y, "depthwise " + name);
  check(
      [&](const ThreadPool& pool, float* to) {
        return run_depthwise_grad_x(kernels, pool, s, kernel.data(), grad_y.data(), to);
      },
      in_size, grad_x, "gradient of x " + name);
  check(
      [&](const ThreadPool& pool, float* to) {
        return run_depthwise_grad_kernel(kernels, pool, s, x.data(), grad_y.data(), to,
                                         to + taps * s.channels);
      },
      (taps + 1) * s.channels, grads, "gradient of the kernel " + name);
}

void test_depthwise(const Kernels& kernels) {
  for (int i = 0; i < 600; i++) test_one(kernels);
}

const Test depthwise(test_depthwise);

}  // namespace
}  // namespace sparsejax::test
