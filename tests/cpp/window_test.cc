// Sliding windows against sums in float64, over scattered rows with NaN around them, missing rows,
// and all kinds of windows; what may be read and written is checked too.
#include "kernels/window.h"

#include <algorithm>
#include <numeric>

#include "kernels/elementwise.h"
#include "testing.h"

namespace sparsejax::test {
namespace {

struct Case {
  Window window;
  int64_t channels, in_rows, out_rows, out_pitch;
  int64_t behind;  // floats that may be overwritten behind the last row
  std::string name;
};

Window random_window() {
  Window w = {};
  w.kernel_y = any_of({1, 2, 3, 3, 3, 5, 7, 9, 12});
  w.kernel_x = random()() % 4 ? w.kernel_y : any_of({1, 2, 3, 4, 5});
  w.stride_y = any_of({1, 1, 1, 2, 2, 3});
  w.stride_x = random()() % 4 ? w.stride_y : any_of({1, 2, 3});
  w.dilation_y = any_of({1, 1, 1, 2, 3});
  w.dilation_x = random()() % 4 ? w.dilation_y : any_of({1, 2});
  w.pad_left = any_of({0, 1, 1, 2, 3, 9, 19});
  if (random()() % 3) w.pad_left = (w.kernel_x - 1) * w.dilation_x / 2;
  w.in_width = 1 + random()() % 40;
  const int64_t pad_right = random()() % 3 ? w.pad_left : any_of({0, 1, 9});
  const int64_t room = w.in_width + w.pad_left + pad_right - (w.kernel_x - 1) * w.dilation_x - 1;
  w.out_width = room < 0 ? 1 : room / w.stride_x + 1;
  return w;
}

Case random_case(const Kernels& kernels) {
  Case c = {};
  const Window& w = c.window = random_window();
  c.channels = any_of({1, 2, 5, 37});
  c.out_rows = any_of({1, 2, 3, 4, 5, 7, 8, 14, 17});
  c.in_rows = (c.out_rows - 1) * w.stride_y + (w.kernel_y - 1) * w.dilation_y + 1;
  const int64_t tight = c.out_rows * w.out_width;
  c.behind = std::max<int64_t>(16 - w.out_width, 0);
  const int64_t roomy = (tight + c.behind + 15) / 16 * 16;
  c.out_pitch = random()() % 4 ? roomy : tight;
  const auto pair = [](int64_t a, int64_t b) {
    return std::to_string(a) + "x" + std::to_string(b);
  };
  c.name = std::string(kernels.isa) + " kernel " + pair(w.kernel_y, w.kernel_x) + " stride " +
           pair(w.stride_y, w.stride_x) + " dilation " + pair(w.dilation_y, w.dilation_x) +
           " pad " + std::to_string(w.pad_left) + " width " + std::to_string(w.in_width) + " to " +
           pair(c.out_rows, w.out_width);
  return c;
}

// Rows in any order, each with 16 junk floats before and behind it.
struct Image {
  Image(const Case& c, bool with_nan) {
    const int64_t width = c.window.in_width, slot = width + 16, odd = random()() % 4;
    pitch = c.in_rows * slot + 16 + odd;
    floats = Floats(c.channels * pitch - odd, NAN);
    std::vector<int64_t> order(c.in_rows);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random());
    const int64_t above = random()() % 3, below = c.in_rows - random()() % 3;
    for (int64_t i = 0; i < c.in_rows; i++) {
      const bool missing = i < above || i >= below || random()() % 16 == 0;
      rows.push_back(missing ? nullptr : floats.data() + 16 + order[i] * slot);
      for (int64_t k = 0; k < c.channels && !missing; k++)
        for (int64_t x = 0; x < width; x++)
          floats.data()[16 + order[i] * slot + k * pitch + x] =
              with_nan && random()() % 50 == 0 ? NAN : static_cast<float>(2 * uniform() - 1);
    }
  }
  // What tap (ky, kx) of an output sees; false where that is outside.
  bool at(const Window& w, int64_t channel, int64_t o, int64_t x, int64_t tap, float* value) const {
    const float* row = rows[o * w.stride_y + tap / w.kernel_x * w.dilation_y];
    const int64_t column = x * w.stride_x + tap % w.kernel_x * w.dilation_x - w.pad_left;
    if (!row || column < 0 || column >= w.in_width) return false;
    *value = row[channel * pitch + column];
    return true;
  }
  Floats floats = Floats(0);
  std::vector<const float*> rows;
  int64_t pitch;
};

constexpr float kUntouched = 12345.f;

// Runs over all channels, once at a stroke and once in two parts, the later one first.
template <class Run>
Floats run_twice(const Kernels& kernels, const Case& c, const Image& image,
                 int64_t rows_per_channel, const std::string& what, const Run& run) {
  const int64_t used = c.out_rows * c.window.out_width, rows = c.channels * rows_per_channel;
  const int64_t size = (rows - 1) * c.out_pitch + used + c.behind;
  Floats once(size, kUntouched), parts(size, kUntouched);
  const int64_t scratch_size = kernels.window->scratch_floats(c.window, c.out_rows);
  std::vector<float> memory(scratch_size + 16, NAN);
  float* scratch = memory.data();
  while (reinterpret_cast<uintptr_t>(scratch) % 64) scratch++;
  const auto go = [&](int64_t begin, int64_t end, Floats& out) {
    run(WindowCall{c.window, image.rows.data(), image.pitch, begin, end, out.data(), c.out_pitch,
                   c.out_rows, scratch});
  };
  go(0, c.channels, once);
  const int64_t cut = random()() % (c.channels + 1);
  go(cut, c.channels, parts);
  go(0, cut, parts);
  for (int64_t r = 0; r < rows; r++) {
    const float *a = once.data() + r * c.out_pitch, *b = parts.data() + r * c.out_pitch;
    expect(!std::memcmp(a, b, used * sizeof(float)), what + " in parts, " + c.name);
    const int64_t end = r + 1 < rows ? c.out_pitch : used + c.behind;
    for (int64_t i = used + c.behind; i < end; i++)
      expect(a[i] == kUntouched, what + " writes behind its rows, " + c.name);
  }
  return once;
}

// Compares with oracle(row, o, x) -> {value, bound}; two NaN are equal.
template <class Oracle>
void compare(const Case& c, const Floats& got, int64_t rows, const std::string& what,
             const Oracle& oracle) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t o = 0; o < c.out_rows; o++)
      for (int64_t x = 0; x < c.window.out_width; x++) {
        const std::pair<double, double> want = oracle(r, o, x);
        const double y = got[r * c.out_pitch + o * c.window.out_width + x];
        if (y == want.first || std::abs(y - want.first) <= want.second) continue;
        if (std::isnan(y) && std::isnan(want.first)) continue;
        expect(false, what + " " + c.name + " [" + std::to_string(r) + "][" + std::to_string(o) +
                          "][" + std::to_string(x) + "]: " + std::to_string(y) + " instead of " +
                          std::to_string(want.first));
        return;
      }
}

