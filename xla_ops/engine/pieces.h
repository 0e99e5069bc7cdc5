// What a thread computes of a kept value, and the rows and strips that this is made of.
#pragma once
#include <vector>

#include "engine/plan.h"

namespace sparsejax {

template <class F>
void for_each_input(const Step& step, const F& f) {
  for (int64_t value : step.inputs) f(value);
  if (step.residual != kNone) f(step.residual);
  if (step.gate != kNone) f(step.gate);
}

// [low, high), never empty.
struct Range {
  int64_t low, high;
};

// The rows of a strip.
Range rows_of(const Program& program, const Plan& plan, int64_t value, int64_t strip);

// The strips of `value` that output strip `strip` of a step reads.
Range strips_read(const Program& program, const Plan& plan, const Step& step, int64_t value,
                  int64_t strip);

// Threads share a kept value's rows by pieces: a range begins where one of these does.
constexpr int64_t kPieces = 16;
int64_t piece_begin(const Program& program, const Plan& plan, int64_t value, int64_t piece);

// Rows of a kept value and, for each value, the rows that they are computed from and the next strip
// to compute: of ring values no more than is read where threads meet.
struct Piece {
  std::vector<Range> rows;
  std::vector<int64_t> done;
};

// In the memory of `piece`, whatever is in it.
void begin_piece(const Program& program, const Plan& plan, int64_t value, Range rows, Piece& piece);

// Computes the strips of `value` up to `end`, but none behind the piece: calls produce(step, strip)
// in an order in which all ring strips that are read were computed.
template <class Produce>
void walk(const Program& program, const Plan& plan, int64_t value, int64_t end, Piece& piece,
          const Produce& produce) {
  const Step& step = program.steps[plan.maker[value]];
  const int64_t rows = plan.values[value].rows;
  for (int64_t& strip = piece.done[value]; strip < end && strip * rows < piece.rows[value].high;
       strip++) {
    auto visit = [&](int64_t input) {
      if (input == kNone || plan.values[input].kept) return;
      const int64_t high = strips_read(program, plan, step, input, strip).high;
      walk(program, plan, input, high, piece, produce);
    };
    for (int64_t input : step.inputs) visit(input);
    visit(step.residual);
    produce(step, strip);
  }
}

}  // namespace sparsejax
