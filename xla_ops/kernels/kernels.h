// The kernels of the instruction set in use, chosen once when the extension is loaded.
#pragma once
#include <string>
#include <vector>

#include "kernels/table.h"

namespace sparsejax {

// Those that were built and that this CPU can run, best first; none where it has none of them.
const std::vector<Kernels>& usable_kernels();

// The set in use; the best one until `use` says otherwise.
const Kernels& kernels();

// Selects a set by name; false if it is not among the usable ones.
bool use(const std::string& isa);

}  // namespace sparsejax