// Room for whole vectors behind each channel, which functions other than clamps write.
void round_up_pitch(Case& c) {
  const int64_t used = c.out_rows * c.window.out_width, rounded = (used + 15) / 16 * 16;
  c.behind = std::max(c.behind, rounded - used);
  c.out_pitch = std::max(c.out_pitch, rounded);
}

void test_depthwise_window(const Kernels& kernels, Case c) {
  const Window& w = c.window;
  const int64_t taps = w.kernel_y * w.kernel_x;
  const Image image(c, false);
  const Floats weights = random_floats(c.channels * taps), bias = random_floats(c.channels);
  const Function function = static_cast<Function>(any_of({0, 1, 1, 3, 4, 9}));
  const ActivationCall activation = {function, function == Function::kClamp ? 0.f : 0.25f, 0.5f};
  if (function != Function::kClamp && function != Function::kIdentity) round_up_pitch(c);
  Floats sums(c.channels, NAN);
  const Floats got = run_twice(kernels, c, image, 1, "depthwise", [&](const WindowCall& call) {
    kernels.window->depthwise(call, weights.data(), bias.data(), activation, sums.data());
  });
  const int64_t pixels = c.out_rows * w.out_width;
  for (int64_t k = 0; k < c.channels; k++) {
    const float sum = kernels.elementwise->sum(got.data() + k * c.out_pitch, pixels);
    expect(!std::memcmp(&sum, sums.data() + k, sizeof sum), "sums of depthwise, " + c.name);
  }
  compare(c, got, c.channels, "depthwise", [&](int64_t k, int64_t o, int64_t x) {
    double sum = bias[k], size = std::abs(sum);
    for (int64_t t = 0; t < taps; t++) {
      float value;
      if (!image.at(w, k, o, x, t, &value)) continue;
      sum += double{weights[k * taps + t]} * value;
      size += std::abs(weights[k * taps + t] * value);
    }
    if (function == Function::kClamp) sum = std::clamp(sum, 0., .5);
    if (function == Function::kSilu) sum /= 1 + std::exp(-sum);
    if (function == Function::kHardSigmoid) sum = std::clamp(sum + 3, 0., 6.) / 6;
    if (function == Function::kLeakyRelu && sum < 0) sum *= .25;
    return std::pair<double, double>(sum, 1e-6 + 1e-6 * size);
  });
}

