// Packed weights times a strip: pixels cut into tiles; see product.h. Compiled once for each
// instruction set.
#include "kernels/product.h"

#include "kernels/elementwise.h"
#include "kernels/product_tile.h"
#include "kernels/sizes.h"

namespace sparsejax::SPARSEJAX_TARGET {

extern const ElementwiseKernels elementwise;

namespace {

TileKernels kernels_of(const ProductMatrix& matrix) {
  if (matrix.storage == Storage::kRows) return rows_kernels(matrix.block);
  return matrix.storage == Storage::kBlocks ? blocks_kernels(matrix.block) : masks_kernels();
}

bool is_clamp(Function function) {
  return function == Function::kIdentity || function == Function::kClamp;
}

// All chunks of one part at one tile of pixels.
void add_chunks(const ProductCall& call, int64_t part, int64_t pixel, TileKernel kernel) {
  const ProductMatrix& matrix = *call.matrix;
  const bool clamps = call.activation.function == Function::kClamp;
  for (int64_t c = 0; c < matrix.num_chunks; c++) {
    const ProductChunk& chunk = matrix.chunks[part * matrix.num_chunks + c];
    const bool last = c == matrix.num_chunks - 1;
    const Tile tile = {call.x + chunk.first_col * call.x_pitch + pixel,
                       call.x_pitch,
                       call.y + pixel,
                       call.y_pitch,
                       c == 0 ? call.bias : nullptr,
                       last && call.residual ? call.residual + pixel : nullptr,
                       call.residual_pitch,
                       last && clamps,
                       call.activation.low,
                       call.activation.high};
    kernel(chunk, tile);
  }
}

// Functions other than a clamp, once all sums of the part are there.
void activate(const ProductCall& call, int64_t part, int64_t first, int64_t count) {
  const int32_t begin = call.matrix->part_rows[part], end = call.matrix->part_rows[part + 1];
  if (call.y_pitch >= 16) {
    float* y = call.y + begin * call.y_pitch + first;
    return elementwise.activate_rows(call.activation, y, count, end - begin, call.y_pitch, y);
  }
  const int64_t floats = (end - begin) * call.y_pitch;
  const int64_t whole = floats / 16 * 16, rest = floats - whole;
  float* y = call.y + begin * call.y_pitch;
  if (whole) elementwise.activate(call.activation, y, whole, y);
  float last[16] = {};
  __builtin_memcpy(last, y + whole, rest * sizeof(float));
  if (rest) elementwise.activate(call.activation, last, rest, last);
  __builtin_memcpy(y + whole, last, rest * sizeof(float));
}

// For all pixels of a strip of few at once; null if it is none.
TileKernel whole_strip(const ProductCall& call, const TileKernels& kernels, int64_t pixels) {
  const ProductMatrix& matrix = *call.matrix;
  const auto either = [](TileKernel special, TileKernel plain) {
    return special ? special : plain;
  };
  if (call.y_pitch == 1)
    return either(vector_kernel(matrix.storage, matrix.block), kernels.kernel(0));
  if (call.y_pitch == 4)
    return either(few_kernel(matrix.storage, matrix.block, pixels), kernels.narrow[0]);
  return call.y_pitch == 8 ? kernels.narrow[1] : nullptr;
}

void multiply(const ProductCall& call, int64_t part, int64_t first, int64_t count) {
  if (kSkipsZeros && call.matrix->storage == Storage::kColumns)
    return multiply_columns(call, part, first, count);
  const ProductMatrix& matrix = *call.matrix;
  const TileKernels kernels = kernels_of(matrix);
  if (const TileKernel whole = whole_strip(call, kernels, count)) {
    add_chunks(call, part, 0, whole);
  } else {
    int64_t most = matrix.tile;
    if (count <= kFewPixels || most > kernels.most_vectors) most = kernels.most_vectors;
    const int64_t behind = pixels_behind(matrix.storage, matrix.block, count, kLanes);
    int64_t left = divide_up(count - behind, kLanes), pixel = first;
    bool tailed = false;
    while (left > 0) {  // tiles as equal as can be
      const int64_t tiles = divide_up(left, most), vectors = divide_up(left, tiles);
      tailed = kTails && behind > 0 && tiles == 1;
      add_chunks(call, part, pixel,
                 tailed ? kernels.with_tail(vectors, behind) : kernels.kernel(vectors));
      left -= vectors;
      pixel += vectors * kLanes;
    }
    if (behind > 0 && !tailed)
      add_chunks(call, part, pixel, few_kernel(matrix.storage, matrix.block, behind));
  }
  if (!is_clamp(call.activation.function)) activate(call, part, first, count);
}

int64_t scratch_floats(const ProductMatrix& matrix) {
  return kSkipsZeros && matrix.storage == Storage::kColumns ? columns_scratch(matrix) : 0;
}

int64_t most_vectors(Storage storage, int64_t block) {
  ProductMatrix matrix = {};
  matrix.storage = storage;
  matrix.block = block;
  return kernels_of(matrix).most_vectors;
}

}  // namespace

extern const ProductKernels product = {kLanes, most_vectors, scratch_floats, multiply};

}  // namespace sparsejax::SPARSEJAX_TARGET
