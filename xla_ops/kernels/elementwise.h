// Elementwise steps, sums and changes of layout, fp32. Arrays of n floats may be read and written
// in whole vectors up to n rounded up to 16; out may be one of the inputs.
#pragma once
#include <cstdint>

#include "kernels/activation.h"

namespace sparsejax {

enum class Binary : int64_t {
#define BINARY(name, code) k##name = code,
#include "kernels/codes.def"
};
constexpr int64_t kNumBinaries = 0
#define BINARY(name, code) +1
#include "kernels/codes.def"
    ;

struct ElementwiseKernels {
  void (*activate)(const ActivationCall& activation, const float* x, int64_t n, float* out);
  // The same of `rows` arrays, `pitch` floats apart, at least n rounded up to 16 if they are many.
  void (*activate_rows)(const ActivationCall& activation, const float* x, int64_t n, int64_t rows,
                        int64_t pitch, float* out);
  // activation(scale * x + shift), scale and shift numbers.
  void (*affine)(const ActivationCall& activation, const float* x, float scale, float shift,
                 int64_t n, float* out);
  void (*binary)(Binary op, const ActivationCall& activation, const float* a, const float* b,
                 int64_t n, float* out);
  // The same with one number on the right.
  void (*binary_number)(Binary op, const ActivationCall& activation, const float* a, float b,
                        int64_t n, float* out);
  // Exactly n floats are read.
  float (*sum)(const float* x, int64_t n);
  // Of (x - centre)^2.
  float (*sum_of_squares)(const float* x, int64_t n, float centre);
  // planes[c][pitch] = pixels[p][c], for `count` pixels of `channels` channels (the pixels'
  // pitch); exactly those floats are read, whole vectors may be written.
  void (*to_planes)(const float* pixels, int64_t count, int64_t channels, float* planes,
                    int64_t pitch);
  // The reverse; exactly those floats are written.
  void (*to_pixels)(const float* planes, int64_t pitch, int64_t count, int64_t channels,
                    float* pixels);
  // to[col][to_pitch] = from[row][from_pitch], exactly these floats.
  void (*turn)(const float* from, int64_t from_pitch, int64_t rows, int64_t cols, float* to,
               int64_t to_pitch);
};

}  // namespace sparsejax
