// See run_attention.h.
#include "engine/run_attention.h"

#include <cstring>

#include "engine/strip_run.h"

namespace sparsejax {
namespace {

bool all_finite(const float* x, int64_t n) {
  uint32_t found = 0;
  for (int64_t i = 0; i < n; i++) {
    uint32_t bits;
    std::memcpy(&bits, x + i, sizeof(bits));
    found |= (bits & 0x7f800000) == 0x7f800000;
  }
  return !found;
}

class AttentionRun : StripRun {
 public:
  AttentionRun(const Frame& frame, const Step& step, int64_t strip, const Team& team)
      : StripRun(frame, step, strip, team),
        heads_(step),
        keys_(heads_.keys_of(size_.height, size(step.inputs[1]).height)) {}

  // Sequences and heads are shared out. Whoever computes a head gathers its keys and values first.
  void run() const {
    const int64_t first = first_row_ / heads_.length;
    const int64_t last = (first_row_ + rows_ - 1) / heads_.length;
    const int64_t count = (last - first + 1) * heads_.count;
    team_.for_each(count, [&](int64_t i) { attend(first + i / heads_.count, i % heads_.count); });
  }

 private:
  // Rows [row, row + keys) of `count` channels of a value from `channel` on, one behind the other.
  void gather(int64_t value, int64_t channel, int64_t count, int64_t row, float* to) const {
    const Strips& from = strips(value);
    for (int64_t done = 0; done < keys_;) {
      const int64_t at = row + done, inside = at % from.rows;
      const int64_t n = std::min(keys_ - done, from.rows - inside);
      const float* planes = frame_.strip(value, at / from.rows) + channel * from.pitch + inside;
      for (int64_t c = 0; c < count; c++)
        std::memcpy(to + c * keys_ + done, planes + c * from.pitch, n * sizeof(float));
      done += n;
    }
  }

  void attend(int64_t sequence, int64_t head) const {
    const int64_t n = keys_, start = sequence * heads_.length, first_key = sequence * n;
    const int64_t begin = std::max(first_row_, start), inside = begin - first_row_;
    const int64_t end = std::min(first_row_ + rows_, start + heads_.length);
    const int64_t q = step_.inputs[0], k = step_.inputs[1], v = step_.inputs[2];
    const Scratch memory(n * (heads_.size + heads_.value_size + 1 + 32));
    AttentionCall call = {};
    float* const keys = memory.data();
    float* const values = keys + n * heads_.size;
    float* const mask = values + n * heads_.value_size;
    gather(k, heads_.keys[head], heads_.size, first_key, keys);
    gather(v, heads_.values[head], heads_.value_size, first_key, values);
    call.q = beside(q) + heads_.queries[head] * strips(q).pitch + inside;
    call.q_pitch = strips(q).pitch;
    call.k = keys, call.v = values, call.k_pitch = n;
    call.queries = end - begin, call.keys = n;
    call.size = heads_.size, call.v_size = heads_.value_size;
    call.scale = heads_.scale, call.fill = heads_.fill;
    call.kind = heads_.mask;
    call.last_seen = begin - start;
    call.skips = heads_.mask == Mask::kCausal && call.fill < -1e30f &&
                 all_finite(values, n * heads_.value_size);
    if (is_of_keys(heads_.mask)) {
      gather(step_.inputs[3], 0, 1, first_key, mask);
      call.mask = mask, call.mask_pitch = 1;
    } else if (step_.inputs.size() > 3) {
      const Strips& from = strips(step_.inputs[3]);
      const bool own = size(step_.inputs[3]).channels != n;
      call.mask = beside(step_.inputs[3]) + (own ? head * n * from.pitch : 0) + inside;
      call.mask_pitch = from.pitch;
    }
    call.out = out_ + head * heads_.value_size * strips_->pitch + inside;
    call.out_pitch = strips_->pitch;
    call.scratch = mask + n;
    kernels_.attention->attend(call);
  }

  const Heads heads_;
  const int64_t keys_;  // of a sequence
};

}  // namespace

void run_attention(const Frame& frame, const Step& step, int64_t strip, const Team& team) {
  AttentionRun(frame, step, strip, team).run();
}

}  // namespace sparsejax
