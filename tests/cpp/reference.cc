// Programs run step by step in float64, each value with a bound of what rounding may have changed.
#include <algorithm>
#include <cstring>

#include "programs.h"

namespace sparsejax::test {

double exact(const ActivationCall& call, double x) {
  const double hard = std::isnan(x) ? x : std::fmin(std::fmax(x + 3, 0), 6) / 6;
  const double sigmoid = 1 / (1 + std::exp(-x));
  switch (call.function) {
    case Function::kIdentity:
      return x;
    case Function::kClamp:
      if (x < call.low) x = call.low;
      return x > call.high ? call.high : x;
    case Function::kSigmoid:
      return sigmoid;
    case Function::kSilu:
      return x * sigmoid;
    case Function::kHardSigmoid:
      return hard;
    case Function::kHardSwish:
      return x * hard;
    case Function::kGeluTanh:
      return x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))) / 2;
    case Function::kGeluErf:
      return x * (1 + std::erf(x * M_SQRT1_2)) / 2;
    case Function::kTanh:
      return std::tanh(x);
    case Function::kLeakyRelu:
      return x > 0 ? x : call.low * x;
    case Function::kElu:
      return x > 0 ? x : call.low * std::expm1(x);
    case Function::kSoftplus:
      return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
  }
  return NAN;
}

namespace {

struct Image {
  ImageSize size;
  std::vector<double> at;  // [channel][row][column]
  double error = 0;        // of any of them
  double most() const {
    double most = 0;
    for (double x : at) most = std::abs(x) > most || std::isnan(x) ? std::abs(x) : most;
    return most;
  }
};

// Steps of this slope at most: hard_swish has 1.5.
double steepest(const ActivationCall& f) { return std::max(1.5, 1.5 * std::abs(f.low)); }

class Reference {
 public:
  explicit Reference(const Program& program) : p_(program), values_(program.values.size()) {}

  void run(const Step& s, const std::vector<std::vector<float>>& operands) {
    if (s.op == Op::kOutput) return;
    Image& out = values_[s.output];
    out.size = p_.values[s.output];
    out.at.assign(out.size.floats(), 0.);
    if (s.op == Op::kInput) return input(s, operands[s.argument], out);
    compute(s, out);
    if (s.activation.function == Function::kIdentity) return;
    for (double& x : out.at) x = exact(s.activation, x);
    out.error = steepest(s.activation) * out.error + 4e-6 * (1 + out.most());
  }
  const Image& value(int64_t id) const { return values_[id]; }

  // Where pixel `pixel` of a channel lies in an operand or result.
  static int64_t place(const Step& s, const ImageSize& size, int64_t channel, int64_t pixel) {
    return s.channels_last ? pixel * size.channels + channel : channel * size.pixels() + pixel;
  }

 private:
  const Image& in(const Step& s, size_t i = 0) const { return values_[s.inputs[i]]; }
  float weight(int64_t i) const { return p_.floats[i]; }

  static void input(const Step& s, const std::vector<float>& operand, Image& out) {
    for (int64_t c = 0; c < out.size.channels; c++)
      for (int64_t i = 0; i < out.size.pixels(); i++)
        out.at[c * out.size.pixels() + i] = operand[place(s, out.size, c, i)];
  }

  void compute(const Step& s, Image& out) const {
    out.error = s.inputs.empty() ? 0 : in(s).error;
    switch (s.op) {
      case Op::kProduct:
        return product(s, out);
      case Op::kDepthwise:
        return depthwise(s, out);
      case Op::kPool:
        return pool(s, out);
      case Op::kMean:
        return mean(s, out);
      case Op::kAffine:
        return affine(s, out);
      case Op::kBinary:
        return binary(s, out);
      case Op::kConcat:
        return concat(s, out);
      case Op::kFlatten:
        return flatten(s, out);
      case Op::kPick:
        return pick(s, out);
      case Op::kLayerNorm:
      case Op::kRmsNorm:
        return norm(s, out);
      case Op::kSoftmax:
        return softmax(s, out);
      case Op::kAttention:
        return attention(s, out);
      case Op::kCachedAttention:
        return cached_attention(s, out);
      case Op::kKnown:
        return known(s, out);
      case Op::kJoin:
        return join(s, out);
      case Op::kRewrap:
        return void(out.at = in(s).at);
      case Op::kMoments:
        return moments(s, out);
      default:
        return move(s, out);  // channels and padding
    }
  }

