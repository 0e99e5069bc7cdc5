// Draws valid programs; see programs.h.
#include <algorithm>

#include "programs.h"

namespace sparsejax::test {
namespace {

class Growth {
 public:
  explicit Growth(Choices& choices)
      : c_(choices), generator_(static_cast<uint32_t>(c_.below(65536))) {}

  Draft draft() {
    const int64_t num_inputs = 1 + c_.below(3), num_steps = 1 + c_.below(9);
    column_ = c_.percent(20);
    for (int64_t i = 0; i < num_inputs; i++) {
      ImageSize size = {c_.of({1, 3, 8, 17}), c_.of({1, 5, 16, 33}), c_.of({1, 7, 24, 40})};
      if (column_) size = {size.channels, c_.of({2, 3, 4, 7, 8, 13, 16, 50, 64, 65}), 1};
      if (column_ && i > 0) size.height = d_.values[0].height;
      if (i > 0 && c_.percent(60)) size = d_.values[0];
      if (i > 0 && !column_ && c_.percent(30)) size = {d_.values[0].channels, 1, 1};
      Step& step = d_.add(Op::kInput, size, {});
      step.argument = i;
      step.rank = c_.of({3, 1, 2});
      step.channels_last = c_.below(2);
    }
    for (int64_t i = 0; i < num_steps; i++) grow();
    output();
    return d_;
  }

 private:
  const ImageSize& size(int64_t value) const { return d_.values[value]; }

  // Mostly the last value, else any.
  int64_t any() { return c_.percent(70) ? d_.last() : c_.below(d_.last() + 1); }

  // A value that `fits`, kNone if there is none.
  template <class F>
  int64_t find(const F& fits) {
    const int64_t n = d_.last() + 1, start = c_.below(n);
    for (int64_t i = 0; i < n; i++)
      if (fits(size((start + i) % n))) return (start + i) % n;
    return kNone;
  }

  ActivationCall activation() {
    const auto function = static_cast<Function>(c_.percent(50) ? c_.below(kNumFunctions) : 0);
    if (function == Function::kClamp) return {function, c_.percent(50) ? 0.f : -.5f, 1.5f};
    return {function, .25f, 0.f};
  }

  ProductLayout layout() {
    ProductLayout layout = {};
    layout.storage = static_cast<Storage>(c_.below(kSkipsZeros ? 4 : 3));
    layout.block = layout.storage == Storage::kRows     ? c_.of({0, 1, 2, 4, 8})
                   : layout.storage == Storage::kBlocks ? c_.of({0, 2, 4, 8})
                   : layout.storage == Storage::kMasks  ? 4
                                                        : 1;
    layout.tile = c_.of({0, 1, 2, 5, 16});
    layout.chunk_cols = c_.of({0, 0, 1, 9, 64});
    layout.num_parts = c_.of({0, 1, 3, 20});
    return layout;
  }

  // Fills in a window and returns its output's size.
  ImageSize slide(Window& w, int64_t& pad_top, ImageSize in, int64_t channels) {
    w.kernel_y = c_.of({3, 1, 2, 5, 7, 4});
    w.kernel_x = c_.percent(60) ? w.kernel_y : c_.of({1, 2, 3, 5});
    w.stride_y = c_.of({1, 2, 3});
    w.stride_x = c_.percent(60) ? w.stride_y : c_.of({1, 2, 3});
    w.dilation_y = c_.of({1, 1, 2, 3});
    w.dilation_x = c_.percent(60) ? w.dilation_y : c_.of({1, 2, 3});
    pad_top = c_.percent(60) ? (w.kernel_y - 1) * w.dilation_y / 2 : c_.below(20);
    w.pad_left = c_.percent(60) ? (w.kernel_x - 1) * w.dilation_x / 2 : c_.below(20);
    const auto out = [&](int64_t size, int64_t pad, int64_t kernel, int64_t dilation,
                         int64_t stride) {
      const int64_t room = size + 2 * pad - (kernel - 1) * dilation - 1;
      return std::max<int64_t>(room, 0) / stride + 1 + c_.of({0, 0, 0, 2});
    };
    return {channels, out(in.height, pad_top, w.kernel_y, w.dilation_y, w.stride_y),
            out(in.width, w.pad_left, w.kernel_x, w.dilation_x, w.stride_x)};
  }

