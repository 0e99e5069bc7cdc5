// A strip of the output of a norm or a softmax over channels.
#pragma once
#include "engine/executable.h"

namespace sparsejax {

void run_norm(const Frame& frame, const Step& step, int64_t strip, const Team& team);

}  // namespace sparsejax
