// Chooses what a layout leaves open by a model of the kernels; see pack_product.h.
#include <algorithm>
#include <cmath>

#include "engine/pack_product.h"
#include "kernels/sizes.h"
#include "threads/machine.h"

namespace sparsejax {
namespace {

struct Shape {
  int64_t rows, cols, pixels, x_pitch;  // cols: that a row may use
  int64_t most_cols;                    // of a chunk
  double nonzeros;                      // of a row
};

// Parts of the first-level cache that a tile of x may fill, and what each product costs with tiles
// of that size: the cache also holds weights and results, and blocks need less of x for a product
// than rows do.
struct Level {
  double part, rows_cost, blocks_cost;
};
constexpr Level kLevels[] = {
    {0.5, 1, 1}, {0.875, 1.06, 1.05}, {1.125, 1.2, 1.07}, {1.75, 1.4, 1.12}};

// The share of the cache's 64 sets that a tile can use: columns lie `pitch` floats apart.
double used_sets(int64_t pitch, int64_t column_bytes) {
  int64_t step = 1;
  while (step < 64 && pitch / 16 % (2 * step) == 0) step *= 2;
  return std::min(1.0, static_cast<double>(divide_up(column_bytes, 64)) / step);
}

// Columns of a tile that fill a part of the first-level cache.
int64_t cached_cols(double part, int64_t tile, int64_t pitch, const ProductKernels& kernels) {
  const int64_t bytes = 4 * tile * kernels.lanes;
  const double sets = used_sets(pitch, bytes);
  return std::max<int64_t>(1, part * cache_bytes(1) * sets / std::max<int64_t>(64, bytes));
}

// Rows whose sums are in registers together (product_blocks.cc).
double rows_at_once(const ProductLayout& layout) {
  return kWasm && layout.storage == Storage::kBlocks && layout.tile > 3 ? 2 : layout.block;
}

// Cycles in which the instructions of a nonzero can begin, 5.5 a cycle. Only engines of WebAssembly
// may need longest for that: they load x on its own, take 11 more for each tile, and have no
// register left for one of 4 x 3 sums.
double issue_cycles(double vectors, double tiles, const ProductLayout& layout) {
  if (!kWasm) return 0;
  if (layout.storage == Storage::kRows) return (2 * vectors + 11 * tiles) / 5.5;
  if (layout.tile == 3 && layout.block > 2) return 0.58 * vectors;
  return (vectors + (vectors + 11 * tiles) / rows_at_once(layout)) / 5.5;
}

// Cycles of a row on all tiles: two products and two loads a cycle, weights among them, and a
// latency of 4 in each chain of sums.
double row_cycles(const Shape& shape, const ProductLayout& layout, double product_cost,
                  int64_t lanes) {
  const int64_t behind = pixels_behind(layout.storage, layout.block, shape.pixels, lanes);
  const double vectors = divide_up(shape.pixels - behind, lanes);
  const double tiles = std::ceil(vectors / layout.tile);
  const double block = rows_at_once(layout);
  const bool rows = layout.storage == Storage::kRows;
  const double multiplications = 0.5 * vectors, chains = 4.2 * tiles / block;
  const double loads = rows ? 0.5 * vectors + 0.35 * tiles : 0.55 * (vectors / block + tiles);
  const double rest = 0.5 * (behind > 0 ? behind + 1 : 0) / std::min<int64_t>(lanes, 8);
  const double product =
      std::max({multiplications, loads, chains, issue_cycles(vectors, tiles, layout)}) + rest;
  const double chunks = divide_up(shape.cols, layout.chunk_cols);
  return chunks * (6 * tiles + 2 * vectors) + shape.nonzeros * product * product_cost;
}

// The cheapest of all tiles and chunks that `layout` allows, at its block.
double choose_tile(const Shape& shape, const ProductKernels& kernels, ProductLayout& layout) {
  const int64_t vectors = divide_up(shape.pixels, kernels.lanes);
  const int64_t most = std::min(vectors, kernels.most_vectors(layout.storage, layout.block));
  ProductLayout best = layout;
  double best_cycles = 1e300;
  for (int64_t tile = 1; tile <= most; tile++) {
    if (layout.tile != 0 && tile != std::min(layout.tile, most)) continue;
    for (const Level& level : kLevels) {
      const int64_t suits = cached_cols(level.part, tile, shape.x_pitch, kernels);
      const int64_t chunks = divide_up(shape.cols, std::min(suits, shape.most_cols));
      ProductLayout tried = layout;
      tried.tile = tile;
      tried.chunk_cols =
          layout.chunk_cols != 0
              ? std::min(layout.chunk_cols, shape.most_cols)
              : std::min(round_up(divide_up(shape.cols, chunks), 16), shape.most_cols);
      const double cost = layout.storage == Storage::kRows ? level.rows_cost : level.blocks_cost;
      const double cycles = row_cycles(shape, tried, cost, kernels.lanes);
      if (cycles < best_cycles) best = tried, best_cycles = cycles;
    }
  }
  layout = best;
  return best_cycles;
}

// Columns of a chunk whose places fit in 16 bits.
int64_t most_cols(const ProductWeights& weights, int64_t x_pitch) {
  if (weights.places.taps.empty()) return most_chunk_cols(x_pitch);
  const auto taps = static_cast<int64_t>(weights.places.taps.size());
  return std::max<int64_t>(1, 65536 / weights.places.channel - 1) * taps;
}

// The most rows of a block, up to so many.
int64_t tallest(const ProductWeights& weights, Storage storage, int64_t most) {
  if (storage == Storage::kMasks) return 4;
  while (most > 2 && !weights.may_have(storage, most)) most /= 2;
  return most;
}

// For 1 to 16 pixels alike, so that these share what is packed: one tile, and chunks of which x
// stays in the first-level cache, as 64 bytes a column at most.
ProductLayout completed_for_few(ProductLayout layout, const ProductWeights& weights,
                                const ProductKernels& kernels) {
  constexpr int64_t kCols = 1024;
  const int64_t groups = weights.groups;
  if (layout.num_parts == 0) layout.num_parts = std::clamp<int64_t>(weights.rows / 64, 1, 8);
  if (groups > 1) layout.num_parts = std::min(layout.num_parts, groups);
  if (layout.block == 0) layout.block = tallest(weights, layout.storage, 8);
  const int64_t cols =
      groups == 1 ? weights.cols : divide_up(groups, layout.num_parts) * weights.group_cols();
  layout.tile = divide_up(kFewPixels, kernels.lanes);
  const int64_t most = most_cols(weights, kFewPixels);
  layout.chunk_cols = layout.chunk_cols == 0 ? round_up(divide_up(cols, divide_up(cols, kCols)), 16)
                                             : layout.chunk_cols;
  layout.chunk_cols = std::min(layout.chunk_cols, most);
  return layout;
}

// All weights by columns: of a part's rows and a chunk's columns, half of the first-level cache is
// full of the rows that a pass takes (product_columns.cc).
ProductLayout completed_columns(ProductLayout layout, const ProductWeights& weights,
                                int64_t x_pitch, const ProductKernels& kernels) {
  layout.block = 1;
  layout.tile = x_pitch <= kFewPixels ? 1 : 8;
  if (layout.num_parts == 0) layout.num_parts = std::clamp<int64_t>(weights.rows / 512, 1, 8);
  const int64_t fit = std::max<int64_t>(16, cache_bytes(1) / 2 / (4 * 8 * kernels.lanes));
  const int64_t most = most_cols(weights, x_pitch);
  layout.chunk_cols = std::min(layout.chunk_cols == 0 ? fit : layout.chunk_cols, most);
  return layout;
}

// As many groups to a part as have their columns in the cache together: one chunk.
ProductLayout with_groups(ProductLayout layout, const ProductWeights& weights, const Shape& shape,
                          const ProductKernels& kernels) {
  const int64_t fit = cached_cols(0.5, layout.tile, shape.x_pitch, kernels);
  const int64_t together = std::max<int64_t>(1, std::min(fit, shape.most_cols) / shape.cols);
  if (layout.num_parts == 0)
    layout.num_parts = std::max<int64_t>(2, divide_up(weights.groups, together));
  layout.num_parts = std::min(layout.num_parts, weights.groups);
  const int64_t groups = divide_up(weights.groups, layout.num_parts);
  if (groups > 1) layout.chunk_cols = std::min(groups * shape.cols, shape.most_cols);
  return layout;
}

}  // namespace

ProductLayout completed(const ProductLayout& wanted, const ProductWeights& weights, int64_t pixels,
                        int64_t x_pitch, const ProductKernels& kernels) {
  if (kSkipsZeros && wanted.storage == Storage::kColumns)
    return completed_columns(wanted, weights, x_pitch, kernels);
  if (x_pitch <= kFewPixels) return completed_for_few(wanted, weights, kernels);
  ProductLayout layout = wanted;
  const int64_t rows = weights.rows, cols = weights.group_cols();
  const double nonzeros = count_nonzeros(weights.floats, rows * cols);
  const Shape shape = {rows, cols, pixels, x_pitch, most_cols(weights, x_pitch), nonzeros / rows};
  if (layout.num_parts == 0 && weights.groups == 1)
    layout.num_parts = std::clamp<int64_t>(rows / 256, rows < 64 ? 1 : 2, 8);
  if (layout.block == 0 && layout.storage != Storage::kRows)
    layout.block = tallest(weights, layout.storage, 4);
  ProductLayout best = layout;
  double best_cycles = 1e300;
  for (int64_t block : {2, 4, 1, 8}) {
    if (layout.block != 0 && block != layout.block) continue;
    ProductLayout tried = layout;
    tried.block = block;
    const double cycles = choose_tile(shape, kernels, tried);
    if (cycles < best_cycles) best = tried, best_cycles = cycles;
  }
  return weights.groups == 1 ? best : with_groups(best, weights, shape, kernels);
}

}  // namespace sparsejax
