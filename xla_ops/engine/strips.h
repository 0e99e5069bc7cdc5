// How a value is cut into strips.
#pragma once
#include "engine/plan.h"

namespace sparsejax {

constexpr int64_t kSlack = 32;  // floats between strips that kernels may read

// The fewest rows whose pixels are whole vectors of 16.
int64_t rows_of_vectors(int64_t width);

// Floats of a channel: whole cache lines, an odd number of them where channels would else share
// cache sets; room for a row of 16 floats that begins where the last row does.
int64_t pitch_of(int64_t rows, int64_t width);

// Is the program a column of pixels, of which nothing but products, sums and functions is taken? No
// kernel looks beside a row then, so that few of them may lie close together.
bool is_column(const Program& program);

// Rows, number, pitch and floats of a value's strips.
Strips strips_of(const ImageSize& size, bool column, const PlanOptions& options);

}  // namespace sparsejax