  void grow() {
    const int64_t x = any(), kind = c_.below(20);
    if (size(x).floats() > 20000 && kind != 4) return;
    if (kind <= 1 || (column_ && (kind == 2 || kind == 3))) return product(x);
    if (kind == 2) return depthwise(x);
    if (kind == 3) return pool(x);
    if (kind == 17) return known(x);
    if (kind == 16 && size(x).width == 1) return cached_attention(x);
    if (kind >= 14 && kind <= 16 && size(x).width == 1) return attention(x);
    if (kind == 12) return norm(x);
    if (kind == 13) return void(d_.add(Op::kSoftmax, size(x), {x}));
    if (column_ && (kind == 4 || kind >= 10)) return affine(x);
    if (kind == 4) return void(d_.add(Op::kMean, {size(x).channels, 1, 1}, {x}));
    if (kind == 5) return affine(x);
    if (kind <= 7) return binary(x);
    if (kind == 8) return concat(x);
    if (kind == 9) return channels(x);
    if (kind == 10) return pad(x);
    if (kind == 11) return pick(x);
    if (kind == 18) return join(x);
    if (kind == 19) return c_.percent(50) ? rewrap(x) : moments(x);
    if (size(x).floats() > 3000) return output();
    d_.add(Op::kFlatten, {size(x).floats(), 1, 1}, {x}).channels_last = c_.below(2);
  }

  void output() {
    int64_t results = 0;
    for (const Step& step : d_.steps) results += step.op == Op::kOutput;
    Step& step = d_.add(Op::kOutput, {}, {any()});
    step.argument = results;
    step.rank = c_.of({3, 1, 2});
    step.channels_last = c_.below(2);
  }

  void product(int64_t x) {
    const ImageSize in = size(x);
    Window w = {1, 1, 1, 1, 1, 1, 0, 0, 0};
    int64_t pad_top = 0;
    ImageSize out = in;
    out.channels = c_.percent(30) ? in.channels : c_.of({1, 6, 17, 33});
    if (!column_ && c_.percent(60)) out = slide(w, pad_top, in, out.channels);
    const int64_t cols = in.channels * w.kernel_y * w.kernel_x;
    if (cols > 1000) return;
    int64_t gate = kNone;
    if (c_.percent(40))
      gate = find([&](const ImageSize& s) { return s == ImageSize{in.channels, 1, 1}; });
    const int64_t residual =
        c_.percent(50) ? find([&](const ImageSize& s) { return s == out; }) : kNone;
    Step& step = d_.add(Op::kProduct, out, {x});
    step.window = w;
    step.pad_top = pad_top;
    for (int64_t n = c_.of({1, 1, 2, 3, 4, 8, 17}); n > 1; n = 1)
      if (in.channels % n == 0 && out.channels % n == 0) step.groups = n;
    weigh(step, out.channels, cols / step.groups, cols / step.groups);
    step.residual = residual;
    step.gate = gate;
    step.activation = activation();
    step.layout = layout();
    const int64_t group_rows = out.channels / step.groups;
    if (step.groups > 1 && (step.layout.storage == Storage::kColumns ||
                            group_rows % (step.layout.block ? step.layout.block : 4) != 0))
      step.layout.storage = Storage::kRows;
  }

  void weigh(Step& step, int64_t channels, int64_t taps, int64_t length) {
    step.weights = d_.keep(channels * taps, length, generator_);
    step.bias = d_.keep(channels, 4, generator_);
  }

  // A depthwise step or a pool, unless it would take long.
  Step* sliding(Op op, int64_t x) {
    Window w = {};
    int64_t pad_top = 0;
    const ImageSize out = slide(w, pad_top, size(x), size(x).channels);
    if (out.floats() * w.kernel_y * w.kernel_x > 300000) return nullptr;
    Step& step = d_.add(op, out, {x});
    step.window = w;
    step.pad_top = pad_top;
    return &step;
  }

  void depthwise(int64_t x) {
    Step* step = sliding(Op::kDepthwise, x);
    if (!step) return;
    const int64_t taps = step->window.kernel_y * step->window.kernel_x;
    weigh(*step, size(x).channels, taps, taps);
    step->activation = activation();
  }

  void pool(int64_t x) {
    if (Step* step = sliding(Op::kPool, x)) step->pooling = static_cast<Pooling>(c_.below(3));
  }

  void affine(int64_t x) {
    Step& step = d_.add(Op::kAffine, size(x), {x});
    if (c_.percent(70)) weigh(step, size(x).channels, 1, 4);
    step.activation = activation();
  }

  void norm(int64_t x) {
    Step& step = d_.add(c_.percent(50) ? Op::kLayerNorm : Op::kRmsNorm, size(x), {x});
    weigh(step, size(x).channels, 1, 4);
    step.activation.low = .1f;
  }

