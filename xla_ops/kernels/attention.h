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

struct AttentionKernels {
  void (*attend)(const AttentionCall& call);
};

}  // namespace sparsejax
