// See sequence_runs.h.
#include "runtime/sequence_runs.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace sparsejax {
namespace {

constexpr int64_t kMostTogether = 1024, kMostTogetherFloats = int64_t{1} << 22;

// A run of some items. A value's items lie one behind the other, behind those of earlier values.
class Run {
 public:
  Run(const Model& model, std::vector<std::unique_ptr<ProgramRuns>>& programs, const Team& team,
      int64_t items, float* memory)
      : model_(model), programs_(programs), team_(team), items_(items), memory_(memory) {}

  float* at(const Sequence& sequence, int64_t value) const {
    return memory_ + items_ * sequence.values[value].begin;
  }

  void run(const Sequence& sequence) const {
    for (const Part& part : sequence.parts) {
      switch (part.kind) {
        case Part::kCall:
          call(sequence, part);
          break;
        case Part::kLoop:
          loop(sequence, part);
          break;
        case Part::kView:
          view(sequence, part);
          break;
        case Part::kJoin:
          join(sequence, part);
          break;
        case Part::kConstant:
          constant(sequence, part);
          break;
        case Part::kTake:
          take(sequence, part);
          break;
      }
    }
  }

 private:
  void call(const Sequence& sequence, const Part& part) const {
    static thread_local Pointers pointers;
    pointers.clear();
    for (int64_t value : part.inputs) pointers.operands.push_back(at(sequence, value));
    for (int64_t value : part.outputs) pointers.results.push_back(at(sequence, value));
    programs_[part.program]->run(team_, items_ * part.repeats, pointers.operands.data(),
                                 pointers.results.data());
  }

  void loop(const Sequence& sequence, const Part& part) const {
    const Sequence& body = part.body[0];
    const int64_t kept = part.shared + part.carried;
    const auto num_inputs = static_cast<int64_t>(part.inputs.size());
    const auto num_outputs = static_cast<int64_t>(part.outputs.size());
    for (int64_t i = 0; i < kept; i++) copy(sequence, part.inputs[i], body, i);
    for (int64_t n = 0; n < part.turns; n++) {
      const int64_t turn = part.reverse ? part.turns - 1 - n : n;
      for (int64_t i = kept; i < num_inputs; i++)
        each_item(at(sequence, part.inputs[i]), at(body, i), body.values[i].floats, part.turns,
                  turn, [](float* row, float* inner, size_t b) { std::memcpy(inner, row, b); });
      run(body);
      for (int64_t i = part.carried; i < num_outputs; i++)
        each_item(at(sequence, part.outputs[i]), at(body, body.outputs[i]),
                  body.values[body.outputs[i]].floats, part.turns, turn,
                  [](float* row, float* inner, size_t b) { std::memcpy(row, inner, b); });
      for (int64_t i = 0; i < part.carried; i++) copy(body, body.outputs[i], body, part.shared + i);
    }
    for (int64_t i = 0; i < part.carried; i++)
      copy(body, part.shared + i, sequence, part.outputs[i]);
  }

  void copy(const Sequence& from, int64_t source, const Sequence& to, int64_t target) const {
    float* const out = at(to, target);
    const float* const in = at(from, source);
    if (in != out) std::memcpy(out, in, items_ * from.values[source].floats * sizeof(float));
  }

  // f(what a turn has of an item, the same in the body, bytes).
  template <class F>
  void each_item(float* stack, float* row, int64_t floats, int64_t turns, int64_t turn,
                 const F& f) const {
    for (int64_t item = 0; item < items_; item++)
      f(stack + (item * turns + turn) * floats, row + item * floats, floats * sizeof(float));
  }

  void view(const Sequence& sequence, const Part& part) const {
    const int64_t in = sequence.values[part.inputs[0]].floats;
    const int64_t out = sequence.values[part.outputs[0]].floats;
    for (int64_t item = 0; item < items_; item++)
      viewed(part, 0, at(sequence, part.inputs[0]) + item * in + part.begin,
             at(sequence, part.outputs[0]) + item * out);
  }