  // f(where the input is read, tap) for the taps inside the image of one output pixel.
  template <class F>
  static void taps(const Step& s, const ImageSize& in, int64_t y, int64_t x, const F& f) {
    const Window& w = s.window;
    for (int64_t ky = 0; ky < w.kernel_y; ky++)
      for (int64_t kx = 0; kx < w.kernel_x; kx++) {
        const int64_t row = y * w.stride_y + ky * w.dilation_y - s.pad_top;
        const int64_t column = x * w.stride_x + kx * w.dilation_x - w.pad_left;
        if (row >= 0 && row < in.height && column >= 0 && column < in.width)
          f(row * in.width + column, ky * w.kernel_x + kx);
      }
  }

  // out[channel][pixel] = f(channel, row, column).
  template <class F>
  static void fill(Image& out, const F& f) {
    int64_t i = 0;
    for (int64_t c = 0; c < out.size.channels; c++)
      for (int64_t y = 0; y < out.size.height; y++)
        for (int64_t x = 0; x < out.size.width; x++) out.at[i++] = f(c, y, x);
  }

  // The largest sum of a row's weights.
  double longest_row(const Step& s, int64_t rows, int64_t cols) const {
    double longest = 0;
    for (int64_t row = 0; row < rows; row++) {
      double sum = 0;
      for (int64_t k = 0; k < cols; k++) sum += std::abs(weight(s.weights + row * cols + k));
      longest = std::max(longest, sum);
    }
    return longest;
  }

  void product(const Step& s, Image& out) const {
    const Image& from = in(s);
    const int64_t num_taps = s.window.kernel_y * s.window.kernel_x;
    const int64_t channels = from.size.channels / s.groups, cols = channels * num_taps;
    const int64_t group_rows = out.size.channels / s.groups;
    const double longest = longest_row(s, out.size.channels, cols);
    double gate_most = 1, gate_error = 0;
    if (s.gate != kNone) gate_most = values_[s.gate].most(), gate_error = values_[s.gate].error;
    fill(out, [&](int64_t m, int64_t y, int64_t x) {
      double sum = weight(s.bias + m);
      taps(s, from.size, y, x, [&](int64_t at, int64_t tap) {
        for (int64_t c = 0; c < channels; c++) {
          const int64_t k = m / group_rows * channels + c;
          const double w = weight(s.weights + m * cols + c * num_taps + tap);
          const double gate = s.gate == kNone ? 1 : values_[s.gate].at[k];
          if (w != 0) sum += w * gate * from.at[k * from.size.pixels() + at];
        }
      });
      return sum;
    });
    out.error = longest * (gate_most * from.error + gate_error * (from.most() + from.error)) +
                1e-6 * (1 + longest * gate_most * from.most());
    if (s.residual == kNone) return;
    for (size_t i = 0; i < out.at.size(); i++) out.at[i] += values_[s.residual].at[i];
    out.error += values_[s.residual].error + 1e-6 * values_[s.residual].most();
  }

  void depthwise(const Step& s, Image& out) const {
    const Image& from = in(s);
    const int64_t num_taps = s.window.kernel_y * s.window.kernel_x;
    const double longest = longest_row(s, out.size.channels, num_taps);
    fill(out, [&](int64_t c, int64_t y, int64_t x) {
      double sum = weight(s.bias + c);
      taps(s, from.size, y, x, [&](int64_t at, int64_t tap) {
        sum += weight(s.weights + c * num_taps + tap) * from.at[c * from.size.pixels() + at];
      });
      return sum;
    });
    out.error = longest * from.error + 1e-6 * (1 + longest * from.most());
  }

