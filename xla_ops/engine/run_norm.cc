// See run_norm.h.
#include "engine/run_norm.h"

#include <cmath>

#include "engine/strip_run.h"
#include "kernels/norm.h"

namespace sparsejax {
namespace {

class NormRun : StripRun {
 public:
  using StripRun::StripRun;

  void run() const {
    const NormCall call = {beside(step_.inputs[0]), size_.channels, strips_->pitch, pixels_, out_};
    if (step_.op == Op::kSoftmax) return kernels_.norm->softmax(call);
    const auto norm =
        step_.op == Op::kLayerNorm ? kernels_.norm->layer_norm : kernels_.norm->rms_norm;
    norm(call, floats(step_.weights), floats(step_.bias), epsilon_of(step_));
  }
};

class MomentsRun : StripRun {
 public:
  MomentsRun(const Frame& frame, const Step& step, const Team& team)
      : StripRun(frame, step, 0, team), channels_(size(step.inputs[0]).channels) {}

  void run() const {
    const int64_t groups = step_.channels[0], count = channels_ / groups;
    const auto of_group = [&](int64_t group) { moments(group * count, count); };
    if (size(step_.inputs[0]).floats() >= kSmallWork) return team_.for_each(groups, of_group);
    for (int64_t group = 0; group < groups; group++) of_group(group);
  }

 private:
  // The sum of f(floats, count) over the strips of channels, in float64.
  template <class F>
  double sum(int64_t begin, int64_t count, const F& f) const {
    const int64_t value = step_.inputs[0];
    const ImageSize& image = size(value);
    const Strips& from = strips(value);
    const int64_t strip_pixels = from.rows * image.width;
    double total = 0;
    for (int64_t s = 0; s < from.count; s++) {
      const int64_t n = std::min(strip_pixels, image.pixels() - s * strip_pixels);
      for (int64_t c = begin; c < begin + count; c++)
        total += f(frame_.strip(value, s) + c * from.pitch, n);
    }
    return total;
  }

  void moments(int64_t begin, int64_t count) const {
    const auto n = static_cast<double>(count * size(step_.inputs[0]).pixels());
    const ElementwiseKernels& kernels = *kernels_.elementwise;
    const double mean = sum(begin, count, kernels.sum) / n;
    const auto centre = static_cast<float>(mean);
    const double variance = sum(begin, count,
                                [&](const float* x, int64_t floats) {
                                  return kernels.sum_of_squares(x, floats, centre);
                                }) /
                            n;
    const double factor = 1 / std::sqrt(variance + epsilon_of(step_));
    for (int64_t c = begin; c < begin + count; c++) {
      write(c, factor);
      write(channels_ + c, mean);
    }
  }

  void write(int64_t c, double moment) const {
    out_[c] = static_cast<float>(floats(step_.weights)[c] * moment + floats(step_.bias)[c]);
  }

  const int64_t channels_;
};

}  // namespace

void run_moments(const Frame& frame, const Step& step, const Team& team) {
  MomentsRun(frame, step, team).run();
}

void run_norm(const Frame& frame, const Step& step, int64_t strip, const Team& team) {
  NormRun(frame, step, strip, team).run();
}

}  // namespace sparsejax
