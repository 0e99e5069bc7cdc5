// A strip of the output of a product.
#pragma once
#include "engine/executable.h"

namespace sparsejax {

void run_product(const Frame& frame, const Step& step, int64_t strip, const Team& team);

}  // namespace sparsejax
