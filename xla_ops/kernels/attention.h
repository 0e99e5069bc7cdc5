// softmax(scale q k + mask) v of one head, fp32: queries lie side by side in vectors.
#pragma once
#include <cstdint>

namespace sparsejax {

enum class Mask : int64_t {
#define MASK(name, code) k##name = code,
#include "kernels/codes.def"
};
constexpr int64_t kNumMasks = 0
#define MASK(name, code) +1
#include "kernels/codes.def"
    ;
constexpr bool is_causal(Mask mask) { return mask == Mask::kCausal || mask == Mask::kAddCausal; }
constexpr bool is_of_keys(Mask mask) { return mask == Mask::kAddKeys || mask == Mask::kSelectKeys; }

constexpr int32_t kLeftOut = 0x7fc0ffee;  // the bits of a NaN that no sum gives

// q[size][q_pitch] and mask[keys][mask_pitch] may be read for 32 floats from each query on;
// exactly `queries` floats of each row of out[v_size][out_pitch] are written.
struct AttentionCall {
  const float *q, *k, *v, *mask;  // k[size][k_pitch], v[v_size][k_pitch]
  int64_t q_pitch, k_pitch, mask_pitch;
  int64_t queries, keys, size, v_size;
  float scale, fill;
  Mask kind;
  int64_t last_seen;  // causal: the last key that query 0 sees
  bool skips;         // causal: may unseen keys be left out? Not where v holds inf or NaN
  float* out;
  int64_t out_pitch;
  float* scratch;  // 32 floats for each key
};

// One query of one head: key i begins at k[i * k_step] and value i at v[i * v_step], but for those
// numbered new_k_at and new_v_at (or -1), which are new_k and new_v. Of masks there are kNone,
// kAddQueries, kSelectQueries and kChooseQueries.
struct QueryCall {
  const float *q, *k, *v;  // q[size]
  const float *new_k, *new_v;
  const float* mask;  // one for each key; as many floats may be read as of scratch
  int64_t k_step, v_step, new_k_at, new_v_at;
  int64_t keys, size, v_size;
  float scale, fill;
  Mask kind;
  float* out;      // [v_size]
  float* scratch;  // query_scratch(keys) floats
};
constexpr int64_t query_scratch(int64_t keys) { return (keys + 31) / 32 * 32; }

constexpr bool is_of_one_query(Mask mask) {
  return mask == Mask::kAddQueries || mask == Mask::kSelectQueries || mask == Mask::kChooseQueries;
}

struct AttentionKernels {
  void (*attend)(const AttentionCall& call);
  void (*attend_query)(const QueryCall& call);
};

}  // namespace sparsejax
