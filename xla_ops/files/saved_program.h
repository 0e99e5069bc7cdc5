// A program as files have it: JSON of steps by name, and tensors of weights; see model.h.
#pragma once
#include "engine/program.h"
#include "files/container.h"
#include "files/json.h"

namespace sparsejax {

constexpr int64_t kBatch = -1;  // in a shape

// Floats of all values of one item together, 1 GiB, so that a small file does not ask for more.
constexpr int64_t kMostItemFloats = int64_t{1} << 28;

struct Port {  // an input or output
  std::string name;
  std::vector<int64_t> shape;
};

struct SavedProgram {
  std::vector<Port> inputs, outputs;
  bool rows = false;           // then any number of items are one program's height
  int64_t rows_per_item = 1;   // of "rows"
  std::vector<int64_t> words;  // as parse_program reads them, of one item
  Program program;
};

// "inputs" or "outputs" of a graph.
void read_ports(Json graph, const char* side, std::vector<Port>& ports, Problem& problem);

// Floats of one item of an input or output.
int64_t item_floats(const Port& port);

// What is wrong with it; empty if nothing is. Its tensors have names that begin with `prefix`.
// Without its layouts, all but the storage of weights is left to whoever packs them.
[[nodiscard]] std::string read_program(const Container& container, Json graph,
                                       const std::string& prefix, bool keeps_layouts,
                                       SavedProgram& saved);

}  // namespace sparsejax
