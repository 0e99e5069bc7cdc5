// See run_norm.h.
#include "engine/run_norm.h"

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

}  // namespace

void run_norm(const Frame& frame, const Step& step, int64_t strip, const Team& team) {
  NormRun(frame, step, strip, team).run();
}

}  // namespace sparsejax