  // Where the next float goes.
  static float* viewed(const Part& part, size_t axis, const float* from, float* to) {
    if (axis == part.axes.size()) {
      *to = *from;
      return to + 1;
    }
    const Part::Axis own = part.axes[axis];
    if (axis + 1 == part.axes.size() && own.stride == 1) {
      std::memcpy(to, from, own.count * sizeof(float));
      return to + own.count;
    }
    for (int64_t i = 0; i < own.count; i++) to = viewed(part, axis + 1, from + i * own.stride, to);
    return to;
  }

  void join(const Sequence& sequence, const Part& part) const {
    float* to = at(sequence, part.outputs[0]);
    for (int64_t piece = 0; piece < items_ * part.pieces; piece++)
      for (int64_t value : part.inputs) {
        const int64_t floats = sequence.values[value].floats / part.pieces;
        std::memcpy(to, at(sequence, value) + piece * floats, floats * sizeof(float));
        to += floats;
      }
  }

  void constant(const Sequence& sequence, const Part& part) const {
    const int64_t floats = sequence.values[part.outputs[0]].floats;
    for (int64_t item = 0; item < items_; item++)
      std::memcpy(at(sequence, part.outputs[0]) + item * floats,
                  model_.constants.data() + part.begin, floats * sizeof(float));
  }

  void take(const Sequence& sequence, const Part& part) const {
    const int64_t table = part.rows * part.floats;
    const bool is_constant = part.begin != kNone;
    const float* const first =
        is_constant ? model_.constants.data() + part.begin : at(sequence, part.inputs[0]);
    const int64_t tables = is_constant ? 1 : sequence.values[part.inputs[0]].floats / table;
    const int64_t indices = sequence.values[part.inputs.back()].floats, own = indices / tables;
    const float* const index = at(sequence, part.inputs.back());
    float* to = at(sequence, part.outputs[0]);
    for (int64_t i = 0; i < items_ * indices; i++, to += part.floats) {
      const float row = index[i], last = static_cast<float>(part.rows - 1);
      const bool inside = row >= 0 && row <= last;
      if (part.fill && !inside) {
        std::fill_n(to, part.floats, NAN);
        continue;
      }
      // An index that is no number is the first.
      const int64_t nearest = inside ? static_cast<int64_t>(row) : row > 0 ? part.rows - 1 : 0;
      const int64_t from =
          (is_constant ? 0 : i / own * part.rows) + std::min(nearest, part.rows - 1);
      std::memcpy(to, first + from * part.floats, part.floats * sizeof(float));
    }
  }

  const Model& model_;
  std::vector<std::unique_ptr<ProgramRuns>>& programs_;
  const Team& team_;
  const int64_t items_;
  float* const memory_;
};

}  // namespace

SequenceRuns::SequenceRuns(const Model& model, std::vector<std::unique_ptr<ProgramRuns>>& programs,
                           std::shared_ptr<Stores> stores)
    : model_(model),
      programs_(programs),
      stores_(std::move(stores)),
      unit_(std::max<int64_t>(
          1, std::min(kMostTogether, kMostTogetherFloats / model.sequence_floats))) {}

void SequenceRuns::run(const Team& team, int64_t items, const float* const* operands,
                       float* const* results) {
  const Sequence& sequence = model_.sequence;
  in_parts(team, (items + unit_ - 1) / unit_, [&](int64_t part, const Team& helpers) {
    const int64_t first = part * unit_, count = std::min(unit_, items - first);
    std::unique_ptr<Memory> memory = stores_->memory.take(count * model_.sequence_floats);
    const Run run(model_, programs_, helpers, count, memory->data());
    const auto copy = [&](int64_t value, const float* from, float* to) {
      std::memcpy(to, from, count * sequence.values[value].floats * sizeof(float));
    };
    for (int64_t i = 0; i < sequence.num_inputs; i++)
      copy(i, operands[i] + first * sequence.values[i].floats, run.at(sequence, i));
    run.run(sequence);
    for (size_t i = 0; i < sequence.outputs.size(); i++) {
      const int64_t value = sequence.outputs[i];
      copy(value, run.at(sequence, value), results[i] + first * sequence.values[value].floats);
    }
    stores_->memory.give(std::move(memory));
  });
}

}  // namespace sparsejax
