// Gives the custom calls to Python; the only file that knows it. XLA is known in this room alone.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "bind/program_store.h"
#include "files/model.h"
#include "kernels/kernels.h"
#include "xla/ffi/api/c_api.h"

namespace nb = nanobind;

extern "C" {
#define TARGET(name) XLA_FFI_Error* sparsejax_##name(XLA_FFI_CallFrame*);
#include "bind/targets.def"
XLA_FFI_Error* sparsejax_program_instantiate(XLA_FFI_CallFrame*);
XLA_FFI_Error* sparsejax_program(XLA_FFI_CallFrame*);
}

namespace {

// What Python holds to keep a program alive.
struct Program {
  std::shared_ptr<sparsejax::Executable> executable;
};

template <class T>
using Vector = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// What Python sees as a ValueError.
void need(bool condition, const std::string& message) {
  if (!condition) throw std::invalid_argument("Program " + message + ".");
}

template <class T>
void need_aligned(const char* name, const Vector<T>& vector) {
  need(reinterpret_cast<uintptr_t>(vector.data()) % alignof(T) == 0,
       std::string("needs ") + name + " aligned to its elements; copy them");
}

void need_from(int64_t low, const char* name, int64_t number) {
  need(number >= low, std::string("needs ") + name + " of at least " + std::to_string(low) +
                          ", got " + std::to_string(number));
}

// The vector as an array that owns it.
template <class T>
auto array(std::vector<T> vector) {
  auto* owned = new std::vector<T>(std::move(vector));
  nb::capsule owner(owned, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return nb::ndarray<nb::numpy, T, nb::ndim<1>>(owned->data(), {owned->size()}, owner);
}

// The programs in a file, words and floats of each, and the JSON of its graph.
nb::tuple read_model(const nb::bytes& file) {
  sparsejax::Model model;
  const std::string wrong =
      sparsejax::read_model(static_cast<const uint8_t*>(file.data()),
                            static_cast<int64_t>(file.size()), sparsejax::kernels().isa, model);
  if (!wrong.empty()) throw std::invalid_argument(wrong);
  nb::list programs;
  for (sparsejax::SavedProgram& saved : model.programs)
    programs.append(
        nb::make_tuple(array(std::move(saved.words)), array(std::move(saved.program.floats))));
  return nb::make_tuple(programs, nb::bytes(model.graph.data(), model.graph.size()));
}

// Those of an instruction set, "" for the one in use.
const sparsejax::Kernels& kernels_of(const std::string& isa) {
  if (isa.empty()) return sparsejax::kernels();
  for (const sparsejax::Kernels& set : sparsejax::usable_kernels())
    if (isa == set.isa) return set;
  throw std::invalid_argument("Program needs an instruction set that is usable, got " + isa + ".");
}

// Where the operands of a run begin: none, or an image for each.
std::vector<const float*> operands_of(const sparsejax::Executable& executable,
                                      const std::vector<Vector<const float>>& operands) {
  const sparsejax::Program& program = executable.program();
  const auto given = static_cast<int64_t>(operands.size());
  if (given != 0 && given != program.num_operands)
    throw std::invalid_argument("profile needs " + std::to_string(program.num_operands) +
                                " operands or none, got " + std::to_string(given) + ".");
  std::vector<const float*> floats(given);
  for (const sparsejax::Step& step : program.steps) {
    if (given == 0 || step.op != sparsejax::Op::kInput) continue;
    const int64_t needed = program.values[step.output].floats();
    const int64_t got = static_cast<int64_t>(operands[step.argument].size());
    if (got != needed)
      throw std::invalid_argument("profile needs operands of the program's sizes, got " +
                                  std::to_string(got) + " floats instead of " +
                                  std::to_string(needed) + ".");
    floats[step.argument] = operands[step.argument].data();
  }
  return floats;
}

nb::capsule capsule(XLA_FFI_Handler* handler) {
  return nb::capsule(reinterpret_cast<void*>(handler));
}

}  // namespace

NB_MODULE(_xla_ops, m) {
  using namespace nb::literals;
  using sparsejax::kernels, sparsejax::Kernels, sparsejax::usable_kernels;
  m.def("targets", [] {
    nb::dict d;
#define TARGET(name) d[#name] = capsule(sparsejax_##name);
#include "bind/targets.def"
    nb::dict program;
    program["instantiate"] = capsule(sparsejax_program_instantiate);
    program["execute"] = capsule(sparsejax_program);
    d["program"] = program;
    return d;
  });
  nb::class_<Program>(m, "Program")
      .def(
          "__init__",
          [](Program* self, const std::string& name, const Vector<const int64_t>& words,
             const Vector<const float>& floats, int64_t strip_pixels, int64_t whole_pixels,
             int64_t strip_floats, const std::string& isa) {
            need_aligned("words", words);
            need_aligned("floats", floats);
            need_from(1, "strip_pixels", strip_pixels);
            need_from(0, "whole_pixels", whole_pixels);
            need_from(0, "strip_floats", strip_floats);
            const nb::gil_scoped_release others_run;
            new (self) Program{sparsejax::load_program(
                name, words.data(), words.size(), floats.data(), floats.size(),
                {strip_pixels, whole_pixels, strip_floats}, kernels_of(isa))};
          },
          "name"_a, "words"_a.noconvert(), "floats"_a.noconvert(), "strip_pixels"_a,
          "whole_pixels"_a, "strip_floats"_a = 0, "isa"_a = "")
      .def(
          "profile",
          [](const Program& self, int64_t runs, const std::vector<Vector<const float>>& operands) {
            need_from(1, "runs", runs);
            const std::vector<const float*> floats = operands_of(*self.executable, operands);
            std::vector<double> measured;
            {
              const nb::gil_scoped_release others_run;
              measured = self.executable->profile(runs, floats);
            }
            nb::list seconds;
            for (double step : measured) seconds.append(step);
            return seconds;
          },
          "runs"_a, "operands"_a = std::vector<Vector<const float>>())
      .def("with_rows",
           [](const Program& self, const std::string& name, int64_t rows) -> nb::object {
             need_from(1, "rows", rows);
             const auto made = sparsejax::load_with_rows(name, *self.executable, rows);
             return made ? nb::cast(Program{made}) : nb::none();
           })
      .def("scratch_floats", [](const Program& self, int64_t threads) {
        need_from(1, "threads", threads);
        return self.executable->scratch_floats(threads);
      });
  m.def("codes", [] {  // of each enum, the number that each name stands for
    std::map<std::string, std::map<std::string, int64_t>> codes;
#define OP(name, code) codes["op"][#name] = code;
#define POOLING(name, code) codes["pooling"][#name] = code;
#include "engine/codes.def"
#define FUNCTION(name, code) codes["function"][#name] = code;
#define ACTIVATION(name, code) codes["activation"][#name] = code;
#define BINARY(name, code) codes["binary"][#name] = code;
#define MASK(name, code) codes["mask"][#name] = code;
#define STORAGE(name, code) codes["storage"][#name] = code;
#include "kernels/codes.def"
    return codes;
  });
  m.def("usual_plan", [] {
    const sparsejax::PlanOptions usual = sparsejax::usual_plan();
    return nb::make_tuple(usual.strip_pixels, usual.whole_pixels, usual.strip_floats);
  });
  m.def("read_model", &read_model, "file"_a);
  m.def("packed_bytes", [] { return sparsejax::shared_stores()->packed.bytes(); });
  m.def("kept_bytes", [] {
    return sparsejax::shared_stores()->memory.amount().floats * static_cast<int64_t>(sizeof(float));
  });
  m.def("isa", [] { return std::string(kernels().isa); });
  m.def("usable_isas", [] {
    nb::list names;
    for (const Kernels& set : usable_kernels()) names.append(set.isa);
    return names;
  });
  m.def("use", &sparsejax::use);
}
