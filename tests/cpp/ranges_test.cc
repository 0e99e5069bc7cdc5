// Each number of a program at both of its ends, and one beyond.
#include <tuple>

#include "every_step.h"

namespace sparsejax::test {
namespace {

// A number of the valid program may be anything from `low` to `high`.
template <class F>
void expect_range(const char* message, int64_t low, int64_t high, const F& field) {
  const auto is_said = [&](int64_t number) {
    Draft d = valid();
    field(d) = number;
    return refusal(d.words(), d.floats).find(message) != std::string::npos;
  };
  for (int64_t number : {low - 1, high + 1})
    expect(is_said(number), std::string(message) + ": " + std::to_string(number) + " is refused");
  for (int64_t number : {low, high})
    expect(!is_said(number), std::string(message) + ": " + std::to_string(number) + " is taken");
}

void test_fields_in_range() {
  using L = ProductLayout;
  constexpr int64_t kSide = 1 << 24;
  for (auto side : {&ImageSize::height, &ImageSize::width})
    expect_range("a value's size", 1, kSide,
                 [=](Draft& d) -> int64_t& { return d.values[kPad].*side; });
  for (auto side : {&Window::kernel_y, &Window::kernel_x, &Window::stride_y, &Window::stride_x,
                    &Window::dilation_y, &Window::dilation_x})
    expect_range("a window's size", 1, kSide,
                 [=](Draft& d) -> int64_t& { return d.steps[kPool].window.*side; });
  expect_range("padding", 0, kSide, [](Draft& d) -> int64_t& { return d.steps[kPool].pad_top; });
  expect_range("padding", 0, kSide,
               [](Draft& d) -> int64_t& { return d.steps[kPool].window.pad_left; });
  const std::pair<int64_t L::*, int64_t> layout[] = {
      {&L::block, 8}, {&L::tile, 16}, {&L::chunk_cols, kSide}, {&L::num_parts, 64}};
  for (const auto& [field, high] : layout)
    expect_range(" is ", 0, high,
                 [field = field](Draft& d) -> int64_t& { return d.steps[kProduct].layout.*field; });
  const auto last_value = static_cast<int64_t>(valid().values.size()) - 1;
  const std::tuple<const char*, int64_t Step::*, int64_t> places[] = {
      {"a residual is", &Step::residual, last_value},
      {"a gate is", &Step::gate, last_value},
      {"of weights", &Step::weights, before_end(valid(), 0)},
      {"of a bias", &Step::bias, before_end(valid(), 0)}};
  for (const auto& [message, field, high] : places)
    expect_range(message, kNone, high,
                 [field = field](Draft& d) -> int64_t& { return d.steps[kProduct].*field; });
  for (size_t step : {kX, kFirstOutput})
    expect_range("numbered wrongly", 1, 16,
                 [=](Draft& d) -> int64_t& { return d.steps[step].rank; });
}

void test_sizes_in_range() {
  const int64_t far = ((1 << 24) - 1023 * 1024) / 2;  // rows or columns, two apart, that fit in
  for (int64_t more : {0, 1}) {
    Draft large = valid();
    large.values[kPad] = {128 + more, 1 << 12, 1 << 12};
    const std::string said = refusal(large.words(), large.floats);
    expect((said.find("too large") != std::string::npos) == more, "values of 2^31 floats");
    for (bool rows : {false, true}) {
      Draft d = valid();
      Window& w = d.steps[kPool].window;
      (rows ? w.kernel_y : w.kernel_x) = (rows ? w.dilation_y : w.dilation_x) = 1024;
      (rows ? d.values[kPool].height : d.values[kPool].width) = far + more;
      const bool refused = refusal(d.words(), d.floats).find("too far") != std::string::npos;
      expect(refused == more, "a window reaches less than 2^24 places");
    }
  }
}

void test_ranges() {
  test_fields_in_range();
  test_sizes_in_range();
}

const Test ranges(test_ranges);

}  // namespace
}  // namespace sparsejax::test
