// A strip of the output of a norm or a softmax over channels.
#pragma once
#include "engine/executable.h"

namespace sparsejax {

// Of all strips of a kMoments step's input.
void run_moments(const Frame& frame, const Step& step, const Team& team);

void run_norm(const Frame& frame, const Step& step, int64_t strip, const Team& team);

}  // namespace sparsejax
