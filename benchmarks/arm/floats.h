// Files of floats in this machine's order, which the programs that run networks read and write.
#ifndef SPARSEJAX_BENCHMARKS_ARM_FLOATS_H_
#define SPARSEJAX_BENCHMARKS_ARM_FLOATS_H_

#include <cstdint>
#include <fstream>

inline bool read_floats(const char* file, float* to, int64_t number) {
  return bool(std::ifstream(file, std::ios::binary).read(reinterpret_cast<char*>(to), 4 * number));
}

inline bool write_floats(const char* file, const float* from, int64_t number) {
  const char* bytes = reinterpret_cast<const char*>(from);
  return bool(std::ofstream(file, std::ios::binary).write(bytes, 4 * number));
}

#endif  // SPARSEJAX_BENCHMARKS_ARM_FLOATS_H_