  void pool(const Step& s, Image& out) const {
    const Image& from = in(s);
    fill(out, [&](int64_t c, int64_t y, int64_t x) {
      const bool max = s.pooling == Pooling::kMax;
      double sum = max ? -INFINITY : 0;
      int64_t inside = 0;
      taps(s, from.size, y, x, [&](int64_t at, int64_t) {
        const double value = from.at[c * from.size.pixels() + at];
        inside++;
        if (!max) sum += value;
        if (max && !std::isnan(sum) && !(value <= sum)) sum = value;
      });
      if (max) return sum;
      return sum / static_cast<double>(s.pooling == Pooling::kAverage
                                           ? s.window.kernel_y * s.window.kernel_x
                                           : inside);
    });
    out.error += 1e-6 * from.most();
  }

  void mean(const Step& s, Image& out) const {
    const Image& from = in(s);
    for (int64_t c = 0; c < out.size.channels; c++) {
      for (int64_t i = 0; i < from.size.pixels(); i++)
        out.at[c] += from.at[c * from.size.pixels() + i];
      out.at[c] /= static_cast<double>(from.size.pixels());
    }
    out.error += 4e-6 * from.most();
  }

  void affine(const Step& s, Image& out) const {
    const Image& from = in(s);
    double most = s.weights == kNone ? 1 : 0;
    for (int64_t c = 0; s.weights != kNone && c < out.size.channels; c++)
      most = std::max<double>(most, std::abs(weight(s.weights + c)));
    fill(out, [&](int64_t c, int64_t y, int64_t x) {
      const double value = from.at[(c * from.size.height + y) * from.size.width + x];
      return s.weights == kNone ? value : weight(s.weights + c) * value + weight(s.bias + c);
    });
    out.error = most * from.error + 1e-6 * (1 + most * from.most());
  }

  void binary(const Step& s, Image& out) const {
    const Image &a = in(s), &b = in(s, 1);
    fill(out, [&](int64_t c, int64_t y, int64_t x) {
      const double left = a.at[(c * a.size.height + y) * a.size.width + x];
      const bool number = b.size.pixels() == 1 && b.size.channels == a.size.channels;
      const int64_t channel = b.size.channels == a.size.channels ? c : 0;
      const double right =
          number ? b.at[c] : b.at[(channel * b.size.height + y) * b.size.width + x];
      if (s.binary == Binary::kAdd) return left + right;
      if (s.binary == Binary::kSub) return left - right;
      if (s.binary == Binary::kMul) return left * right;
      return left > right || std::isnan(left) ? left : right;
    });
    const double most_a = a.most() + a.error, most_b = b.most() + b.error;
    out.error = s.binary == Binary::kMul
                    ? a.error * most_b + b.error * most_a + 1e-6 * most_a * most_b
                    : a.error + b.error + 1e-6 * (most_a + most_b);
  }

  void concat(const Step& s, Image& out) const {
    auto to = out.at.begin();
    for (size_t i = 0; i < s.inputs.size(); i++) {
      to = std::copy(in(s, i).at.begin(), in(s, i).at.end(), to);
      out.error = std::max(out.error, in(s, i).error);
    }
  }

  void flatten(const Step& s, Image& out) const {
    const Image& from = in(s);
    for (int64_t c = 0; c < from.size.channels; c++)
      for (int64_t i = 0; i < from.size.pixels(); i++)
        out.at[place(s, from.size, c, i)] = from.at[c * from.size.pixels() + i];
  }

  void pick(const Step& s, Image& out) const {
    const Image& from = in(s);
    const Picks p(s, out.size);
    fill(out, [&](int64_t c, int64_t y, int64_t x) {
      const int64_t channel = p.channels[c] + p.row_parts[y] + p.column_parts[x];
      const int64_t row = p.rows[y] + p.below[c], column = p.columns[x] + p.right[c];
      return from.at[(channel * from.size.height + row) * from.size.width + column];
    });
  }

