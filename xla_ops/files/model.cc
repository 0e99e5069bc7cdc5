// Reads models; see model.h.
#include "files/model.h"

#include "files/fields.h"
#include "files/weights.h"

namespace sparsejax {
namespace {

bool check_version(Json graph, Problem& problem) {
  const int64_t needed = Fields(problem).number(graph, "reader", 0);
  if (needed >= 1 && needed <= kFormatVersion) return true;
  return problem.fail("it needs a reader of version " + std::to_string(needed) +
                      ", this one is of version " + std::to_string(kFormatVersion) +
                      "; update sparsejax");
}

// A function that JAX alone runs says what it leaves in XLA.
bool check_whole(Json graph, Problem& problem) {
  const Json items = graph.member("xla");
  if (items.kind() == JsonKind::kMissing) return true;
  std::string left;
  items.for_items([&](Json item) { left += (left.empty() ? "" : ", ") + item.text(); });
  return problem.fail("JAX alone runs it, for in XLA stays " + left +
                      "; in Python sj.load(path, allow_xla=True) reads it");
}

std::string read_one(const Container& container, Json graph, bool keeps_layouts, Model& model) {
  model.programs.resize(1);
  const std::string wrong = read_program(container, graph, "", keeps_layouts, model.programs[0]);
  model.inputs = model.programs[0].inputs;
  model.outputs = model.programs[0].outputs;
  return wrong;
}

void read_constants(const Container& container, Model& model, Problem& problem) {
  const auto found = container.tensors.find("constants");
  if (found == container.tensors.end()) return;
  if (!problem.need(found->second.dtype == DType::kF32, "its constants are no float32")) return;
  model.constants.reserve(found->second.elements);
  for (int64_t i = 0; i < found->second.elements; i++)
    model.constants.push_back(float_at(found->second, i));
}

// Floats of one item of each; of all of them or none the batch is free.
std::vector<int64_t> item_sizes(const std::vector<Port>& ports, bool batch_free, Problem& problem) {
  std::vector<int64_t> sizes;
  for (const Port& port : ports) {
    int64_t floats = 1;
    bool fits = !port.shape.empty() && (port.shape[0] == kBatch) == batch_free;
    for (int64_t size : port.shape) {
      fits = fits && (size == kBatch || size <= kMostItemFloats / floats);
      floats *= fits && size != kBatch ? size : 1;
    }
    problem.need(fits, "a shape is too large, or has another batch than others");
    sizes.push_back(floats);
  }
  return sizes;
}

std::string read_sequence(const Container& container, Json graph, bool keeps_layouts,
                          Model& model) {
  Problem problem("file");
  model.is_sequence = true;
  read_ports(graph, "inputs", model.inputs, problem);
  read_ports(graph, "outputs", model.outputs, problem);
  std::string wrong;
  problem.need(graph.member("programs").kind() == JsonKind::kList, "its programs are no list");
  graph.member("programs").for_items([&](Json program) {
    if (!wrong.empty()) return;
    const std::string prefix = std::to_string(model.programs.size()) + "/";
    model.programs.emplace_back();
    wrong = read_program(container, program, prefix, keeps_layouts, model.programs.back());
    for (const Port& port : model.programs.back().inputs)
      problem.need(!port.shape.empty() && port.shape[0] == kBatch, "a program has no free batch");
  });
  if (!wrong.empty()) return wrong;
  if (problem.found()) return problem.text();
  read_constants(container, model, problem);
  const bool batch_free = !model.inputs[0].shape.empty() && model.inputs[0].shape[0] == kBatch;
  const std::vector<int64_t> inputs = item_sizes(model.inputs, batch_free, problem);
  const std::vector<int64_t> outputs = item_sizes(model.outputs, batch_free, problem);
  SequenceReader reader(model.programs, static_cast<int64_t>(model.constants.size()), problem);
  if (!problem.found()) reader.read(graph.member("sequence"), inputs, outputs, model.sequence);
  model.sequence_floats = reader.floats();
  model.work = reader.work();
  return problem.text();
}

}  // namespace

std::string read_model(const uint8_t* bytes, int64_t size, const std::string& isa, Model& model) {
  Problem problem("file");
  Container container;
  if (!read_container(bytes, size, container, problem)) return problem.text();
  const auto text = container.metadata.find("sparsejax");
  if (!problem.need(text != container.metadata.end(),
                    "it is safetensors, but nothing of sparsejax"))
    return problem.text();
  JsonDocument document;
  model.graph = text->second;
  const std::string wrong = document.parse(model.graph);
  if (!wrong.empty()) problem.fail("its graph " + wrong);
  const Json graph = document.root();
  if (problem.found() || !check_version(graph, problem) || !check_whole(graph, problem))
    return problem.text();
  const bool keeps_layouts = graph.member("layouts").text() == isa;
  return graph.member("sequence").kind() == JsonKind::kMissing
             ? read_one(container, graph, keeps_layouts, model)
             : read_sequence(container, graph, keeps_layouts, model);
}

}  // namespace sparsejax
