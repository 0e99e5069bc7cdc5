// What each kind of step may say; see check_program.h.
#include "engine/check_program.h"

namespace sparsejax {
namespace {

// What the steps of one kind may say; all else must be left at its neutral value, so that nothing
// that a step says is ignored.
struct Fields {
  int64_t min_inputs, max_inputs;
  bool activation, window, pads, weights, layout, residual_and_gate, argument, order, pooling,
      binary, channels;
};
constexpr int64_t kAny = INT64_MAX;
constexpr bool x = true, o = false;
// clang-format off
constexpr Fields kFields[kNumOps] = {
    //              inputs   activation
    //                       |  window
    //                       |  |  pads
    //                       |  |  |  weights
    //                       |  |  |  |  layout
    //                       |  |  |  |  |  residual and gate
    //                       |  |  |  |  |  |  argument and rank
    //                       |  |  |  |  |  |  |  channels_last
    //                       |  |  |  |  |  |  |  |  pooling
    //                       |  |  |  |  |  |  |  |  |  binary
    //                       |  |  |  |  |  |  |  |  |  |  channels
    /* input     */ {0, 0,    o, o, o, o, o, o, x, x, o, o, o},
    /* output    */ {1, 1,    o, o, o, o, o, o, x, x, o, o, o},
    /* product   */ {1, 1,    x, x, x, x, x, x, o, o, o, o, o},
    /* depthwise */ {1, 1,    x, x, x, x, o, o, o, o, o, o, o},
    /* pool      */ {1, 1,    o, x, x, o, o, o, o, o, x, o, o},
    /* mean      */ {1, 1,    o, o, o, o, o, o, o, o, o, o, o},
    /* affine    */ {1, 1,    x, o, o, x, o, o, o, o, o, o, o},
    /* binary    */ {2, 2,    x, o, o, o, o, o, o, o, o, x, o},
    /* concat    */ {1, kAny, o, o, o, o, o, o, o, o, o, o, o},
    /* channels  */ {1, 1,    o, o, o, o, o, o, o, o, o, o, x},
    /* pad       */ {1, 1,    o, o, x, o, o, o, o, o, o, o, o},
    /* flatten   */ {1, 1,    o, o, o, o, o, o, o, x, o, o, o},
    /* pick      */ {1, 1,    o, o, o, o, o, o, o, o, o, o, x},
    /* layernorm */ {1, 1,    o, o, o, x, o, o, o, o, o, o, o},
    /* rmsnorm   */ {1, 1,    o, o, o, x, o, o, o, o, o, o, o},
    /* softmax   */ {1, 1,    o, o, o, o, o, o, o, o, o, o, o},
    /* attention */ {3, 4,    o, o, o, o, o, o, o, o, o, o, x},
    /* known     */ {0, 0,    o, o, o, x, o, o, o, o, o, o, x},
    /* join      */ {1, kAny, o, o, o, o, o, o, o, o, o, o, o},
    /* rewrap    */ {1, 1,    o, o, o, o, o, o, o, o, o, o, o},
    /* moments   */ {1, 1,    o, o, o, x, o, o, o, o, o, o, x},
    /* cached    */ {3, 8,    o, o, o, o, o, o, o, o, o, o, x},
};
// clang-format on

}  // namespace

bool check_fields(const Step& step, Problem& problem) {
  const Fields& may = kFields[static_cast<int64_t>(step.op)];
  const auto num_inputs = static_cast<int64_t>(step.inputs.size());
  const Window& w = step.window;
  const ProductLayout& l = step.layout;
  const bool has_window = w.kernel_y != 1 || w.kernel_x != 1 || w.stride_y != 1 ||
                          w.stride_x != 1 || w.dilation_y != 1 || w.dilation_x != 1;
  const bool has_layout = l.storage != Storage::kRows || l.block != 0 || l.tile != 0 ||
                          l.chunk_cols != 0 || l.num_parts != 0;
  const auto need = [&](bool condition, const char* what) { return problem.need(condition, what); };
  return need(num_inputs >= may.min_inputs && num_inputs <= may.max_inputs,
              "a step has too few or many inputs") &&
         need(may.activation || step.activation.function == Function::kIdentity,
              "a step of this kind has no activation") &&
         need(may.window || !has_window, "a step of this kind has no window") &&
         need(may.pads || (step.pad_top == 0 && w.pad_left == 0),
              "a step of this kind has no padding") &&
         need(may.weights || step.weights == kNone, "a step of this kind has no weights") &&
         need((step.weights == kNone) == (step.bias == kNone), "weights and bias come together") &&
         need(may.layout || (!has_layout && step.groups == 1),
              "a step of this kind has no layout and no groups") &&
         need(is_layout(l), "a storage has no such block") &&
         need(may.residual_and_gate || step.residual == kNone,
              "a step of this kind has no residual") &&
         need(may.residual_and_gate || step.gate == kNone, "a step of this kind has no gate") &&
         need(may.argument || (step.argument == kNone && step.rank == 0),
              "a step of this kind is no operand or result") &&
         need(may.order || !step.channels_last, "a step of this kind has no order of channels") &&
         need(may.pooling || step.pooling == Pooling::kMax, "a step of this kind has no pooling") &&
         need(may.binary || step.binary == Binary::kAdd,
              "a step of this kind has no binary operation") &&
         need(may.channels || step.channels.empty(),
              "a step of this kind has no choice of channels");
}

}  // namespace sparsejax