  // Calls f(the numbers of all channels of a pixel) and writes back what it leaves in them.
  template <class F>
  static void for_pixels(const Image& from, Image& out, const F& f) {
    const int64_t pixels = from.size.pixels();
    std::vector<double> numbers(from.size.channels);
    for (int64_t i = 0; i < pixels; i++) {
      for (int64_t c = 0; c < from.size.channels; c++) numbers[c] = from.at[c * pixels + i];
      f(numbers);
      for (int64_t c = 0; c < from.size.channels; c++) out.at[c * pixels + i] = numbers[c];
    }
  }

  void norm(const Step& s, Image& out) const {
    const Image& from = in(s);
    const auto n = static_cast<double>(from.size.channels);
    double steepest = 0;
    for_pixels(from, out, [&](std::vector<double>& x) {
      double mean = 0, square = 0;
      for (double v : x) mean += s.op == Op::kLayerNorm ? v / n : 0;
      for (double v : x) square += (v - mean) * (v - mean) / n;
      const double factor = 1 / std::sqrt(square + s.activation.low);
      for (size_t c = 0; c < x.size(); c++) {
        const double scale = weight(s.weights + c);
        x[c] = (x[c] - mean) * factor * scale + weight(s.bias + c);
        steepest = std::max(steepest, std::abs(scale) * factor);
      }
    });
    out.error = 4 * steepest * (from.error + 1e-6 * from.most()) + 1e-6 * out.most();
  }

  void softmax(const Step& s, Image& out) const {
    const Image& from = in(s);
    for_pixels(from, out, [&](std::vector<double>& x) {
      const double most = *std::max_element(x.begin(), x.end());
      double sum = 0;
      for (double& v : x) sum += v = std::exp(v - most);
      for (double& v : x) v /= sum;
    });
    out.error = std::exp(2 * from.error) - 1 + 4e-6 * (1 + from.most());
  }

  static double chosen(double score, double number, double fill) {
    const auto narrow = static_cast<float>(number);
    int32_t bits;
    std::memcpy(&bits, &narrow, sizeof(bits));
    return bits == kLeftOut ? fill : score + number;
  }

  // The score of a key behind the mask.
  double masked(const Step& s, const Heads& heads, int64_t head, int64_t query, int64_t key,
                double score) const {
    const double fill = s.activation.high;
    if (heads.mask == Mask::kNone) return score;
    if (heads.mask == Mask::kCausal) return key <= query ? score : fill;
    const Image& mask = in(s, 3);
    const int64_t keys = heads.keys_of(in(s).size.height, in(s, 1).size.height);
    const int64_t first = mask.size.channels == keys ? 0 : head * keys;
    const double number = is_of_keys(heads.mask)
                              ? mask.at[key]
                              : mask.at[(first + key % keys) * mask.size.height + query];
    if (heads.mask == Mask::kAddCausal) return key <= query ? score + number : fill;
    if (heads.mask == Mask::kChooseQueries) return chosen(score, number, fill);
    if (heads.mask == Mask::kAddKeys || heads.mask == Mask::kAddQueries) return score + number;
    return number != 0 ? score : fill;
  }

  void known(const Step& s, Image& out) const {
    const int64_t again = known_floats(s, out.size);
    fill(out, [&](int64_t c, int64_t y, int64_t x) {
      const int64_t at = (y * out.size.width + x) % again;
      return weight(s.weights + c * again + at) + weight(s.bias + c);
    });
    out.error = 1e-6 * out.most();
  }

  void join(const Step& s, Image& out) const {
    int64_t first = 0;
    for (size_t i = 0; i < s.inputs.size(); i++) {
      const Image& from = in(s, i);
      for (int64_t c = 0; c < out.size.channels; c++)
        std::copy_n(from.at.begin() + c * from.size.pixels(), from.size.pixels(),
                    out.at.begin() + c * out.size.pixels() + first);
      first += from.size.pixels();
      out.error = std::max(out.error, from.error);
    }
  }

