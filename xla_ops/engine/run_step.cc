// Runs one strip of one step; see executable.h.
#include <algorithm>
#include <cstring>

#include "engine/executable.h"
#include "engine/run_pick.h"
#include "kernels/sizes.h"
#include "threads/scratch.h"

namespace sparsejax {
namespace {

// Work below which helping threads cost more than they bring (a loop of a team costs about 1 us).
constexpr int64_t kSmallWork = 50000;
constexpr int64_t kChannelGroup = 32;

// A strip of a step's output: its pixels, and what the step reads.
class StripRun {
 public:
  StripRun(const Frame& frame, const Step& step, int64_t strip, const Team& team)
      : frame_(frame),
        program_(frame.executable->program()),
        plan_(frame.executable->plan()),
        kernels_(frame.executable->kernels()),
        step_(step),
        strip_(strip),
        team_(team) {
    if (step.output == kNone) return;
    size_ = program_.values[step.output];
    strips_ = &plan_.values[step.output];
    first_row_ = strip * strips_->rows;
    rows_ = std::min(strips_->rows, size_.height - first_row_);
    pixels_ = rows_ * size_.width;
    out_ = frame.strip(step.output, strip);
  }

  void run() const {
    switch (step_.op) {
      case Op::kInput:
        return input();
      case Op::kOutput:
        return output();
      case Op::kProduct:
        return product();
      case Op::kDepthwise:
      case Op::kPool:
      case Op::kPad:
        return window();
      case Op::kMean:
        return mean();
      case Op::kAffine:
        return affine();
      case Op::kBinary:
        return binary();
      case Op::kConcat:
        return concat();
      case Op::kChannels:
        return channels();
      case Op::kFlatten:
        return flatten();
      case Op::kPick:
        return pick();
    }
  }

 private:
  const Strips& strips(int64_t value) const { return plan_.values[value]; }
  const ImageSize& size(int64_t value) const { return program_.values[value]; }
  const float* floats(int64_t begin) const { return program_.floats.data() + begin; }
  // The strip of an input that lies where this strip does, or its only one.
  const float* beside(int64_t value) const {
    return frame_.strip(value, strips(value).count == 1 ? 0 : strip_);
  }
  // f(begin, end) over groups of channels.
  template <class F>
  void for_channels(int64_t channels, int64_t work, const F& f) const {
    const int64_t groups = divide_up(channels, kChannelGroup);
    if (team_.num_threads() <= 1 || work < kSmallWork) return f(0, channels);
    team_.for_each(groups, [&](int64_t g) {
      f(g * kChannelGroup, std::min(channels, (g + 1) * kChannelGroup));
    });
  }

  void input() const {
    const float* operand = frame_.operands[step_.argument];
    if (step_.channels_last)
      return kernels_.elementwise->to_planes(operand + first_row_ * size_.width * size_.channels,
                                             pixels_, size_.channels, out_, strips_->pitch);
    for (int64_t c = 0; c < size_.channels; c++)
      std::memcpy(out_ + c * strips_->pitch,
                  operand + c * size_.pixels() + first_row_ * size_.width, pixels_ * sizeof(float));
  }

  void output() const {
    const int64_t value = step_.inputs[0];
    const ImageSize& image = size(value);
    const Strips& from = strips(value);
    float* result = frame_.results[step_.argument];
    for (int64_t s = 0; s < from.count; s++) {
      const int64_t first = s * from.rows * image.width;
      const int64_t count = std::min(from.rows * image.width, image.pixels() - first);
      const float* planes = frame_.strip(value, s);
      if (step_.channels_last) {
        kernels_.elementwise->to_pixels(planes, from.pitch, count, image.channels,
                                        result + first * image.channels);
        continue;
      }
      for (int64_t c = 0; c < image.channels; c++)
        std::memcpy(result + c * image.pixels() + first, planes + c * from.pitch,
                    count * sizeof(float));
    }
  }

