// Packed weights by what they contain: executables of other shapes share those of equal weights.
#pragma once
#include <array>
#include <map>
#include <memory>

#include "engine/pack_product.h"
#include "threads/machine.h"

namespace sparsejax {

class PackedStore {
 public:
  // PackedProduct(...) of these, or one that is alive and was made of equal ones for the same
  // kernels. Equal are weights whose digest of 128 bits is.
  std::shared_ptr<const PackedProduct> product(const ProductWeights& weights, int64_t pixels,
                                               int64_t x_pitch, const ProductLayout& layout,
                                               const ProductKernels& kernels);

  // That what was packed here and is alive takes, each counted once.
  int64_t bytes();

 private:
  using Key = std::array<uint64_t, 13>;
  std::shared_ptr<const PackedProduct> find(const Key& key);

  Mutex mutex_;
  std::map<Key, std::weak_ptr<const PackedProduct>> products_;
};

}  // namespace sparsejax
