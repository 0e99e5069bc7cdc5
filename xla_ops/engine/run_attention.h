// A strip of the output of attention.
#pragma once
#include "engine/executable.h"

namespace sparsejax {

void run_attention(const Frame& frame, const Step& step, int64_t strip, const Team& team);
void run_cached_attention(const Frame& frame, const Step& step, int64_t strip, const Team& team);

}  // namespace sparsejax
