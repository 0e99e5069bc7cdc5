// Programs by name: Python loads them, XLA's executables find them when they are made, and whoever
// holds one keeps it alive.
#pragma once
#include <memory>
#include <string>

#include "engine/executable.h"
#include "kernels/kernels.h"

namespace sparsejax {

// What all programs of the process share.
const std::shared_ptr<Stores>& shared_stores();

// The program of that name, null when nobody holds one.
std::shared_ptr<Executable> find_program(const std::string& name);

// Parses, packs and names a program; one that is there already is returned as it is, so a name must
// say all that the program contains. Throws std::invalid_argument.
std::shared_ptr<Executable> load_program(const std::string& name, const int64_t* words,
                                         int64_t num_words, const float* floats, int64_t num_floats,
                                         const PlanOptions& options,
                                         const Kernels& kernels = sparsejax::kernels());

// Names the program with another number of rows (Executable::with_rows), null where it has none;
// one of that name is returned as it is.
std::shared_ptr<Executable> load_with_rows(const std::string& name, const Executable& program,
                                           int64_t rows);

}  // namespace sparsejax
