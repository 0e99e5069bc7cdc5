// Packed weights times a strip of activations, fp32: y = activation(W x + bias + residual).
//
// A strip holds some pixels of every channel: x[cols][x_pitch] and y[rows][y_pitch]. Strips start
// at a 64-byte boundary and pitches are multiples of 16 floats, so whole vectors may be read and
// written up to the pixel count rounded up to 16; what lies behind the last pixel is junk. A strip
// of few pixels may have pitches of 4 or 8 throughout, of which no float is passed. A strip of one
// pixel is a vector instead: x[cols] and y[rows], x_pitch = y_pitch = residual_pitch = 1, and
// exactly those floats are written.
//
// Columns may also lie at any multiples of 4 floats from each other: the weights' numbers of
// columns say where then, in those units, and x_pitch is 4.
//
// Weights are cut into `num_parts` groups of rows (threads share them out) and into chunks of
// columns (a tile of x stays in the first-level cache); they fit any pitch of x. Which pixels,
// parts and threads come together changes no result.
#pragma once
#include <cstdint>

#include "kernels/activation.h"

namespace sparsejax {

constexpr int64_t kFewPixels = 16;  // of a strip whose pitch may be 4, 8 or 16

// Engines of WebAssembly have 15 registers on x86-64, and take no operand from memory: kernels and
// the model that chooses among them heed it.
#ifdef __wasm__
constexpr bool kWasm = true;
#else
constexpr bool kWasm = false;
#endif

// Is there a kernel of kColumns? WebAssembly's modules are to be small.
constexpr bool kSkipsZeros = !kWasm;

// Columns of a chunk: kernels multiply the numbers of four at once by a quarter of the pitch.
constexpr int64_t most_chunk_cols(int64_t x_pitch) {
  return x_pitch < 4 ? 65536 : 65535 / (x_pitch / 4) + 1;
}

enum class Storage : int64_t {
#define STORAGE(name, code) k##name = code,
#include "kernels/codes.def"
};
constexpr int64_t kNumStorages = 0
#define STORAGE(name, code) +1
#include "kernels/codes.def"
    ;

// How many of the last pixels vectors of rows take fewer instructions for than one more of pixels.
constexpr int64_t pixels_behind(Storage storage, int64_t block, int64_t pixels, int64_t lanes) {
  const int64_t behind = pixels % lanes;
  return storage == Storage::kBlocks && block >= 4 && 2 * behind <= block ? behind : 0;
}

// Are there kernels that pick from several vectors at once? Those of AVX-512.
#ifdef __x86_64__
constexpr bool kPicks = true;
#else
constexpr bool kPicks = false;
#endif

// Columns of x that a strip of one pixel picks 16 from; 0 where it does not.
constexpr int64_t window_of(Storage storage, int64_t block, int64_t lanes) {
  return kPicks && storage == Storage::kRows && block == 8 && lanes == 16 ? 64 : 0;
}

struct ProductRun {
  int32_t count;   // nonzeros (kRows) or columns (kBlocks) of each group in the run
  int32_t groups;  // that many groups follow each other
};

// One part's share of one chunk: groups of `block` rows, one behind the other. Those of kMasks have
// 15 runs each: the columns that row 0 uses alone, row 1, rows 0 and 1, ... Those of kColumns have
// one, a group of all rows of the part, which are rounded up to 16; values are
// [rows][column][8 vectors of rows], and of the rows that are left [rows][column][a vector]; for
// strips of few pixels (tile 1 rather than 8) [column][row], which memory reads faster.
struct ProductChunk {
  const float* values;      // [group][nonzero or column][rows]
  const uint16_t* columns;  // numbers of those in x, from first_col on
  const ProductRun* runs;
  int64_t num_runs;
  const int32_t* rows;  // output rows [group][block]; a group of fewer rows repeats one
  int64_t first_col;
  // Of each group how many windows it has, and the columns, from first_col on, where these begin:
  // its first nonzeros come in 16s, two of each of 8 rows, whose columns lie in one window. Null
  // where there are none.
  const uint16_t* windows;
};

struct ProductMatrix {
  int64_t rows, cols;
  Storage storage;
  int64_t block;
  int64_t tile;  // vectors of pixels that one pass takes, at most
  int64_t num_parts, num_chunks;
  const ProductChunk* chunks;  // [part][chunk]
  const int32_t* part_rows;    // [num_parts + 1]: where parts begin
};

struct ProductCall {
  const ProductMatrix* matrix;
  const float* x;
  int64_t x_pitch;
  float* y;
  int64_t y_pitch;
  const float* bias;      // [rows]
  const float* residual;  // [rows][residual_pitch], may be null
  int64_t residual_pitch;
  ActivationCall activation;
  float* scratch = nullptr;  // of this thread, for kColumns
};

struct ProductKernels {
  int64_t lanes;
  int64_t (*most_vectors)(Storage storage, int64_t block);  // that a tile may have
  int64_t (*scratch_floats)(const ProductMatrix& matrix);
  // One part at pixels [first, first + count); first is a multiple of 16.
  void (*multiply)(const ProductCall& call, int64_t part, int64_t first, int64_t count);
};

}  // namespace sparsejax
