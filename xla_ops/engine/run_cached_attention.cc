// Attention of one query a row; see run_attention.h.
#include "engine/run_attention.h"
#include "engine/strip_run.h"

namespace sparsejax {
namespace {

// Channels of one row of a value, `step` floats apart.
struct Row {
  const float* first;
  int64_t step;
};

class CachedAttentionRun : StripRun {
 public:
  CachedAttentionRun(const Frame& frame, const Step& step, int64_t strip, const Team& team)
      : StripRun(frame, step, strip, team), heads_(step) {}

  // Rows and heads are shared out.
  void run() const {
    team_.for_each(rows_ * heads_.count,
                   [&](int64_t i) { attend(first_row_ + i / heads_.count, i % heads_.count); });
  }

 private:
  Row row_of(size_t input, int64_t row) const {
    const int64_t value = step_.inputs[input];
    const Strips& from = strips(value);
    if (from.in_place)
      return {
          frame_.operands[program_.steps[plan_.maker[value]].argument] + row * size(value).channels,
          1};
    return {frame_.strip(value, row / from.rows) + row % from.rows, from.pitch};
  }

  // Copies `count` channels from `channel` on to `to`, which moves behind them; returns where.
  __attribute__((noinline)) static const float* gather(const Row& row, int64_t channel,
                                                       int64_t count, float*& to) {
    for (int64_t c = 0; c < count; c++) to[c] = row.first[(channel + c) * row.step];
    to += count;
    return to - count;
  }

  // Keys or values: where they lie, or one behind the other behind `to`.
  const float* rows_of(const Row& row, int64_t channel, int64_t size, int64_t& step,
                       float*& to) const {
    if (row.step == 1) return row.first + channel;
    const float* const begin = to;
    for (int64_t i = 0; i < heads_.length; i++) gather(row, channel + i * step, size, to);
    step = size;
    return begin;
  }

  // The key whose place a new one takes: the nearest, or none where it is NaN.
  int64_t place(size_t input, int64_t row) const {
    const float at = *row_of(input, row).first;
    if (at != at) return kNone;
    const int64_t last = heads_.length - 1;
    return at > 0 ? at < static_cast<float>(last) ? static_cast<int64_t>(at) : last : 0;
  }

  void attend(int64_t row, int64_t head) const {
    const int64_t n = heads_.length, both = heads_.size + heads_.value_size;
    const Row keys = row_of(1, row), values = row_of(2, row);
    const int64_t gathered = keys.step == 1 && values.step == 1 ? 2 : n + 2;
    const Scratch memory(gathered * both + 2 * query_scratch(n));
    float* next = memory.data();
    QueryCall call = {};
    call.scratch = next;
    next += query_scratch(n);
    call.mask = next;
    if (CachedHeads::has_mask(step_)) {
      const size_t input = step_.inputs.size() - 1;
      const bool own = size(step_.inputs[input]).channels != n;
      gather(row_of(input, row), own ? head * n : 0, n, next);
      while (next < call.mask + query_scratch(n)) *next++ = 0;
    }
    call.kind = heads_.mask, call.scale = heads_.scale, call.fill = heads_.fill;
    call.keys = n, call.size = heads_.size, call.v_size = heads_.value_size;
    call.k_step = heads_.key_step, call.v_step = heads_.value_step;
    call.q = gather(row_of(0, row), heads_.queries[head], heads_.size, next);
    call.k = rows_of(keys, heads_.keys[head], heads_.size, call.k_step, next);
    call.v = rows_of(values, heads_.values[head], heads_.value_size, call.v_step, next);
    call.new_k_at = call.new_v_at = kNone;
    if (CachedHeads::has_new(step_)) {
      const size_t k = CachedHeads::kNewKey, v = CachedHeads::kNewValue;
      call.new_k = gather(row_of(k, row), heads_.new_keys[head], heads_.size, next);
      call.new_v = gather(row_of(v, row), heads_.new_values[head], heads_.value_size, next);
      call.new_k_at = place(k + 1, row), call.new_v_at = place(v + 1, row);
    }
    call.out = next;
    kernels_.attention->attend_query(call);
    float* const out = out_ + head * heads_.value_size * strips_->pitch + (row - first_row_);
    for (int64_t c = 0; c < heads_.value_size; c++) out[c * strips_->pitch] = call.out[c];
  }

  const CachedHeads heads_;
};

}  // namespace

void run_cached_attention(const Frame& frame, const Step& step, int64_t strip, const Team& team) {
  CachedAttentionRun(frame, step, strip, team).run();
}

}  // namespace sparsejax