void test_columns(const Kernels& kernels, const Case& c) {
  const Image image(c, true);
  const int64_t taps = c.window.kernel_y * c.window.kernel_x;
  const Floats gate = random_floats(c.channels);
  const bool gated = random()() % 2;
  const Floats got = run_twice(kernels, c, image, taps, "columns", [&](const WindowCall& call) {
    kernels.window->columns(call, gated ? gate.data() : nullptr);
  });
  compare(c, got, c.channels * taps, "columns", [&](int64_t r, int64_t o, int64_t x) {
    float value = 0;
    const bool there = image.at(c.window, r / taps, o, x, r % taps, &value);
    if (there && gated) value *= gate[r / taps];
    return std::pair<double, double>(value, 0);
  });
}

void test_pools(const Kernels& kernels, const Case& c) {
  const int64_t taps = c.window.kernel_y * c.window.kernel_x;
  const Image image(c, true);
  const Floats most = run_twice(kernels, c, image, 1, "max pool",
                                [&](const WindowCall& call) { kernels.window->max_pool(call); });
  compare(c, most, c.channels, "max pool", [&](int64_t k, int64_t o, int64_t x) {
    double best = -INFINITY;
    for (int64_t t = 0; t < taps; t++) {
      float value;
      if (!image.at(c.window, k, o, x, t, &value) || std::isnan(best)) continue;
      best = std::isnan(value) ? NAN : std::max<double>(best, value);
    }
    return std::pair<double, double>(best, 0);
  });
  const Floats scale = random_floats(c.out_rows * c.window.out_width);
  const Floats mean = run_twice(kernels, c, image, 1, "average pool", [&](const WindowCall& call) {
    kernels.window->average_pool(call, scale.data());
  });
  compare(c, mean, c.channels, "average pool", [&](int64_t k, int64_t o, int64_t x) {
    double sum = 0;
    for (int64_t t = 0; t < taps; t++) {
      float value;
      if (image.at(c.window, k, o, x, t, &value)) sum += value;
    }
    return std::pair<double, double>(sum * scale[o * c.window.out_width + x], 1e-6 * (1 + taps));
  });
}

void test_window(const Kernels& kernels) {
  for (int i = 0; i < 1500; i++) {
    test_depthwise_window(kernels, random_case(kernels));
    if (i % 3 == 0) test_columns(kernels, random_case(kernels));
    if (i % 3 == 0) test_pools(kernels, random_case(kernels));
  }
}

const Test window(test_window);

}  // namespace
}  // namespace sparsejax::test
