// A strip of a step's output: its pixels, what the step reads, and loops that a team shares.
#pragma once
#include <algorithm>
#include <vector>

#include "engine/executable.h"
#include "kernels/sizes.h"
#include "threads/scratch.h"

namespace sparsejax {

// Work below which helping threads cost more than they bring (a loop of a team costs about 1 us).
constexpr int64_t kSmallWork = 50000;
constexpr int64_t kChannelGroup = 32;

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
    const int64_t first = strip * strips_->rows;
    const int64_t last = std::min(first + strips_->rows, size_.height);
    const Range piece = frame.piece ? frame.piece->rows[step.output] : Range{first, last};
    first_row_ = std::max(first, piece.low);
    rows_ = std::min(last, piece.high) - first_row_;
    whole_ = rows_ == last - first;
    pixels_ = rows_ * size_.width;
    before_ = (first_row_ - first) * size_.width;
    out_ = frame.strip(step.output, strip) + before_;
  }

 protected:
  // Channels [begin, end) of [channel][pitch], channel 0 at `out`, that a window writes in `rows`
  // rows.
  struct Written {
    int64_t begin, end;
    float* out;
    int64_t pitch, rows;
  };

  const Strips& strips(int64_t value) const { return plan_.values[value]; }
  const ImageSize& size(int64_t value) const { return program_.values[value]; }
  const float* floats(int64_t begin) const { return program_.floats.data() + begin; }
  // The strip of an input that lies where this strip does, or its only one.
  const float* beside(int64_t value) const {
    return strips(value).count == 1 ? frame_.strip(value, 0)
                                    : frame_.strip(value, strip_) + before_;
  }
  float* columns() const { return frame_.job + plan_.columns_begin; }

  // f(begin, end) over groups of channels.
  template <class F>
  void for_channels(int64_t channels, int64_t work, const F& f) const {
    const int64_t groups = divide_up(channels, kChannelGroup);
    if (team_.num_threads() <= 1 || work < kSmallWork) return f(0, channels);
    team_.for_each(groups, [&](int64_t g) {
      f(g * kChannelGroup, std::min(channels, (g + 1) * kChannelGroup));
    });
  }

  // The rows of the input that the strip reads, in this thread's own list.
  std::vector<const float*>& rows_read() const {
    static thread_local std::vector<const float*> rows;  // so that it is allocated once
    const Window& w = step_.window;
    frame_.rows(step_.inputs[0], first_row_ * w.stride_y - step_.pad_top,
                (rows_ - 1) * w.stride_y + (w.kernel_y - 1) * w.dilation_y + 1, rows);
    return rows;
  }

  // f(call) over some channels of the input, which `rows` begin; scratch is this thread's.
  template <class F>
  void slide(Window w, const float* const* rows, const Written& to, const F& f) const {
    const int64_t value = step_.inputs[0];
    w.in_width = size(value).width;
    w.out_width = size_.width;
    const Scratch memory(kernels_.window->scratch_floats(w, to.rows));
    f(WindowCall{w, rows, strips(value).pitch, to.begin, to.end, to.out, to.pitch, to.rows,
                 memory.data()});
  }

  static void compact(const float* from, int64_t n, float* to) {
    for (int64_t i = 0; i < n; i++) to[i] = from[i * 16];
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
  int64_t first_row_ = 0, rows_ = 0, pixels_ = 0;  // where a thread begins or ends, not all
  int64_t before_ = 0;                             // pixels of the strip that are left out first
  bool whole_ = true;
  float* out_ = nullptr;
};

}  // namespace sparsejax
