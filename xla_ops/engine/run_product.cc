// See run_product.h.
#include "engine/run_product.h"

#include "engine/strip_run.h"

namespace sparsejax {
namespace {

class ProductStep : StripRun {
 public:
  ProductStep(const Frame& frame, const Step& step, int64_t strip, const Team& team)
      : StripRun(frame, step, strip, team),
        product_(*frame.executable->product(step)),
        planes_(frame.executable->planes(step)),
        matrix_(product_.matrix()),
        channels_(size(step.inputs[0]).channels),
        taps_(step.window.kernel_y * step.window.kernel_x) {}

  void run() const {
    const bool alone = team_.num_threads() <= 1 || product_.stored() * pixels_ < kSmallWork;
    if (reads_directly(program_, step_)) return multiply_all(beside(step_.inputs[0]), alone);
    if (gates_weights()) return multiply_gated(alone);
    const auto rows = rows_to_copy();
    if (alone && step_.groups > 1 && strips_->pitch > 1) return part_by_part(rows);
    for_channels(channels_, channels_ * taps_ * pixels_ * 4,
                 [&](int64_t begin, int64_t end) { copy(rows, begin, end, columns()); });
    if (strips_->pitch > 1) return multiply_all(columns(), alone);
    const int64_t cols = channels_ * taps_;
    float* x = columns() + round_up(cols * 16 + 16, 16);
    compact(columns(), cols, x);
    multiply_all(x, alone);
  }

 private:
  // The same with other weights.
  ProductStep(const ProductStep& step, const ProductMatrix& matrix)
      : StripRun(step),
        product_(step.product_),
        planes_(step.planes_),
        matrix_(matrix),
        channels_(step.channels_),
        taps_(step.taps_) {}

  // What the window slides over: the input's rows, or those of each plane one behind the other.
  const float* const* rows_to_copy() const {
    static thread_local std::vector<const float*> all;  // so that it is allocated once
    const std::vector<const float*>& rows = rows_read();
    if (!planes_.used()) return rows.data();
    all.clear();
    for (int64_t first : planes_.first_rows)
      for (int64_t i = 0; i < copied_rows(); i++) {
        const int64_t row = first + i * step_.window.stride_y;
        all.push_back(row < static_cast<int64_t>(rows.size()) ? rows[row] : nullptr);
      }
    return all.data();
  }

  int64_t copied_rows() const {
    return planes_.used() ? planes_.rows - strips_->rows + rows_ : rows_;
  }
  int64_t copied_pitch() const {
    return planes_.used() ? planes_.pitch : strips_->pitch == 1 ? 16 : strips_->pitch;
  }
  // Floats of a channel.
  int64_t copied_floats() const {
    return planes_.used() ? 4 * planes_.places.channel : taps_ * copied_pitch();
  }

  // Columns of channels [begin, end) to `out`, where those of channel 0 would begin.
  void copy(const float* const* rows, int64_t begin, int64_t end, float* out) const {
    Window w = step_.window;
    if (planes_.used()) w = planes_.window(w, copied_rows());
    const float* gate = step_.gate == kNone ? nullptr : frame_.strip(step_.gate, 0);
    slide(w, rows, {begin, end, out, copied_pitch(), copied_rows()},
          [&](const WindowCall& call) { kernels_.window->columns(call, gate); });
  }

  // Is a gate cheaper on the weights (one by one) than on what they multiply (by vectors)? Not for
  // WebAssembly, whose modules are to be small.
  bool gates_weights() const {
    return !kWasm && step_.gate != kNone && strips_->pitch > 1 && is_pointwise(program_, step_) &&
           matrix_.storage != Storage::kColumns &&
           8 * product_.stored() < channels_ * strips_->rows * size_.width;
  }

  void multiply_gated(bool alone) const {
    static thread_local std::vector<ProductChunk> chunks;  // so that it is allocated once
    const Scratch values(product_.stored());
    const float* gate = frame_.strip(step_.gate, 0);
    const ProductMatrix gated = product_.gated(gate, values.data(), chunks);
    ProductStep(*this, gated).multiply_all(beside(step_.inputs[0]), alone);
  }

  // Copies what a part reads just before it is multiplied, always to the same place.
  void part_by_part(const float* const* rows) const {
    const int64_t group_rows = size_.channels / step_.groups;
    const int64_t group_channels = channels_ / step_.groups;
    for (int64_t part = 0; part < matrix_.num_parts; part++) {
      const int64_t begin = matrix_.part_rows[part] / group_rows * group_channels;
      const int64_t end = matrix_.part_rows[part + 1] / group_rows * group_channels;
      float* x = columns() - begin * copied_floats();
      copy(rows, begin, end, x);
      kernels_.product->multiply(call_of(x), part, 0, pixels_);
    }
  }

  ProductCall call_of(const float* x) const {
    const int64_t pitch = product_.has_places() ? 4 : strips_->pitch;
    ProductCall call = {&matrix_, x, pitch,           out_, strips_->pitch, floats(step_.bias),
                        nullptr,  0, step_.activation};
    if (step_.residual == kNone) return call;
    call.residual = beside(step_.residual);
    call.residual_pitch = strips(step_.residual).pitch;
    return call;
  }

  // Few parts: threads share the pixels, too. Those that are multiplied apart stay with the tile
  // before them, so that their sums do not depend on who does.
  void multiply_all(const float* x, bool alone) const {
    const ProductCall call = call_of(x);
    const int64_t tile = round_up(matrix_.tile * kernels_.product->lanes, 16);
    const int64_t behind =
        kWasm ? 0  // where weights are read twice
              : pixels_behind(matrix_.storage, matrix_.block, pixels_, kernels_.product->lanes);
    const int64_t tiles = divide_up(std::max<int64_t>(1, pixels_ - behind), tile);
    const int64_t shares =
        alone ? 1 : std::min(tiles, divide_up(2 * team_.num_threads(), matrix_.num_parts));
    const auto multiply = [&](int64_t item) {
      const int64_t share = item / matrix_.num_parts;
      const int64_t first = tiles * share / shares * tile;
      const int64_t last = share + 1 == shares ? pixels_ : tiles * (share + 1) / shares * tile;
      if (!kSkipsZeros || matrix_.storage != Storage::kColumns)
        return kernels_.product->multiply(call, item % matrix_.num_parts, first, last - first);
      const Scratch memory(kernels_.product->scratch_floats(matrix_));
      ProductCall own = call;
      own.scratch = memory.data();
      kernels_.product->multiply(own, item % matrix_.num_parts, first, last - first);
    };
    if (!alone) return team_.for_each(matrix_.num_parts * shares, multiply);
    for (int64_t i = 0; i < matrix_.num_parts; i++) multiply(i);
  }

  const PackedProduct& product_;
  const TapPlanes& planes_;
  const ProductMatrix& matrix_;
  const int64_t channels_, taps_;
};

}  // namespace

void run_product(const Frame& frame, const Step& step, int64_t strip, const Team& team) {
  ProductStep(frame, step, strip, team).run();
}

}  // namespace sparsejax
