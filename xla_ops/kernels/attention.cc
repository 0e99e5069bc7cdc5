// Attention of one head; see attention.h. Compiled once for each instruction set.
#include "kernels/attention.h"

#include "simd/functions.h"

namespace sparsejax::SPARSEJAX_TARGET {
namespace {

constexpr int kPair = 2 * kLanes;  // queries at a time
constexpr int kRows = SPARSEJAX_REGISTERS == 32 ? 8 : 4;

struct Pair {
  Vec a, b;
};

// a[row][col] by x[col][pair]; the steps are those of a.
struct Factors {
  const float* a;
  int64_t row_step, col_step, cols;
  const float* x;
  int64_t x_pitch;
};

// f(row, sum over cols of a[row][col] x[col]) for n rows from `row` on.
template <int n, class F>
SPARSEJAX_INLINE void multiply_rows(const Factors& m, int64_t row, const F& f) {
  Vec sum[n][2] = {};
  const float *a = m.a + row * m.row_step, *x = m.x;
  for (int64_t c = 0; c < m.cols; c++, a += m.col_step, x += m.x_pitch) {
    const Vec first = load<Vec>(x), second = load<Vec>(x + kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < n; r++) {
      const float weight = a[r * m.row_step];
      sum[r][0] += weight * first;
      sum[r][1] += weight * second;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < n; r++) f(row + r, Pair{sum[r][0], sum[r][1]});
}

template <class F>
SPARSEJAX_INLINE void multiply(const Factors& m, int64_t rows, const F& f) {
  int64_t row = 0;
  for (; row + kRows <= rows; row += kRows) multiply_rows<kRows>(m, row, f);
  if (kRows > 4 && row + 4 <= rows) {
    multiply_rows<4>(m, row, f);
    row += 4;
  }
  if (row + 2 <= rows) {
    multiply_rows<2>(m, row, f);
    row += 2;
  }
  if (row < rows) multiply_rows<1>(m, row, f);
}

// The scores of a pair of vectors of queries behind the mask.
struct Masked {
  const AttentionCall& call;
  int64_t query;
  Vec seen[2];  // causal: the last key that each query sees

  Masked(const AttentionCall& c, int64_t first) : call(c), query(first), seen() {
    for (int i = 0; i < kPair; i++)
      seen[i / kLanes][i % kLanes] = static_cast<float>(c.last_seen + first + i);
  }
  SPARSEJAX_INLINE auto sees(int64_t key, int half) const {
    return splat<Vec>(static_cast<float>(key)) <= seen[half];
  }
  SPARSEJAX_INLINE Vec operator()(int64_t key, Vec score, int half) const {
    score *= call.scale;
    const float* mask = call.mask + key * call.mask_pitch;
    const Vec fill = splat<Vec>(call.fill);
    switch (call.kind) {
      case Mask::kNone:
        return score;
      case Mask::kCausal:
        return sees(key, half) ? score : fill;
      case Mask::kAddKeys:
        return score + *mask;
      case Mask::kSelectKeys:
        return *mask != 0.f ? score : fill;
      case Mask::kAddQueries:
        return score + load<Vec>(mask + query + half * kLanes);
      case Mask::kAddCausal:
        return sees(key, half) ? score + load<Vec>(mask + query + half * kLanes) : fill;
      case Mask::kSelectQueries:
        return load<Vec>(mask + query + half * kLanes) != 0.f ? score : fill;
    }
    return score;
  }
};

template <int n>
struct Count {
  static constexpr int value = n;
};

// scores[key][pair] become exp(score - largest); returns 1 / their sums.
SPARSEJAX_INLINE Pair exponentials(float* scores, int64_t keys, Pair largest) {
  Vec sum[2] = {};
  const auto step = [&](int64_t key, auto count) {
    constexpr int n = decltype(count)::value;
    Vec e[2 * n];
    for (int i = 0; i < 2 * n; i++)
      e[i] = load<Vec>(scores + key * kPair + i * kLanes) - (i % 2 ? largest.b : largest.a);
    exp_plus<2 * n>(e, 0.f);
    for (int i = 0; i < 2 * n; i++) {
      store(scores + key * kPair + i * kLanes, e[i]);
      sum[i % 2] += e[i];
    }
  };
  int64_t key = 0;
  for (; key + 2 <= keys; key += 2) step(key, Count<2>());
  if (key < keys) step(key, Count<1>());
  return {1.f / sum[0], 1.f / sum[1]};
}

// Of up to kPair queries from `query` on.
void attend_pair(const AttentionCall& call, int64_t query) {
  const int64_t left = call.queries - query;
  int64_t keys = call.keys;
  if (call.kind == Mask::kCausal && call.skips) {
    const int64_t seen = call.last_seen + query + (left < kPair ? left : kPair);
    keys = seen < keys ? seen : keys;
  }
  const Masked masked(call, query);
  Vec largest[2] = {splat<Vec>(-__builtin_inff()), splat<Vec>(-__builtin_inff())};
  const Factors scored = {call.k, 1, call.k_pitch, call.size, call.q + query, call.q_pitch};
  multiply(scored, keys, [&](int64_t key, Pair score) {
    const Vec half[2] = {masked(key, score.a, 0), masked(key, score.b, 1)};
    for (int i = 0; i < 2; i++) {
      largest[i] = half[i] > largest[i] ? half[i] : largest[i];
      store(call.scratch + key * kPair + i * kLanes, half[i]);
    }
  });
  const Pair factor = exponentials(call.scratch, keys, {largest[0], largest[1]});
  const Factors weighed = {call.v, call.k_pitch, 1, keys, call.scratch, kPair};
  multiply(weighed, call.v_size, [&](int64_t row, Pair sum) {
    float* out = call.out + row * call.out_pitch + query;
    store_first(out, sum.a * factor.a, left);
    if (left > kLanes) store_first(out + kLanes, sum.b * factor.b, left - kLanes);
  });
}

void attend(const AttentionCall& call) {
  for (int64_t query = 0; query < call.queries; query += kPair) attend_pair(call, query);
}

SPARSEJAX_INLINE Vec4 folded(Vec4 v) { return v; }
SPARSEJAX_INLINE Vec4 folded(Vec8 v) {
  return __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
}
SPARSEJAX_INLINE Vec4 folded(Vec16 v) {
  return folded(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
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
  return mask != 0.f ? score : splat<Vec>(call.fill);
}

// scratch becomes exp(score - largest); returns 1 / their sum.
float softmax_of_scratch(const QueryCall& call) {
  const int64_t whole = query_scratch(call.keys);
  const float least = -__builtin_inff();
  Vec most = splat<Vec>(least), sum = {};
  for (int64_t key = 0; key < whole; key += kLanes) store(call.scratch + key, masked(call, key));
  for (int64_t key = call.keys; key < whole; key++) call.scratch[key] = least;
  for (int64_t key = 0; key < whole; key += kLanes) {
    const Vec score = load<Vec>(call.scratch + key);
    most = score > most ? score : most;
  }
  float largest = least;
  for (int i = 0; i < kLanes; i++) largest = most[i] > largest ? most[i] : largest;
  for (int64_t key = 0; key < whole; key += kPair) {
    Vec e[2] = {load<Vec>(call.scratch + key) - largest,
                load<Vec>(call.scratch + key + kLanes) - largest};
    exp_plus<2>(e, 0.f);
    store(call.scratch + key, e[0]);
    store(call.scratch + key + kLanes, e[1]);
  }
  for (int64_t key = call.keys; key < whole; key++) call.scratch[key] = 0;
  for (int64_t key = 0; key < whole; key += kLanes) sum += load<Vec>(call.scratch + key);
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

}  // namespace

extern const AttentionKernels attention = {attend, attend_query};

}  // namespace sparsejax::SPARSEJAX_TARGET