  void moments(const Step& s, Image& out) const {
    const Image& from = in(s);
    const int64_t channels = from.size.channels, count = channels / s.channels[0];
    const int64_t pixels = from.size.pixels();
    for (int64_t c = 0; c < channels; c++) {
      const double* x = from.at.data() + c / count * count * pixels;
      const auto n = static_cast<double>(count * pixels);
      double mean = 0, variance = 0;
      for (int64_t i = 0; i < count * pixels; i++) mean += x[i] / n;
      for (int64_t i = 0; i < count * pixels; i++) variance += (x[i] - mean) * (x[i] - mean) / n;
      const double factor = 1 / std::sqrt(variance + s.activation.low);
      const int64_t own = channels + c;
      out.at[c] = weight(s.weights + c) * factor + weight(s.bias + c);
      out.at[own] = weight(s.weights + own) * mean + weight(s.bias + own);
    }
    const double steep = longest_row(s, out.size.channels, 1) / std::sqrt(s.activation.low);
    const double most = from.most() + from.error;
    out.error = steep * (1 + most) * (1 + most / std::sqrt(s.activation.low)) * 4 *
                    (from.error + 2e-6 * most) +
                1e-6 * (1 + out.most());
  }

  // Keys or values, all in a row of one input; a number says whose place the new one takes.
  struct Kept {
    size_t input, newest;
    const int64_t *first, *new_first;
    int64_t step;
  };
  double kept(const Step& s, const Kept& k, int64_t head, int64_t i, int64_t c, int64_t row) const {
    const int64_t rows = in(s).size.height, last = CachedHeads(s).length - 1;
    if (CachedHeads::has_new(s)) {
      const double told = in(s, k.newest + 1).at[row];
      const double place = std::clamp(told, 0., static_cast<double>(last));
      if (!std::isnan(told) && i == static_cast<int64_t>(place))
        return in(s, k.newest).at[(k.new_first[head] + c) * rows + row];
    }
    return in(s, k.input).at[(k.first[head] + i * k.step + c) * rows + row];
  }

  void cached_attention(const Step& s, Image& out) const {
    const CachedHeads heads(s);
    const Kept keys = {1, CachedHeads::kNewKey, heads.keys, heads.new_keys, heads.key_step};
    const Kept values = {2, CachedHeads::kNewValue, heads.values, heads.new_values,
                         heads.value_step};
    const int64_t rows = out.size.height, n = heads.length;
    const size_t mask = s.inputs.size() - 1;
    std::vector<double> weights(n);
    for (int64_t h = 0; h < heads.count; h++)
      for (int64_t row = 0; row < rows; row++) {
        for (int64_t i = 0; i < n; i++) {
          double score = 0;
          for (int64_t c = 0; c < heads.size; c++)
            score += in(s).at[(heads.queries[h] + c) * rows + row] * kept(s, keys, h, i, c, row);
          weights[i] = score * s.activation.low;
          if (!CachedHeads::has_mask(s)) continue;
          const int64_t channel = (in(s, mask).size.channels == n ? 0 : h * n) + i;
          const double number = in(s, mask).at[channel * rows + row];
          if (heads.mask == Mask::kAddQueries) weights[i] += number;
          if (heads.mask == Mask::kChooseQueries)
            weights[i] = chosen(weights[i], number, s.activation.high);
          if (heads.mask == Mask::kSelectQueries && number == 0) weights[i] = s.activation.high;
        }
        const double most = *std::max_element(weights.begin(), weights.end());
        double sum = 0;
        for (double& w : weights) sum += w = std::exp(w - most);
        for (int64_t c = 0; c < heads.value_size; c++)
          for (int64_t i = 0; i < n; i++)
            out.at[(h * heads.value_size + c) * rows + row] +=
                weights[i] / sum * kept(s, values, h, i, c, row);
      }
    Image k = in(s, 1), v = in(s, 2);
    if (CachedHeads::has_new(s)) {
      k = joined(k, in(s, CachedHeads::kNewKey)), v = joined(v, in(s, CachedHeads::kNewValue));
      if (in(s, 4).error > 0 || in(s, 6).error > 0) k.error = INFINITY;  // another place
    }
    bound_attention(s, k, v, CachedHeads::has_mask(s) ? &in(s, mask) : nullptr, out);
  }
  static Image joined(Image a, const Image& b) {
    a.at.insert(a.at.end(), b.at.begin(), b.at.end());
    a.error = std::max(a.error, b.error);
    return a;
  }

