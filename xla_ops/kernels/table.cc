// The table of an instruction set; see kernels.def. Compiled once for each of them.
#include "kernels/table.h"

namespace sparsejax::SPARSEJAX_TARGET {

#define TABLE(Type, file) extern const Type file;
#include "kernels/kernels.def"

#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)
#define TABLE(Type, file) , &file
extern const Kernels table = {TEXT(SPARSEJAX_TARGET)
#include "kernels/kernels.def"
};

}  // namespace sparsejax::SPARSEJAX_TARGET
