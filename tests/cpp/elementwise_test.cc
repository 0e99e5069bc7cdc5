// Elementwise kernels against libm in float64: functions over special, random and all sizes of
// values, sums and maxima with NaN, changes of layout of every small size.
#include "kernels/elementwise.h"

#include "files/codes.h"
#include "testing.h"

namespace sparsejax::test {
namespace {

constexpr float kLow = 0.25f, kHigh = 3.f;

// Relative error in ulp, and absolute where 1 + tanh or 1 + erf cancel; denormals may become 0.
double bound(Function function, double x, double y) {
  const bool cancels = function == Function::kGeluTanh || function == Function::kGeluErf;
  const bool hard = function == Function::kHardSigmoid || function == Function::kHardSwish;
  return 3 * 1.2e-7 * std::abs(y) +
         (cancels || hard ? 4e-7 : 1.2e-38 * (1 + std::fmin(std::abs(x), 1e3)));
}

Floats values() {
  const std::vector<float> special = {0.f,   -0.f,   1e-45f, -1e-45f, 1e-39f,   -1e-39f,   1e-20f,
                                      1.f,   -1.f,   0.625f, 88.7f,   -88.7f,   103.9f,    -103.9f,
                                      1e30f, -1e30f, 3e38f,  -3e38f,  INFINITY, -INFINITY, NAN};
  Floats x(1 << 18);
  for (int64_t i = 0; i < x.size(); i++) {
    const uint32_t bits = random()();
    std::memcpy(x.data() + i, &bits, sizeof(float));
    if (i % 4) x.data()[i] = static_cast<float>((uniform() - 0.5) * (i % 2 ? 12 : 220));
  }
  for (size_t i = 0; i < special.size(); i++) x.data()[i] = special[i];
  return x;
}

bool same(double got, double want, double within) {
  return got == want || std::abs(got - want) <= within || (std::isnan(got) && std::isnan(want));
}

void expect_all(const Floats& got, const Floats& want, const std::string& what) {
  for (int64_t i = 0; i < want.size(); i++)
    if (!same(got[i], want[i], 0))
      return expect(false, what + " [" + std::to_string(i) + "]: " + std::to_string(got[i]) +
                               " instead of " + std::to_string(want[i]));
}

void test_functions(const Kernels& kernels) {
  const Floats x = values();
  for (int64_t code = 0; code < kNumFunctions; code++) {
    const Function function = static_cast<Function>(code);
    Floats y(x.size());
    kernels.elementwise->activate({function, kLow, kHigh}, x.data(), x.size(), y.data());
    for (int64_t i = 0; i < x.size(); i++) {
      const double want = static_cast<float>(exact({function, kLow, kHigh}, x[i]));
      if (same(y[i], want, bound(function, x[i], want))) continue;
      char text[99];
      std::snprintf(text, sizeof text, "(%g): %.9g instead of %.9g", x[i], y[i], want);
      expect(false, std::string(kernels.isa) + " function " + std::to_string(code) + text);
      break;
    }
  }
}

// Arrays one behind the other are each made as alone, to the bit; what lies between them stays.
void test_rows_of_functions(const Kernels& kernels) {
  const int64_t rows = any_of({1, 2, 3, 7}), n = any_of({1, 15, 16, 33, 49, 80});
  const int64_t room = (n + 15) / 16 * 16, pitch = room + any_of({0, 16, 40});
  const Floats x = random_floats(rows * pitch);
  for (int64_t code = 0; code < kNumFunctions; code++) {
    const ActivationCall call = {static_cast<Function>(code), kLow, kHigh};
    Floats all = x, each = x;
    kernels.elementwise->activate_rows(call, all.data(), n, rows, pitch, all.data());
    for (int64_t at = 0; at < rows * pitch; at += pitch)
      kernels.elementwise->activate(call, x.data() + at, n, each.data() + at);
    expect_all(all, each, std::string(kernels.isa) + " rows of function " + std::to_string(code));
    for (int64_t i = 0; i < rows * pitch; i++)
      if (i % pitch >= room && all[i] != x[i])
        return expect(false, std::string(kernels.isa) + " writes between rows");
  }
}

// Whole vectors up to n rounded up to 16 belong to each array.
Floats rounded(int64_t n) {
  Floats x((n + 15) / 16 * 16, NAN);
  for (int64_t i = 0; i < n; i++)
    x.data()[i] = random()() % 20 ? static_cast<float>(2 * uniform() - 1) : NAN;
  return x;
}

float combined(Binary op, float a, float b) {
  switch (op) {
    case Binary::kAdd:
      return a + b;
    case Binary::kSub:
      return a - b;
    case Binary::kMul:
      return a * b;
    case Binary::kMax:
      return std::isnan(a) || std::isnan(b) ? NAN : std::max(a, b);
    case Binary::kDiv:
      return a / b;
    case Binary::kLessEqual:
      return a <= b;
    case Binary::kKeep:
      return b != 0 ? a : 0;
    case Binary::kQuotient:
      return std::trunc(a / b);
    case Binary::kSlope:
      return a > 0 ? a : a * b;
    case Binary::kMin:
      return std::isnan(a) || std::isnan(b) ? NAN : std::min(a, b);
  }
  return NAN;
}

void test_binary(const Kernels& kernels, int64_t n) {
  const Floats a = rounded(n), b = rounded(n);
  for (const Function function : {Function::kIdentity, Function::kClamp, Function::kLeakyRelu})
    for (const Code& code : kBinaries) {
      const auto op = static_cast<Binary>(code.code);
      const ActivationCall activation = {function, kLow, kHigh};
      Floats both(n), number(n), got(a.size()), in_place = b;
      for (int64_t i = 0; i < n; i++) {
        both.data()[i] = static_cast<float>(exact(activation, combined(op, a[i], b[i])));
        number.data()[i] = static_cast<float>(exact(activation, combined(op, a[i], 0.5f)));
      }
      const std::string name = std::string(kernels.isa) + " binary " +
                               std::to_string(static_cast<int>(op)) + " of " + std::to_string(n);
      kernels.elementwise->binary(op, activation, a.data(), in_place.data(), n, in_place.data());
      expect_all(in_place, both, name);
      kernels.elementwise->binary_number(op, activation, a.data(), 0.5f, n, got.data());
      expect_all(got, number, name + " with a number");
    }
  Floats affine(a.size()), want(n);
  kernels.elementwise->affine({Function::kClamp, -2.f, kHigh}, a.data(), 2.f, 0.25f, n,
                              affine.data());
  for (int64_t i = 0; i < n; i++) want.data()[i] = std::fma(2.f, a[i], 0.25f);
  expect_all(affine, want, std::string(kernels.isa) + " affine");
}

void test_sum(const Kernels& kernels, int64_t n) {
  const Floats x = random_floats(n);
  double want = 0;
  for (int64_t i = 0; i < n; i++) want += x[i];
  expect(std::abs(kernels.elementwise->sum(x.data(), n) - want) <= 1e-6 * (1 + n),
         std::string(kernels.isa) + " sum of " + std::to_string(n));
}

void test_layout(const Kernels& kernels, int64_t count, int64_t channels) {
  const int64_t pitch = (count + 15) / 16 * 16;
  const Floats pixels = random_floats(count * channels);
  Floats planes(channels * pitch, NAN), back(count * channels, NAN);
  kernels.elementwise->to_planes(pixels.data(), count, channels, planes.data(), pitch);
  bool moved = true;
  for (int64_t p = 0; p < count; p++)
    for (int64_t c = 0; c < channels; c++)
      moved &= planes[c * pitch + p] == pixels[p * channels + c];
  const std::string name = std::to_string(count) + " pixels of " + std::to_string(channels);
  expect(moved, std::string(kernels.isa) + " to planes, " + name);
  kernels.elementwise->to_pixels(planes.data(), pitch, count, channels, back.data());
  expect(back.same_bits(pixels), std::string(kernels.isa) + " to pixels, " + name);
}

void test_elementwise(const Kernels& kernels) {
  test_functions(kernels);
  for (int i = 0; i < 20; i++) test_rows_of_functions(kernels);
  for (int64_t n : {0, 1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 257}) {
    test_binary(kernels, n);
    test_sum(kernels, n);
  }
  for (int64_t count : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 50})
    for (int64_t channels : {1, 2, 3, 4, 5, 7, 8, 9, 16, 19, 32, 40})
      test_layout(kernels, count, channels);
}

const Test elementwise(test_elementwise);

}  // namespace
}  // namespace sparsejax::test