  // Heads of any channels of values of as many rows.
  void attention(int64_t x) {
    const int64_t height = size(x).height, count = c_.of({1, 2, 3}), wanted = c_.of({4, 1, 9, 17});
    int64_t keys = height;
    if (!column_ && c_.percent(40))
      keys = size(find([&](const ImageSize& s) { return s.width == 1; })).height;
    const auto beside = [&](int64_t rows, auto fits) {
      return find(
          [&](const ImageSize& s) { return s.width == 1 && s.height == rows && fits(s.channels); });
    };
    const auto any = [](int64_t) { return true; };
    std::vector<int64_t> inputs = {x, beside(keys, any), beside(keys, any)};
    const auto channels = [&](int64_t input) { return size(inputs[input]).channels; };
    const int64_t head = std::min({wanted, channels(0), channels(1)});
    const int64_t values = std::min(wanted, channels(2));
    int64_t length = height;
    for (int64_t part : {2, 3, 7})
      if (keys == height && length % part == 0 && c_.percent(30)) length /= part;
    auto mask = static_cast<Mask>(c_.below(kNumMasks));
    if (is_causal(mask) && keys != height) mask = Mask::kNone;
    if (mask != Mask::kNone && mask != Mask::kCausal) {
      const bool of_keys = is_of_keys(mask);
      const int64_t own = of_keys ? 1 : keys == height ? length : keys;
      inputs.push_back(beside(of_keys ? keys : height, [&](int64_t n) { return n == own; }));
      if (inputs.back() == kNone) inputs.pop_back(), mask = Mask::kNone;
    }
    std::vector<int64_t> list = {count, head, values, length, static_cast<int64_t>(mask)};
    for (int64_t i = 0; i < 3; i++)
      for (int64_t h = 0; h < count; h++)
        list.push_back(c_.below(channels(i) - (i < 2 ? head : values) + 1));
    Step& step = d_.add(Op::kAttention, {count * values, height, 1}, inputs);
    step.channels = list;
    step.activation = {Function::kIdentity, .5f, c_.percent(50) ? -1e38f : -2.f};
  }

  // Heads of any channels of values of as many rows, one of which has room for some keys.
  void cached_attention(int64_t x) {
    const int64_t height = size(x).height, count = c_.of({1, 2, 3}), wanted = c_.of({4, 1, 9, 17});
    const auto beside = [&](auto fits) {
      return find([&](const ImageSize& s) {
        return s.width == 1 && s.height == height && fits(s.channels);
      });
    };
    const auto any = [](int64_t) { return true; };
    std::vector<int64_t> inputs = {x, beside(any), beside(any)};
    const auto channels = [&](size_t input) { return size(inputs[input]).channels; };
    int64_t head = std::min({wanted, channels(0), channels(1)});
    int64_t values = std::min(wanted, channels(2));
    const int64_t number = beside([](int64_t n) { return n == 1; });
    if (number != kNone && c_.percent(60)) {
      inputs.insert(inputs.end(), {beside(any), number, beside(any), number});
      head = std::min(head, channels(CachedHeads::kNewKey));
      values = std::min(values, channels(CachedHeads::kNewValue));
    }
    const int64_t key_step = c_.of({head, 1, 0, head + 1});
    const int64_t value_step = c_.of({values, 1, 0, values + 1});
    int64_t length = 1;
    while (length < 70 && length * key_step + head <= channels(1) &&
           length * value_step + values <= channels(2))
      length++;
    auto mask = static_cast<int64_t>(Mask::kNone);
    if (c_.percent(40)) {
      const int64_t own = beside([&](int64_t n) { return n == length || n == count * length; });
      if (own != kNone) {
        inputs.push_back(own);
        const Mask masks[] = {Mask::kAddQueries, Mask::kSelectQueries, Mask::kChooseQueries};
        mask = static_cast<int64_t>(masks[c_.below(3)]);
      }
    }
    std::vector<int64_t> list = {count, head, values, length, mask};
    const auto begin = [&](size_t input, int64_t floats) {
      for (int64_t h = 0; h < count; h++) list.push_back(c_.below(channels(input) - floats + 1));
    };
    begin(0, head);
    begin(1, (length - 1) * key_step + head);
    begin(2, (length - 1) * value_step + values);
    list.insert(list.end(), {key_step, value_step});
    Step& step = d_.add(Op::kCachedAttention, {count * values, height, 1}, inputs);
    if (CachedHeads::has_new(step)) {
      begin(CachedHeads::kNewKey, head);
      begin(CachedHeads::kNewValue, values);
    }
    step.channels = list;
    step.activation = {Function::kIdentity, .5f, c_.percent(50) ? -1e38f : -2.f};
  }

  void binary(int64_t x) {
    const ImageSize in = size(x);
    const bool pixel = !column_ && c_.percent(40);
    const ImageSize other = pixel            ? ImageSize{in.channels, 1, 1}
                            : c_.percent(20) ? ImageSize{1, in.height, in.width}
                                             : in;
    int64_t b = find([&](const ImageSize& s) { return s == other; });
    if (b == kNone) b = x;
    Step& step = d_.add(Op::kBinary, in, {x, b});
    // Those behind it jump: a rounding would become another number.
    step.binary = static_cast<Binary>(c_.below(static_cast<int64_t>(Binary::kMax) + 1));
    step.activation = activation();
  }