  void attention(const Step& s, Image& out) const {
    const Heads heads(s);
    const Image &q = in(s), &k = in(s, 1), &v = in(s, 2);
    const int64_t rows = out.size.height, key_rows = k.size.height;
    const int64_t n = heads.keys_of(rows, key_rows);
    std::vector<double> weights(n);
    for (int64_t h = 0; h < heads.count; h++)
      for (int64_t row = 0; row < rows; row++) {
        const int64_t start = row / heads.length * n;
        double most = -INFINITY, sum = 0;
        for (int64_t i = 0; i < n; i++) {
          double score = 0;
          for (int64_t c = 0; c < heads.size; c++)
            score += q.at[(heads.queries[h] + c) * rows + row] *
                     k.at[(heads.keys[h] + c) * key_rows + start + i];
          weights[i] = masked(s, heads, h, row, start + i, score * s.activation.low);
          most = std::max(most, weights[i]);
        }
        for (double& w : weights) sum += w = std::exp(w - most);
        for (int64_t c = 0; c < heads.value_size; c++)
          for (int64_t i = 0; i < n; i++)
            out.at[(h * heads.value_size + c) * rows + row] +=
                weights[i] / sum * v.at[(heads.values[h] + c) * key_rows + start + i];
      }
    bound_attention(s, k, v, s.inputs.size() > 3 ? &in(s, 3) : nullptr, out);
  }

  void bound_attention(const Step& s, const Image& k, const Image& v, const Image* mask,
                       Image& out) const {
    const Heads heads(s);
    const Image& q = in(s);
    const double extra = mask ? mask->error + 1e-6 * mask->most() : 0;
    const double scores =
        static_cast<double>(heads.size) *
            (q.error * k.most() + k.error * (q.most() + q.error) + 1e-6 * q.most() * k.most()) +
        extra;
    out.error = v.error + (std::exp(2 * scores) - 1 + 1e-5) * (v.most() + v.error);
    if (mask && mask->error > 0 &&
        (heads.mask == Mask::kSelectKeys || heads.mask == Mask::kSelectQueries))
      out.error = INFINITY;  // a number that is nearly 0 decides
  }

  void move(const Step& s, Image& out) const {
    const Image& from = in(s);
    fill(out, [&](int64_t c, int64_t y, int64_t x) {
      const int64_t channel = s.op == Op::kChannels ? s.channels[c] : c;
      double value = 0;
      taps(s, from.size, y, x,
           [&](int64_t at, int64_t) { value = from.at[channel * from.size.pixels() + at]; });
      return value;
    });
  }

  const Program& p_;
  std::vector<Image> values_;
};

}  // namespace

std::string Run::difference(const Program& program,
                            const std::vector<std::vector<float>>& results) const {
  Reference reference(program);
  for (const Step& step : program.steps) reference.run(step, operands_);
  for (const Step& step : program.steps) {
    if (step.op != Op::kOutput) continue;
    const Image& want = reference.value(step.inputs[0]);
    if (!std::isfinite(want.error)) continue;
    for (int64_t c = 0; c < want.size.channels; c++)
      for (int64_t i = 0; i < want.size.pixels(); i++) {
        const double expected = want.at[c * want.size.pixels() + i];
        const float got = results[step.argument][Reference::place(step, want.size, c, i)];
        if (got == expected || std::abs(got - expected) <= want.error + 1e-6) continue;
        if (std::isnan(got) && std::isnan(expected)) continue;
        return "result " + std::to_string(step.argument) + " channel " + std::to_string(c) +
               " pixel " + std::to_string(i) + " is " + std::to_string(got) + " instead of " +
               std::to_string(expected) + " +- " + std::to_string(want.error);
      }
  }
  return "";
}

}  // namespace sparsejax::test
