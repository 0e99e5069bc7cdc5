// Attention of one query of a head; see attention.h. Compiled once for each instruction set.
#include "kernels/attention.h"
#include "simd/functions.h"

namespace sparsejax::SPARSEJAX_TARGET {
namespace {

// The sums of every fourth lane.
template <class V>
SPARSEJAX_INLINE Vec4 folded(V v) {
  if constexpr (lanes_of<V> == 16) {
    return folded<Vec8>(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                        __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
  } else if constexpr (lanes_of<V> == 8) {
    return __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
  } else {
    return v;
  }
}

// The sums of neighbours: of a, then of b.
SPARSEJAX_INLINE Vec4 paired(Vec4 a, Vec4 b) { return even_lanes(a, b) + odd_lanes(a, b); }

// The products of the query and four keys from `key` on, the last one again behind the last.
SPARSEJAX_INLINE void score_four(const QueryCall& call, int64_t key) {
  const float* rows[4];
  for (int r = 0; r < 4; r++) {
    const int64_t at = key + r < call.keys ? key + r : call.keys - 1;
    rows[r] = at == call.new_k_at ? call.new_k : call.k + at * call.k_step;
  }
  Vec sum[4] = {};
  int64_t d = 0;
  for (; d + kLanes <= call.size; d += kLanes) {
    const Vec q = load<Vec>(call.q + d);
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) sum[r] += q * load<Vec>(rows[r] + d);
  }
  Vec4 scores =
      paired(paired(folded(sum[0]), folded(sum[1])), paired(folded(sum[2]), folded(sum[3])));
  for (; d < call.size; d++)
    for (int r = 0; r < 4; r++) scores[r] += call.q[d] * rows[r][d];
  store(call.scratch + key, scores);
}

SPARSEJAX_INLINE Vec masked(const QueryCall& call, int64_t key) {
  const Vec score = load<Vec>(call.scratch + key) * call.scale;
  if (call.kind == Mask::kNone) return score;
  const Vec mask = load<Vec>(call.mask + key);
  if (call.kind == Mask::kAddQueries) return score + mask;
  if (call.kind == Mask::kChooseQueries)
    return where_bits(mask, kLeftOut, splat<Vec>(call.fill), score + mask);
  return mask != 0.f ? score : splat<Vec>(call.fill);
}

// scratch becomes exp(score - largest); returns 1 / their sum.
float softmax_of_scratch(const QueryCall& call) {
  const int64_t whole = query_scratch(call.keys);
  const float least = -__builtin_inff();
  float* const scores = call.scratch;
  for (int64_t key = 0; key < whole; key += kLanes) store(scores + key, masked(call, key));
  for (int64_t key = call.keys; key < whole; key++) scores[key] = least;
  Vec most = splat<Vec>(least), sum = {};
  for (int64_t key = 0; key < whole; key += kLanes) {
    const Vec score = load<Vec>(scores + key);
    most = score > most ? score : most;
  }
  float largest = least;
  for (int i = 0; i < kLanes; i++) largest = most[i] > largest ? most[i] : largest;
  for (int64_t key = 0; key < whole; key += 2 * kLanes) {
    Vec e[2];
    for (int i = 0; i < 2; i++) e[i] = load<Vec>(scores + key + i * kLanes) - largest;
    exp_plus<2>(e, 0.f);
    for (int i = 0; i < 2; i++) store(scores + key + i * kLanes, e[i]);
  }
  for (int64_t key = call.keys; key < whole; key++) scores[key] = 0;
  for (int64_t key = 0; key < whole; key += kLanes) sum += load<Vec>(scores + key);
  return 1.f / sum_lanes(sum);
}

// f(weight, the floats of a value from `d` on), one key after the other.
template <class F>
SPARSEJAX_INLINE void for_values(const QueryCall& call, int64_t d, const F& f) {
  for (int64_t key = 0; key < call.keys; key++)
    f(call.scratch[key], (key == call.new_v_at ? call.new_v : call.v + key * call.v_step) + d);
}

template <int n>
SPARSEJAX_INLINE void weigh(const QueryCall& call, int64_t d, float factor) {
  Vec sum[n] = {};
  for_values(call, d, [&](float weight, const float* v) {
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) sum[i] += weight * load<Vec>(v + i * kLanes);
  });
#pragma GCC unroll 4
  for (int i = 0; i < n; i++) store(call.out + d + i * kLanes, sum[i] * factor);
}

}  // namespace

void attend_query(const QueryCall& call) {
  for (int64_t key = 0; key < call.keys; key += 4) score_four(call, key);
  const float factor = softmax_of_scratch(call);
  int64_t d = 0;
  for (; d + 4 * kLanes <= call.v_size; d += 4 * kLanes) weigh<4>(call, d, factor);
  for (; d + kLanes <= call.v_size; d += kLanes) weigh<1>(call, d, factor);
  for (; d < call.v_size; d++) {
    float sum = 0;
    for_values(call, d, [&](float weight, const float* v) { sum += weight * *v; });
    call.out[d] = sum * factor;
  }
}

}  // namespace sparsejax::SPARSEJAX_TARGET