  // Runs f(call) over groups of channels; `out` has [channel][pitch].
  template <class F>
  void slide(int64_t work, float* out, int64_t pitch, const F& f) const {
    static thread_local std::vector<const float*> own_rows;  // so that it is allocated once
    const int64_t value = step_.inputs[0];
    Window w = step_.window;
    w.in_width = size(value).width;
    w.out_width = size_.width;
    frame_.rows(value, first_row_ * w.stride_y - step_.pad_top,
                (rows_ - 1) * w.stride_y + (w.kernel_y - 1) * w.dilation_y + 1, own_rows);
    const float* const* rows = own_rows.data();  // this thread's, whoever helps
    for_channels(size(value).channels, work, [&](int64_t begin, int64_t end) {
      const Scratch memory(kernels_.window->scratch_floats(w, rows_));
      f(WindowCall{w, rows, strips(value).pitch, begin, end, out, pitch, rows_, memory.data()});
    });
  }

  void window() const {
    const bool vector = strips_->pitch == 1;  // kernels write whole vectors: compact them after
    float* out = vector ? columns() : out_;
    const int64_t taps = step_.window.kernel_y * step_.window.kernel_x;
    slide(size_.channels * pixels_ * taps, out, vector ? 16 : strips_->pitch,
          [&](const WindowCall& call) {
            if (step_.op == Op::kDepthwise)
              return kernels_.window->depthwise(call, floats(step_.weights), floats(step_.bias),
                                                step_.activation);
            if (step_.op == Op::kPad) return kernels_.window->columns(call, nullptr);
            if (step_.pooling == Pooling::kMax) return kernels_.window->max_pool(call);
            kernels_.window->average_pool(
                call, frame_.executable->scales(step_) + first_row_ * size_.width);
          });
    if (vector) compact(out, size_.channels, out_);
  }

  static void compact(const float* from, int64_t n, float* to) {
    for (int64_t i = 0; i < n; i++) to[i] = from[i * 16];
  }

  float* columns() const { return frame_.job + plan_.columns_begin; }

  const float* product_input(int64_t cols) const {
    if (reads_directly(program_, step_)) return beside(step_.inputs[0]);
    const bool vector = strips_->pitch == 1;
    const float* gate = step_.gate == kNone ? nullptr : frame_.strip(step_.gate, 0);
    slide(cols * pixels_ * 4, columns(), vector ? 16 : strips_->pitch,
          [&](const WindowCall& call) { kernels_.window->columns(call, gate); });
    if (!vector) return columns();
    float* x = columns() + round_up(cols * 16 + 16, 16);
    compact(columns(), cols, x);
    return x;
  }

  void product() const {
    const ProductMatrix& matrix = frame_.executable->product(step_)->matrix();
    ProductCall call = {&matrix,         product_input(matrix.cols), strips_->pitch, out_,
                        strips_->pitch,  floats(step_.bias),         nullptr,        0,
                        step_.activation};
    if (step_.residual != kNone) {
      call.residual = beside(step_.residual);
      call.residual_pitch = strips(step_.residual).pitch;
    }
    const bool alone = team_.num_threads() <= 1 ||
                       frame_.executable->product(step_)->stored() * pixels_ < kSmallWork;
    // Few parts: threads share the pixels, too.
    const int64_t tile = round_up(matrix.tile * kernels_.product->lanes, 16);
    const int64_t tiles = divide_up(pixels_, tile);
    const int64_t shares =
        alone ? 1 : std::min(tiles, divide_up(2 * team_.num_threads(), matrix.num_parts));
    const auto multiply = [&](int64_t item) {
      const int64_t share = item / matrix.num_parts;
      const int64_t first = tiles * share / shares * tile;
      const int64_t last = std::min(pixels_, tiles * (share + 1) / shares * tile);
      kernels_.product->multiply(call, item % matrix.num_parts, first, last - first);
    };
    if (!alone) return team_.for_each(matrix.num_parts * shares, multiply);
    for (int64_t i = 0; i < matrix.num_parts; i++) multiply(i);
  }

  void mean() const {
    const int64_t value = step_.inputs[0];
    const ImageSize& image = size(value);
    const Strips& from = strips(value);
    for_channels(image.channels, image.floats(), [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; c++) {
        float sum = 0;
        for (int64_t s = 0; s < from.count; s++) {
          const int64_t first = s * from.rows * image.width;
          sum +=
              kernels_.elementwise->sum(frame_.strip(value, s) + c * from.pitch,
                                        std::min(from.rows * image.width, image.pixels() - first));
        }
        out_[c] = sum / static_cast<float>(image.pixels());
      }
    });
  }

