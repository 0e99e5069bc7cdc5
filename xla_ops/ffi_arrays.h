// How handlers read XLA's buffers: shapes and dtypes checked, leading dimensions apart, errors as
// XLA wants them.
//
// Every operand may carry leading dimensions in front of its own (vmap puts them there): each is 1
// or that of the result, and is broadcast.
#pragma once
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "parallel_for.h"
#include "spmm.h"
#include "xla/ffi/api/ffi.h"

namespace sparsejax {

namespace ffi = xla::ffi;

using Sizes = std::vector<int64_t>;

struct BadInput {
  std::string message;
};

// `message` makes the text, which costs more than many a call, only where it is needed.
template <class Message>
void need(bool condition, const Message& message) {
  if (!condition) throw BadInput{message()};
}

inline std::string text(const Sizes& sizes) {
  std::string out = "(";
  for (size_t i = 0; i < sizes.size(); i++) out += (i ? ", " : "") + std::to_string(sizes[i]);
  return out + ")";
}

// An operand or result: leading dimensions and its own.
struct Array {
  std::string name;
  void* data;
  Sizes leading, sizes;
  int64_t slice_size = 1;

  template <class T>
  T* slice(int64_t i) const {
    return static_cast<T*>(data) + i * slice_size;
  }
};

inline Array read(const char* name, const ffi::AnyBuffer& buffer, ffi::DataType dtype,
                  size_t rank) {
  const auto dims = buffer.dimensions();
  const Sizes sizes(dims.begin(), dims.end());
  need(buffer.element_type() == dtype, [&] {
    return std::string(std::string(name) + " must be " + (dtype == ffi::F32 ? "float32" : "int32"));
  });
  need(sizes.size() >= rank, [&] {
    return std::string(std::string(name) + " must have at least " + std::to_string(rank) +
                       " dimensions, got shape " + text(sizes));
  });
  Array array = {name,
                 buffer.untyped_data(),
                 {sizes.begin(), sizes.end() - rank},
                 {sizes.end() - rank, sizes.end()}};
  for (int64_t size : array.sizes) array.slice_size *= size;
  return array;
}

inline int64_t product(const Sizes& sizes) {
  int64_t n = 1;
  for (int64_t size : sizes) n *= size;
  return n;
}

inline void need_sizes(const Array& array, const Sizes& sizes) {
  need(array.sizes == sizes, [&] {
    return std::string(array.name + " must have shape " + text(sizes) + ", got " +
                       text(array.sizes));
  });
}

// Which slice of an array belongs to slice `index` of the result.
inline int64_t slice_for(const Array& array, const Sizes& leading, int64_t index) {
  need(array.leading.size() == leading.size(),
       [&] { return std::string(array.name + " has too few or too many dimensions"); });
  int64_t slice = 0, stride = 1;
  for (size_t d = leading.size(); d-- > 0;) {
    const int64_t at = index % leading[d], size = array.leading[d];
    need(size == 1 || size == leading[d],
         [&] { return std::string(array.name + " has a leading dimension that does not fit"); });
    slice += size == 1 ? 0 : at * stride;
    stride *= size;
    index /= leading[d];
  }
  return slice;
}

// Runs `body`, and turns what it throws into XLA's errors: nothing may unwind into XLA.
template <class F>
ffi::Error guarded(const char* op, const F& body) {
  try {
    body();
    return ffi::Error::Success();
  } catch (const BadInput& bad) {
    return ffi::Error::InvalidArgument(std::string(op) + ": " + bad.message + ".");
  } catch (const std::exception& error) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, std::string(op) + ": " + error.what());
  }
}

inline Pool pool_of(ffi::ThreadPool& threads) {
  return {threads.num_threads(),
          [&threads](std::function<void()> task) { threads.Schedule(std::move(task)); }};
}

inline Activation activation_of(int64_t code) {
  need(code >= 0 && code <= 2,
       [&] { return std::string("activation must be 0, 1 or 2, got " + std::to_string(code)); });
  return static_cast<Activation>(code);
}

// What a sparse matrix is multiplied with: (images, channels, pixels) or, channels last, (pixels,
// channels).
inline Sizes activations(bool channels_last, int64_t images, int64_t channels, int64_t pixels) {
  return channels_last ? Sizes{pixels, channels} : Sizes{images, channels, pixels};
}

// Calls run(slice, images, pixels) for each slice of a batch, or once for all of them when they
// have one matrix: then they are so many more images, or pixels where channels are last.
template <typename Run>
void for_slices(int64_t slices, bool one_matrix, bool channels_last, int64_t images, int64_t pixels,
                const Run& run) {
  if (one_matrix && slices > 0)
    return run(0, channels_last ? images : images * slices,
               channels_last ? pixels * slices : pixels);
  for (int64_t i = 0; i < slices; i++) run(i, images, pixels);
}

}  // namespace sparsejax
