// Where a program's values lie and in which order strips of them are computed.
//
// A value is cut into strips: `rows` rows of all channels, [channels][pitch]. Strips of large maps
// live in rings: they are computed when a later step asks for them and overwritten when nothing
// needs them any more, so that they stay in the cache (depth first). Values that are read as a
// whole, and small maps (one strip or two), are kept for as long as a later job needs them. A job
// computes one kept value and, on the way, the ring values that only it needs; threads share its
// strips, so that what a thread reads was mostly written by itself.
#pragma once
#include <cstdint>
#include <vector>

#include "engine/program.h"

namespace sparsejax {

struct Strips {
  int64_t rows, count, pitch;
  int64_t packed_pixels, packed_pitch;  // that a product's tiles and chunks are chosen for
  int64_t floats;                       // of one strip, with what kernels may touch beside it
  int64_t ring;                         // strips that are there at a time: `count` for kept values
  bool small;                           // few pixels: kept
  bool kept;
  int64_t sums;   // in a strip: where sums of its channels lie, 0 if no step asks for them
  bool in_place;  // an operand that steps read where the caller has it: it takes no memory here
  int64_t begin;  // in the arena (kept) or in a job's own memory (rings)
};

struct Job {
  int64_t step;  // that makes the kept value, or an output step
};

struct Plan {
  std::vector<Strips> values;
  std::vector<int64_t> maker;  // step of each value
  std::vector<Job> jobs;
  int64_t arena_floats = 0;   // kept values
  int64_t job_floats = 0;     // rings and columns of one job on one thread
  int64_t columns_begin = 0;  // in a job's memory
};

// Strips have about `strip_pixels` pixels, but two rows at least; maps of fewer are one strip, and
// maps of at most `whole_pixels` two. Images of width 1 are strips of at most `strip_pixels`; of
// others there are more in a strip as long as it takes at most `strip_floats`.
struct PlanOptions {
  int64_t strip_pixels, whole_pixels, strip_floats = 0;
};

// Those that are used unless a caller has its own: a strip takes at most a quarter of the second
// cache. Two strips of a small map are for two threads, which WebAssembly seldom has.
PlanOptions usual_plan();

Plan make_plan(const Program& program, const PlanOptions& options);

// Does a product's window see each pixel alone, where it lies?
bool is_pointwise(const Program& program, const Step& step);

// Does the product read its input's strips as they are?
bool reads_directly(const Program& program, const Step& step);

// Does a step of values that are rows (width 1) compute each row by itself, or sequences of them?
bool works_on_rows(const Program& program, const Step& step);

}  // namespace sparsejax
