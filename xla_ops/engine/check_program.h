// What a program must be to be run safely.
#pragma once
#include "engine/problem.h"
#include "engine/program.h"

namespace sparsejax {

constexpr int64_t kMostFloats = int64_t{1} << 31;  // of a value; keeps every product in range
constexpr int64_t kMostSide = int64_t{1} << 24;    // of an image, or that a window reaches

// Does the step say nothing but what its kind may say?
bool check_fields(const Step& step, Problem& problem);

// All else, of a program whose steps passed check_fields.
bool check_program(const Program& program, Problem& problem);

}  // namespace sparsejax
