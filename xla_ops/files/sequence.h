// What runs the programs of a file one after the other, and in loops.
//
// A value is so many floats for each item of a batch. Each is made once, by the caller or by a
// part, and parts are in an order that they can run in:
//   {"call": program, "inputs", "outputs"}: of values that hold equally many items of the program
//   {"loop": turns, "reverse", "shared", "carried", "inputs", "outputs", "body"}: `shared` of the
//     inputs are the same in all turns, `carried` go from turn to turn, of the others each turn has
//     its part; outputs are what was carried, then the parts that the turns made
//   {"view": [count, stride, count, stride, ...], "begin", "inputs", "outputs"}: output i, j, ...
//   is
//     the input's float begin + i stride + j stride ...
//   {"join": parts, "inputs", "outputs"}: the first of so many parts of each input, then the
//   second...
//   {"constant": begin, "outputs"}: the same for all items, from the tensor "constants"
//   {"take": rows, "floats", "inputs": [x, indices], "outputs"}: x holds tables of so many rows,
//     each of so many floats, and there are equally many indices for each table: the rows at these;
//     of an index outside the nearest row, or NaN with "fill". With a "constant" the only table
//     begins there, and there is no x
// A sequence is {"values": [floats], "parts", "outputs"}; the first values are what it is given.
#pragma once
#include "files/saved_program.h"

namespace sparsejax {

struct Sequence;

struct Part {
  enum Kind { kCall, kLoop, kView, kJoin, kConstant, kTake };
  struct Axis {
    int64_t count, stride;
  };
  Kind kind;
  std::vector<int64_t> inputs, outputs;  // values of the sequence
  int64_t program, repeats;              // of a call, and its items for each item of the batch
  int64_t turns, shared, carried;        // of a loop
  bool reverse;
  int64_t begin;         // of a view, constant or constant table, else kNone
  int64_t rows, floats;  // of a table, and of a row
  bool fill;
  int64_t pieces;              // of each input of a join
  std::vector<Axis> axes;      // of a view
  std::vector<Sequence> body;  // one of a loop
};

struct Sequence {
  struct Value {
    int64_t floats;  // of one item
    int64_t begin;   // among all floats of one item, those of loops' bodies, too
  };
  int64_t num_inputs = 0;
  std::vector<Value> values;
  std::vector<Part> parts;
  std::vector<int64_t> outputs;
};

// Floats that a run of one item makes, at most, in all turns together: so long may a file ask for.
constexpr int64_t kMostWork = int64_t{1} << 34;

// Reads the sequence of a graph whose programs were read. `constants` are those of the file.
class SequenceReader {
 public:
  SequenceReader(const std::vector<SavedProgram>& programs, int64_t num_constants, Problem& problem)
      : programs_(programs), num_constants_(num_constants), problem_(problem) {}

  // Of values with so many floats as inputs and outputs.
  void read(Json json, const std::vector<int64_t>& inputs, const std::vector<int64_t>& outputs,
            Sequence& sequence);

  int64_t floats() const { return floats_; }  // of all values of one item
  int64_t work() const { return work_; }      // floats that a run of one item makes

 private:
  bool need(bool condition, const char* what) { return problem_.need(condition, what); }
  void read_values(Json json, const std::vector<int64_t>& inputs, Sequence& sequence);
  void read_part(Json json, Sequence& sequence);
  void read_call(Json json, const Sequence& sequence, Part& part);
  void read_loop(Json json, const Sequence& sequence, Part& part);
  void read_view(Json json, const Sequence& sequence, Part& part);
  void read_join(Json json, const Sequence& sequence, Part& part);
  void read_constant(Json json, const Sequence& sequence, Part& part);
  void read_take(Json json, const Sequence& sequence, Part& part);
  void check_constant(int64_t begin, int64_t floats);
  void count_work(int64_t floats);

  const std::vector<SavedProgram>& programs_;
  const int64_t num_constants_;
  Problem& problem_;
  int64_t floats_ = 0, work_ = 0;
  int64_t turns_ = 1;  // of the loops around
};

}  // namespace sparsejax
