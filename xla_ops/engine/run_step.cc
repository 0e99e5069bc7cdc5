// Runs one strip of one step; see executable.h.
#include <cstring>

#include "engine/run_attention.h"
#include "engine/run_norm.h"
#include "engine/run_pick.h"
#include "engine/run_product.h"
#include "engine/strip_run.h"

namespace sparsejax {
namespace {

class StepRun : StripRun {
 public:
  using StripRun::StripRun;

  void run() const {
    switch (step_.op) {
      case Op::kInput:
        return input();
      case Op::kOutput:
        return output();
      case Op::kProduct:
        return run_product(frame_, step_, strip_, team_);
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
      case Op::kLayerNorm:
      case Op::kRmsNorm:
      case Op::kSoftmax:
        return run_norm(frame_, step_, strip_, team_);
      case Op::kAttention:
        return run_attention(frame_, step_, strip_, team_);
      case Op::kCachedAttention:
        return run_cached_attention(frame_, step_, strip_, team_);
      case Op::kMoments:
        return run_moments(frame_, step_, team_);
      case Op::kKnown:
        return known();
      case Op::kJoin:
        return join();
      case Op::kRewrap:
        return copy_pixels(step_.inputs[0], 0);
    }
  }

 private:
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

  void window() const {
    const bool vector = strips_->pitch == 1;  // kernels write whole vectors: compact them after
    float* out = vector ? columns() : out_;
    const int64_t taps = step_.window.kernel_y * step_.window.kernel_x;
    const float* const* rows = rows_read().data();  // this thread's, whoever helps
    for_channels(size_.channels, size_.channels * pixels_ * taps, [&](int64_t begin, int64_t end) {
      const Written to = {begin, end, out, vector ? 16 : strips_->pitch, rows_};
      slide(step_.window, rows, to, [&](const WindowCall& call) {
        if (step_.op == Op::kDepthwise)
          return kernels_.window->depthwise(call, floats(step_.weights), floats(step_.bias),
                                            step_.activation,
                                            strips_->sums ? out_ + strips_->sums : nullptr);
        if (step_.op == Op::kPad) return kernels_.window->columns(call, nullptr);
        if (step_.pooling == Pooling::kMax) return kernels_.window->max_pool(call);
        kernels_.window->average_pool(call,
                                      frame_.executable->scales(step_) + first_row_ * size_.width);
      });
    });
    if (vector) compact(out, size_.channels, out_);
  }

  void mean() const {
    const int64_t value = step_.inputs[0];
    const ImageSize& image = size(value);
    const Strips& from = strips(value);
    for_channels(image.channels, image.floats(), [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; c++) {
        float sum = 0;
        for (int64_t s = 0; s < from.count; s++) {
          const float* strip = frame_.strip(value, s);
          const int64_t first = s * from.rows * image.width;
          sum += from.sums ? strip[from.sums + c]
                           : kernels_.elementwise->sum(
                                 strip + c * from.pitch,
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
    if (whole_ && (pitch < 16 || 2 * pixels_ > pitch))
      return f(begin * pitch, (end - begin) * pitch);
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
    if (!number && size(step_.inputs[1]).channels != size_.channels) return binary_of_pixels(a, b);
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

  // b has one channel. Of fewer floats than kernels write, they lie in a vector of their own first.
  void binary_of_pixels(const float* a, const float* b) const {
    const int64_t pitch = strips_->pitch;
    for_channels(size_.channels, size_.channels * pitch, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; c++) {
        float few[16];
        float* const out = pitch < 16 ? few : out_ + c * pitch;
        kernels_.elementwise->binary(step_.binary, step_.activation, a + c * pitch, b, pixels_,
                                     out);
        if (pitch < 16) std::memcpy(out_ + c * pitch, few, pixels_ * sizeof(float));
      }
    });
  }

  void known() const {
    const int64_t again = known_floats(step_, size_);
    for (int64_t c = 0; c < size_.channels; c++) {
      const float* from = floats(step_.weights) + c * again;
      const float more = floats(step_.bias)[c];
      float* const out = out_ + c * strips_->pitch;
      int64_t at = first_row_ * size_.width % again;
      for (int64_t p = 0, n; p < pixels_; p += n, at = 0) {
        n = std::min(pixels_ - p, again - at);
        for (int64_t i = 0; i < n; i++) out[p + i] = from[at + i] + more;
      }
    }
  }

  // The strip's pixels that are those of a value, whose first is pixel `begin` of the output.
  void copy_pixels(int64_t value, int64_t begin) const {
    const Strips& from = strips(value);
    const int64_t strip_pixels = from.rows * size(value).width;
    const int64_t first = std::max(first_row_ * size_.width, begin);
    const int64_t last = std::min(first_row_ * size_.width + pixels_, begin + size(value).pixels());
    for (int64_t done = first; done < last;) {
      const int64_t inside = (done - begin) % strip_pixels;
      const int64_t n = std::min(last - done, strip_pixels - inside);
      const float* planes = frame_.strip(value, (done - begin) / strip_pixels) + inside;
      float* const out = out_ + done - first_row_ * size_.width;
      for (int64_t c = 0; c < size_.channels; c++)
        std::memcpy(out + c * strips_->pitch, planes + c * from.pitch, n * sizeof(float));
      done += n;
    }
  }

  void join() const {
    int64_t begin = 0;
    for (int64_t value : step_.inputs) {
      copy_pixels(value, begin);
      begin += size(value).pixels();
    }
  }

  void concat() const {
    float* out = out_;
    for (int64_t value : step_.inputs) {
      const float* const x = beside(value);
      for_floats(0, size(value).channels,
                 [&](int64_t i, int64_t n) { std::memcpy(out + i, x + i, n * sizeof(float)); });
      out += size(value).channels * strips_->pitch;
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
};

}  // namespace

void run_step(const Frame& frame, const Step& step, int64_t strip, const Team& team) {
  StepRun(frame, step, strip, team).run();
}

}  // namespace sparsejax