  void concat(int64_t x) {
    std::vector<int64_t> inputs = {x};
    ImageSize out = size(x);
    for (int64_t n = c_.below(3); n > 0; n--) {
      inputs.push_back(find([&](const ImageSize& s) {
        return s.height == out.height && s.width == out.width && s.channels < 60;
      }));
      if (inputs.back() == kNone) inputs.back() = x;
      out.channels += size(inputs.back()).channels;
    }
    d_.add(Op::kConcat, out, inputs);
  }

  // Rows that begin again, also within a strip.
  void known(int64_t x) {
    const ImageSize out = size(x);
    const int64_t rows = column_ || c_.percent(50) ? out.height : c_.of({1, 3, out.height + 2});
    Step& step = d_.add(Op::kKnown, out, {});
    step.channels = {rows};
    weigh(step, out.channels, rows * out.width, 4);
  }

  void join(int64_t x) {
    std::vector<int64_t> inputs = {x};
    ImageSize out = size(x);
    for (int64_t n = c_.below(3); n > 0; n--) {
      const int64_t other = find([&](const ImageSize& s) {
        return s.channels == out.channels && s.width == out.width && s.height < 60;
      });
      if (other == kNone) continue;
      inputs.push_back(other);
      out.height += size(other).height;
    }
    d_.add(Op::kJoin, out, inputs);
  }

  void rewrap(int64_t x) {
    ImageSize out = size(x);
    for (int64_t width : {7, 5, 3, 2, 1})
      if (out.pixels() % width == 0 && c_.percent(40))
        out = {out.channels, out.pixels() / width, width};
    d_.add(Op::kRewrap, out, {x});
  }

  void moments(int64_t x) {
    const int64_t channels = size(x).channels;
    Step& step = d_.add(Op::kMoments, {2 * channels, 1, 1}, {x});
    step.channels = {channels % 4 == 0 && c_.percent(50) ? 4 : c_.of({1, channels})};
    weigh(step, 2 * channels, 1, 4);
    step.activation.low = .1f;
  }

  void channels(int64_t x) {
    ImageSize out = size(x);
    std::vector<int64_t> index(1 + c_.below(20));
    for (int64_t& i : index) i = c_.percent(20) ? out.channels - 1 : c_.below(out.channels);
    out.channels = static_cast<int64_t>(index.size());
    d_.add(Op::kChannels, out, {x}).channels = index;
  }

  void pad(int64_t x) {
    ImageSize out = size(x);
    const int64_t top = c_.below(4), left = c_.of({0, 1, 2, 18});
    out.height += top + c_.below(4);
    out.width += left + c_.below(4);
    Step& step = d_.add(Op::kPad, out, {x});
    step.pad_top = top;
    step.window.pad_left = left;
  }

  void pick(int64_t x) {
    const ImageSize in = size(x);
    const ImageSize out = {1 + c_.below(in.channels), c_.of({1, 4, 9, 35}), c_.of({1, 3, 8, 41})};
    // A rule for what the first list, and the one that is added to it, take of `size`.
    std::vector<int64_t> first, second, list;
    const auto split = [&](int64_t size, int64_t n, int64_t m) {
      const int64_t room = 1 + c_.below(size), step = c_.of({1, 0, 2, 3});
      const bool back = c_.percent(20);
      first.clear(), second.clear();
      for (int64_t i = 0; i < n; i++) {
        const int64_t at = std::min(i * step / c_.of({1, 2}), room - 1);
        first.push_back(back ? room - 1 - at : at);
      }
      for (int64_t i = 0; i < m; i++) second.push_back(c_.below(size - room + 1));
    };
    split(in.height, out.height, out.channels);
    const std::vector<int64_t> rows = first, below = second;
    split(in.width, out.width, out.channels);
    const std::vector<int64_t> columns = first, right = second;
    split(in.channels, out.channels, 1);
    const std::vector<int64_t> row_parts(out.height, second[0]), column_parts(out.width, 0);
    const std::vector<int64_t>* all[] = {&rows,  &row_parts, &columns, &column_parts,
                                         &first, &below,     &right};
    for (const auto* numbers : all) list.insert(list.end(), numbers->begin(), numbers->end());
    d_.add(Op::kPick, out, {x}).channels = list;
  }

  Choices& c_;
  std::mt19937 generator_;
  bool column_ = false;  // only steps that look at each pixel alone, over pixels below each other
  Draft d_;
};

}  // namespace

Draft random_draft(Choices& choices) { return Growth(choices).draft(); }

}  // namespace sparsejax::test