  // f(first, count) over the floats of channels: of all at once where little lies between them.
  template <class F>
  void for_floats(int64_t begin, int64_t end, const F& f) const {
    const int64_t pitch = strips_->pitch;
    if (pitch < 16 || 2 * pixels_ > pitch) return f(begin * pitch, (end - begin) * pitch);
    for (int64_t c = begin; c < end; c++) f(c * pitch, pixels_);
  }

  void affine() const {
    const float* x = beside(step_.inputs[0]);
    const int64_t pitch = strips_->pitch;
    for_channels(size_.channels, size_.channels * pitch, [&](int64_t begin, int64_t end) {
      if (step_.weights == kNone)
        return for_floats(begin, end, [&](int64_t i, int64_t n) {
          kernels_.elementwise->activate(step_.activation, x + i, n, out_ + i);
        });
      if (pitch < 16) return affine_few(x, begin, end);
      for (int64_t c = begin; c < end; c++)
        kernels_.elementwise->affine(step_.activation, x + c * pitch, floats(step_.weights)[c],
                                     floats(step_.bias)[c], pixels_, out_ + c * pitch);
    });
  }

  // Channels of fewer floats than kernels write.
  void affine_few(const float* x, int64_t begin, int64_t end) const {
    const int64_t pitch = strips_->pitch;
    for (int64_t c = begin; c < end; c++)
      for (int64_t p = c * pitch; p < (c + 1) * pitch; p++)
        out_[p] = floats(step_.weights)[c] * x[p] + floats(step_.bias)[c];
    kernels_.elementwise->activate(step_.activation, out_ + begin * pitch, (end - begin) * pitch,
                                   out_ + begin * pitch);
  }

  void binary() const {
    const float *a = beside(step_.inputs[0]), *b = beside(step_.inputs[1]);
    const int64_t pitch = strips_->pitch;
    const bool number = size(step_.inputs[1]).pixels() == 1 && size_.pixels() != 1;
    for_channels(size_.channels, size_.channels * pitch, [&](int64_t begin, int64_t end) {
      if (!number)
        return for_floats(begin, end, [&](int64_t i, int64_t n) {
          kernels_.elementwise->binary(step_.binary, step_.activation, a + i, b + i, n, out_ + i);
        });
      for (int64_t c = begin; c < end; c++)
        kernels_.elementwise->binary_number(step_.binary, step_.activation, a + c * pitch, b[c],
                                            pixels_, out_ + c * pitch);
    });
  }

  void concat() const {
    float* out = out_;
    for (int64_t value : step_.inputs) {
      const int64_t n = size(value).channels * strips_->pitch;
      std::memcpy(out, beside(value), n * sizeof(float));
      out += n;
    }
  }

  void channels() const {
    const float* x = beside(step_.inputs[0]);
    const int64_t pitch = strips_->pitch;
    for (int64_t c = 0; c < size_.channels; c++)
      std::memcpy(out_ + c * pitch, x + step_.channels[c] * pitch, pixels_ * sizeof(float));
  }

  void pick() const {
    const PickedRows rows = {size_, first_row_, rows_, out_, strips_->pitch};
    for_channels(size_.channels, size_.channels * pixels_,
                 [&](int64_t begin, int64_t end) { run_pick(frame_, step_, rows, begin, end); });
  }

  void flatten() const {
    const int64_t value = step_.inputs[0];
    const ImageSize& image = size(value);
    const Strips& from = strips(value);
    const int64_t channel_step = step_.channels_last ? 1 : image.pixels();
    const int64_t pixel_step = step_.channels_last ? image.channels : 1;
    for (int64_t c = 0; c < image.channels; c++)
      for (int64_t p = 0; p < image.pixels(); p++) {
        const int64_t s = p / (from.rows * image.width);
        out_[c * channel_step + p * pixel_step] =
            frame_.strip(value, s)[c * from.pitch + p - s * from.rows * image.width];
      }
  }

  const Frame& frame_;
  const Program& program_;
  const Plan& plan_;
  const Kernels& kernels_;
  const Step& step_;
  const int64_t strip_;
  const Team& team_;
  ImageSize size_ = {};
  const Strips* strips_ = nullptr;
  int64_t first_row_ = 0, rows_ = 0, pixels_ = 0;
  float* out_ = nullptr;
};

}  // namespace

void run_step(const Frame& frame, const Step& step, int64_t strip, const Team& team) {
  StripRun(frame, step, strip, team).run();
}

}  // namespace sparsejax
