// What files call the codes of a program.
#pragma once
#include <cstdint>
#include <string>

#include "files/weights.h"

namespace sparsejax {

struct Code {
  const char* name;  // as codes.def has it: AverageInside
  int64_t code;
};

// As files have it: average_inside.
inline std::string in_file(const char* name) {
  std::string text;
  for (const char* c = name; *c; c++) {
    const bool large = *c >= 'A' && *c <= 'Z';
    if (large && c != name) text += '_';
    text += large ? static_cast<char>(*c - 'A' + 'a') : *c;
  }
  return text;
}

enum Items { kChannelsLast, kChannelsFirst, kRows };
constexpr Code kItems[] = {
    {"ChannelsLast", kChannelsLast}, {"ChannelsFirst", kChannelsFirst}, {"Rows", kRows}};

constexpr Code kOps[] = {
#define OP(name, code) {#name, code},
#include "engine/codes.def"
};
constexpr Code kPoolings[] = {
#define POOLING(name, code) {#name, code},
#include "engine/codes.def"
};
constexpr Code kFunctions[] = {
#define FUNCTION(name, code) {#name, code},
#include "kernels/codes.def"
};
constexpr Code kBinaries[] = {
#define BINARY(name, code) {#name, code},
#include "kernels/codes.def"
};
constexpr Code kStorages[] = {
#define CODES_OF_FILES
#define STORAGE(name, code) {#name, code},
#include "kernels/codes.def"
#undef CODES_OF_FILES
};
constexpr Code kForms[] = {{"All", static_cast<int64_t>(Form::kAll)},
                           {"Mask", static_cast<int64_t>(Form::kMask)},
                           {"Gaps", static_cast<int64_t>(Form::kGaps)}};

}  // namespace sparsejax
