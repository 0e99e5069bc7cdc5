// Pixels of an image packed as the tiles of sparse products read them. Compiled once for each
// instruction set.
#pragma once
#include "simd/transpose.h"

namespace sparsejax::SPARSEJAX_TARGET {

SPARSEJAX_INLINE int64_t whole_vectors(int64_t count) {
  return (count + kLanes - 1) / kLanes * kLanes;
}

// One image: x[all_channels][pixels], or x[pixels][all_channels].
struct Pixels {
  const float* x;
  int64_t all_channels, pixels;
  bool channels_last;
};

// Packs pixels [first, first + count) of channels [channel, channel + num) as [num][width], with
// zeros behind the last pixel.
SPARSEJAX_INLINE void pack_pixels(const Pixels& image, int64_t channel, int64_t num, int64_t first,
                                  int64_t count, int64_t width, float* packed) {
  if (image.channels_last) {
    transpose(image.x + first * image.all_channels + channel, image.all_channels, count, num,
              packed, width);
  } else {
    for (int64_t k = 0; k < num; k++)
      __builtin_memcpy(packed + k * width, image.x + (channel + k) * image.pixels + first,
                       count * sizeof(float));
  }
  if (count == width) return;
  for (int64_t k = 0; k < num; k++)
    for (int64_t p = count; p < width; p++) packed[k * width + p] = 0.f;
}

}  // namespace sparsejax::SPARSEJAX_TARGET
