// A compiled function in a file: safetensors, with "sparsejax" in its metadata, the graph as JSON:
//   "version" of what wrote it, "reader", the oldest that can read it, and "writer"
//   "layouts" the instruction set that those of the steps are for; others choose their own
//   "inputs"  [{"name", "shape", "dtype"}], in the order of the operands; "outputs" likewise. A
//             shape begins with "batch" where any number of items may stand.
// and, of a function that is one program,
//   "items"   "channels_last" or "channels_first" for images, "rows" for vectors
//   "values"  [[channels, height, width]] of one item
//   "steps"   what program.h knows, by name; what has its neutral value is left out:
//             {"op", "inputs", "output", "window", "strides", "dilation", "pads", "function",
//             "bounds", "residual", "gate", "groups", "storage", "layout", "pooling", "binary",
//             "argument", "channels", "weights": {"form", "block"}}
// or, of one of several programs and loops,
//   "programs" [{"inputs", "outputs", "items", "values", "steps"}], as above
//   "sequence" that runs them (sequence.h)
// Of a function that JAX alone runs there are "xla", the list of what stays in XLA, and "program",
// the file beside it, in their place (sparsejax/compiler/files/exported.py).
// Tensors: of step i "i.values" and "i.where" (weights.h) and "i.bias", float32; "bounds", float32,
// two for each number that "bounds" of a step may be; those of program p of several begin with
// "p/". "constants", float32, of the sequence. Other names and keys are somebody else's.
#pragma once
#include "files/sequence.h"

namespace sparsejax {

// 2: groups, 3: several programs, and loops, 4: takes, comparisons, whole numbers and truth values
constexpr int64_t kFormatVersion = 4;

struct Model {
  std::vector<Port> inputs, outputs;
  std::vector<SavedProgram> programs;
  bool is_sequence = false;  // else the function is the only program
  Sequence sequence;
  int64_t sequence_floats = 0;  // of all its values, for one item
  int64_t work = 0;             // floats that a run of one item of a sequence makes
  std::vector<float> constants;
  std::string graph;  // the JSON
};

// What is wrong with the file, as "file: ..."; empty if nothing is. What is allocated is at most
// kMostExpansion bytes and a few for each byte of the file. isa: the instruction set to run it.
[[nodiscard]] std::string read_model(const uint8_t* bytes, int64_t size, const std::string& isa,
                                     Model& model);

}  // namespace sparsejax
