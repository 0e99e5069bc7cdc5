// Reads sequences; see sequence.h.
#include "files/sequence.h"

#include <algorithm>
#include <cstdlib>

#include "files/fields.h"

namespace sparsejax {
namespace {

constexpr int64_t kMostAxes = 8;

std::vector<int64_t> floats_of(const Sequence& sequence, const std::vector<int64_t>& values) {
  std::vector<int64_t> floats;
  for (int64_t value : values) floats.push_back(sequence.values[value].floats);
  return floats;
}

// How many items of `item` floats there are; 0 where that is no whole number.
int64_t items_in(int64_t floats, int64_t item) { return floats % item == 0 ? floats / item : 0; }

}  // namespace

void SequenceReader::count_work(int64_t floats) {
  if (need(floats <= (kMostWork - work_) / turns_, "its loops take too long"))
    work_ += floats * turns_;
}

void SequenceReader::read(Json json, const std::vector<int64_t>& inputs,
                          const std::vector<int64_t>& outputs, Sequence& sequence) {
  count_work(1);
  for (const char* name : {"values", "parts", "outputs"})
    need(json.member(name).kind() == JsonKind::kList, "a sequence lacks a list");
  read_values(json, inputs, sequence);
  std::vector<bool> made(sequence.values.size(), false);
  std::fill_n(made.begin(), std::min(made.size(), inputs.size()), true);
  const auto is_made = [&](int64_t value) {
    return value >= 0 && value < static_cast<int64_t>(made.size()) && made[value];
  };
  json.member("parts").for_items([&](Json part) {
    if (problem_.found()) return;
    std::vector<int64_t> read = Fields(problem_).list(part, "inputs");
    for (int64_t value : read) need(is_made(value), "a part reads what no earlier part has made");
    for (int64_t value : Fields(problem_).list(part, "outputs")) {
      const bool is_new = value >= 0 && value < static_cast<int64_t>(made.size()) && !made[value];
      if (need(is_new, "a part makes what is there, or no value")) made[value] = true;
    }
    if (!problem_.found()) read_part(part, sequence);
  });
  sequence.outputs = Fields(problem_).list(json, "outputs");
  for (int64_t value : sequence.outputs) need(is_made(value), "an output is never made");
  for (bool there : made) need(there, "a value is never made");
  if (!problem_.found())
    need(floats_of(sequence, sequence.outputs) == outputs, "outputs are not those that are wanted");
}

void SequenceReader::read_values(Json json, const std::vector<int64_t>& inputs,
                                 Sequence& sequence) {
  for (int64_t floats : Fields(problem_).list(json, "values")) {
    if (!need(floats >= 1 && floats <= kMostItemFloats - floats_,
              "its values take more than 1 GiB"))
      return;
    sequence.values.push_back({floats, floats_});
    floats_ += floats;
    count_work(floats);
  }
  sequence.num_inputs = static_cast<int64_t>(inputs.size());
  bool fits = inputs.size() <= sequence.values.size();
  for (size_t i = 0; fits && i < inputs.size(); i++) fits = sequence.values[i].floats == inputs[i];
  need(fits, "inputs are not those that are given");
}

void SequenceReader::read_part(Json json, Sequence& sequence) {
  Part part = {};
  part.inputs = Fields(problem_).list(json, "inputs");
  part.outputs = Fields(problem_).list(json, "outputs");
  const auto is = [&](const char* kind) { return json.member(kind).kind() != JsonKind::kMissing; };
  if (is("call")) {
    read_call(json, sequence, part);
  } else if (is("loop")) {
    read_loop(json, sequence, part);
  } else if (is("view")) {
    read_view(json, sequence, part);
  } else if (is("join")) {
    read_join(json, sequence, part);
  } else if (is("take")) {
    read_take(json, sequence, part);
  } else if (is("constant")) {
    read_constant(json, sequence, part);
  } else {
    problem_.fail("a part is of a kind this reader does not know");
  }
  sequence.parts.push_back(std::move(part));
}

void SequenceReader::read_call(Json json, const Sequence& sequence, Part& part) {
  part.kind = Part::kCall;
  part.program = Fields(problem_).number(json, "call", kNone);
  if (!need(part.program >= 0 && part.program < static_cast<int64_t>(programs_.size()),
            "a part calls no program"))
    return;
  const SavedProgram& program = programs_[part.program];
  const auto check = [&](const std::vector<int64_t>& values, const std::vector<Port>& ports) {
    if (!need(values.size() == ports.size(), "a call has too few or many values")) return;
    for (size_t i = 0; i < ports.size(); i++) {
      const int64_t floats = sequence.values[values[i]].floats, item = item_floats(ports[i]);
      if (part.repeats == 0) part.repeats = items_in(floats, item);
      need(part.repeats > 0 && items_in(floats, item) == part.repeats,
           "a call's values do not hold equally many items");
    }
  };
  check(part.inputs, program.inputs);
  check(part.outputs, program.outputs);
  for (const ImageSize& value : program.program.values)
    if (!problem_.found() &&
        need(part.repeats <= kMostWork / value.floats(), "a call is too large"))
      count_work(part.repeats * value.floats());
}

void SequenceReader::read_loop(Json json, const Sequence& sequence, Part& part) {
  part.kind = Part::kLoop;
  part.turns = Fields(problem_).number(json, "loop", 0);
  part.shared = Fields(problem_).number(json, "shared", 0);
  part.carried = Fields(problem_).number(json, "carried", 0);
  part.reverse = json.member("reverse").kind() == JsonKind::kTrue;
  const auto count = static_cast<int64_t>(part.inputs.size());
  if (!need(part.turns >= 1 && part.turns <= kMostWork / turns_, "a loop takes too long") ||
      !need(part.shared >= 0 && part.shared <= count && part.carried >= 0 &&
                part.carried <= count - part.shared &&
                part.carried <= static_cast<int64_t>(part.outputs.size()),
            "a loop has too few values"))
    return;
  const auto first = static_cast<size_t>(part.shared + part.carried);
  std::vector<int64_t> given = floats_of(sequence, part.inputs);
  std::vector<int64_t> wanted = floats_of(sequence, part.outputs);
  for (size_t i = first; i < given.size(); i++) given[i] = items_in(given[i], part.turns);
  for (size_t i = part.carried; i < wanted.size(); i++) wanted[i] = items_in(wanted[i], part.turns);
  for (int64_t i = 0; i < part.carried; i++)
    need(given[part.shared + i] == wanted[i], "what a loop carries changes its size");
  turns_ *= part.turns;
  part.body.resize(1);
  if (!problem_.found()) read(json.member("body"), given, wanted, part.body[0]);
  turns_ /= part.turns;
  // The next turn's values are written before all of this turn's are read for the last time.
  for (int64_t i = 0; i < part.carried && !problem_.found(); i++)
    need(part.body[0].outputs[i] >= static_cast<int64_t>(given.size()) ||
             part.body[0].outputs[i] == part.shared + i,
         "what a loop carries is not made in its turn");
}

void SequenceReader::read_view(Json json, const Sequence& sequence, Part& part) {
  part.kind = Part::kView;
  part.begin = Fields(problem_).number(json, "begin", 0);
  const std::vector<int64_t> numbers = Fields(problem_).list(json, "view");
  if (!need(numbers.size() % 2 == 0 && numbers.size() / 2 <= kMostAxes && part.inputs.size() == 1 &&
                part.outputs.size() == 1,
            "a view needs one input, one output, and at most 8 axes"))
    return;
  const int64_t floats = sequence.values[part.inputs[0]].floats;
  int64_t lowest = part.begin, highest = part.begin, elements = 1;
  bool inside = part.begin >= 0 && part.begin < floats;
  for (size_t i = 0; inside && i < numbers.size(); i += 2) {
    const int64_t n = numbers[i], stride = numbers[i + 1];
    inside = n >= 1 && n <= kMostItemFloats / elements && std::abs(stride) <= kMostItemFloats;
    if (!inside) break;
    elements *= n;
    (stride < 0 ? lowest : highest) += (n - 1) * stride;
    part.axes.push_back({n, stride});
  }
  need(inside && lowest >= 0 && highest < floats &&
           elements == sequence.values[part.outputs[0]].floats,
       "a view reaches out of its input, or has another size");
}

void SequenceReader::read_join(Json json, const Sequence& sequence, Part& part) {
  part.kind = Part::kJoin;
  part.pieces = Fields(problem_).number(json, "join", 0);
  if (!need(part.pieces >= 1 && part.outputs.size() == 1, "a join needs parts and one output"))
    return;
  int64_t left = sequence.values[part.outputs[0]].floats;
  for (int64_t floats : floats_of(sequence, part.inputs)) {
    need(items_in(floats, part.pieces) > 0, "a join's inputs are not so many parts");
    left -= floats;
  }
  need(left == 0, "a join has another size");
}

void SequenceReader::read_constant(Json json, const Sequence& sequence, Part& part) {
  part.kind = Part::kConstant;
  part.begin = Fields(problem_).number(json, "constant", kNone);
  if (need(part.inputs.empty() && part.outputs.size() == 1, "a constant is one value"))
    check_constant(part.begin, sequence.values[part.outputs[0]].floats);
}

void SequenceReader::read_take(Json json, const Sequence& sequence, Part& part) {
  part.kind = Part::kTake;
  part.rows = Fields(problem_).number(json, "take", 0);
  part.floats = Fields(problem_).number(json, "floats", 0);
  part.begin = Fields(problem_).number(json, "constant", kNone);
  part.fill = json.member("fill").kind() == JsonKind::kTrue;
  const bool is_constant = json.member("constant").kind() != JsonKind::kMissing;
  const size_t count = is_constant ? 1 : 2;
  if (!need(part.inputs.size() == count && part.outputs.size() == 1,
            "a take needs a table, indices and one output") ||
      !need(part.rows >= 1 && part.floats >= 1 && part.rows <= kMostItemFloats / part.floats,
            "a take's table has no size"))
    return;
  const int64_t table = part.rows * part.floats;
  const int64_t indices = sequence.values[part.inputs.back()].floats;
  int64_t tables = 1;
  if (is_constant)
    check_constant(part.begin, table);
  else
    tables = items_in(sequence.values[part.inputs[0]].floats, table);
  need(tables > 0 && indices % tables == 0 && indices <= kMostItemFloats / part.floats &&
           sequence.values[part.outputs[0]].floats == indices * part.floats,
       "a take's sizes do not fit");
}

void SequenceReader::check_constant(int64_t begin, int64_t floats) {
  need(begin >= 0 && begin <= num_constants_ && floats <= num_constants_ - begin,
       "a constant is not in the file");
}

}  // namespace sparsejax
