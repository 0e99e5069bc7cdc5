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
    if (call.kind == Mask::kNone) return score;
    if (call.kind == Mask::kCausal) return sees(key, half) ? score : splat<Vec>(call.fill);
    return by_number(key, score, half);
  }

 private:
  // No part of the loops that it is called from, which are many.
  __attribute__((noinline)) Vec by_number(int64_t key, Vec score, int half) const {
    const Vec fill = splat<Vec>(call.fill);
    const float* mask = call.mask + key * call.mask_pitch;
    const Vec number =
        is_of_keys(call.kind) ? splat<Vec>(*mask) : load<Vec>(mask + query + half * kLanes);
    switch (call.kind) {
      case Mask::kSelectKeys:
      case Mask::kSelectQueries:
        return number != 0.f ? score : fill;
      case Mask::kAddCausal:
        return sees(key, half) ? score + number : fill;
      case Mask::kChooseQueries:
        return where_bits(number, kLeftOut, fill, score + number);
      default:
        return score + number;
    }
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

}  // namespace

void attend_query(const QueryCall& call);  // attention_query.cc

extern const AttentionKernels attention = {attend, attend_query};

}  // namespace sparsejax::SPARSEJAX_TARGET
