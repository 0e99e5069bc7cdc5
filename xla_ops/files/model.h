// A compiled function in a file: safetensors, with "sparsejax" in its metadata, the graph as JSON:
//   "version" of what wrote it, "reader", the oldest that can read it, and "writer"
//   "items"   "channels_last" or "channels_first" for images, "rows" for vectors
//   "inputs"  [{"name", "shape", "dtype"}], in the order of the operands; "outputs" likewise. A
//             shape begins with "batch" where any number of items may stand.
//   "values"  [[channels, height, width]] of one item
//   "steps"   what program.h knows, by name; what has its neutral value is left out:
//             {"op", "inputs", "output", "window", "strides", "dilation", "pads", "function",
//             "bounds", "residual", "gate", "groups", "storage", "layout", "pooling", "binary",
//             "argument", "channels", "weights": {"form", "block"}}
// Of a function that JAX alone runs there are "xla", the list of what stays in XLA, and "program",
// the file beside it, in place of items, values and steps (sparsejax/compiler/files/exported.py).
// Tensors: of step i "i.values" and "i.where" (weights.h) and "i.bias", float32; "bounds", float32,
// two for each number that "bounds" of a step may be. Other names and keys are somebody else's.
#pragma once
#include "engine/program.h"

namespace sparsejax {

constexpr int64_t kFormatVersion = 2;  // 2: groups
constexpr int64_t kBatch = -1;         // in a shape

// Floats of all values of one item together, 1 GiB, so that a small file does not ask for more.
constexpr int64_t kMostItemFloats = int64_t{1} << 28;

struct Port {  // an input or output
  std::string name;
  std::vector<int64_t> shape;
};

struct Model {
  std::vector<Port> inputs, outputs;
  bool rows = false;           // then any number of items are one program's height
  int64_t rows_per_item = 1;   // of "rows"
  std::string graph;           // the JSON
  std::vector<int64_t> words;  // as parse_program reads them, of one item
  Program program;
};

// What is wrong with the file, as "file: ..."; empty if nothing is. What is allocated is at most
// kMostExpansion bytes and a few for each byte of the file.
[[nodiscard]] std::string read_model(const uint8_t* bytes, int64_t size, Model& model);

}  // namespace sparsejax
