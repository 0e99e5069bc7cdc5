// See packed_store.h.
#include "engine/packed_store.h"

#include <cstring>

namespace sparsejax {
namespace {

uint64_t mixed(uint64_t x) {  // the finaliser of SplitMix64
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

// Two sums of products with what stands at each place, so that equal blocks in another order
// differ.
std::array<uint64_t, 2> digest(const float* floats, int64_t count) {
  uint64_t a = 0x9e3779b97f4a7c15, b = count;
  for (int64_t i = 0; i < count; i += 2) {
    uint64_t pair = 0;
    std::memcpy(&pair, floats + i, (i + 1 < count ? 2 : 1) * sizeof(float));
    a = (a ^ pair) * 0xff51afd7ed558ccd;
    a ^= a >> 32;
    b = (b + pair) * 0xc4ceb9fe1a85ec53;
    b ^= b >> 29;
  }
  return {mixed(a), mixed(b)};
}

uint64_t digest(const ColumnPlaces& places) {
  uint64_t sum = mixed(places.channel);
  for (int64_t place : places.taps) sum = mixed(sum + place);
  return sum;
}

}  // namespace

std::shared_ptr<const PackedProduct> PackedStore::find(const Key& key) {
  const Lock lock(mutex_);
  const auto found = products_.find(key);
  return found == products_.end() ? nullptr : found->second.lock();
}

std::shared_ptr<const PackedProduct> PackedStore::product(const ProductWeights& weights,
                                                          int64_t pixels, int64_t x_pitch,
                                                          const ProductLayout& wanted,
                                                          const ProductKernels& kernels) {
  const ProductLayout layout = completed(wanted, weights, pixels, x_pitch, kernels);
  const auto hash = digest(weights.floats, weights.rows * weights.group_cols());
  const auto number = [](auto n) { return static_cast<uint64_t>(n); };
  const Key key = {hash[0],
                   hash[1],
                   number(weights.rows),
                   number(weights.cols),
                   number(weights.groups),
                   digest(weights.places),
                   number(weights.alone),
                   number(layout.storage),
                   number(layout.block),
                   number(layout.tile),
                   number(layout.chunk_cols),
                   number(layout.num_parts),
                   reinterpret_cast<uintptr_t>(&kernels)};
  if (auto found = find(key)) return found;
  auto made = std::make_shared<const PackedProduct>(weights, pixels, x_pitch, layout, kernels);
  const Lock lock(mutex_);
  for (auto it = products_.begin(); it != products_.end();)
    it = it->second.expired() ? products_.erase(it) : std::next(it);
  auto& place = products_[key];
  if (auto other = place.lock()) return other;  // another thread was faster
  place = made;
  return made;
}

int64_t PackedStore::bytes() {
  const Lock lock(mutex_);
  int64_t bytes = 0;
  for (const auto& entry : products_)
    if (const auto product = entry.second.lock()) bytes += product->bytes();
  return bytes;
}

}  // namespace sparsejax
