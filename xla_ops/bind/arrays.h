// How handlers read XLA's buffers: shapes and dtypes checked, leading dimensions apart, errors as
// XLA wants them.
//
// Every array may carry leading dimensions in front of its own (vmap puts them there): all results
// have the same, an operand's are 1 or those of the results, and are broadcast.
#pragma once
#include <functional>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "kernels/spmm.h"
#include "threads/parallel_for.h"
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

// So many elements, zero-sized dimensions left out, has no array: no product of an array's sizes,
// nor one of them with 2^15, overflows.
constexpr int64_t kMostElements = int64_t{1} << 48;

// An operand or result: leading dimensions and its own. Its memory is reached through a Batch only.
class Array {
 public:
  Array() = default;
  // The last `rank` dimensions are its own.
  Array(std::string called, const ffi::AnyBuffer& buffer, ffi::DataType dtype, size_t rank)
      : name(std::move(called)), data_(static_cast<char*>(buffer.untyped_data())) {
    const auto dims = buffer.dimensions();
    const Sizes all(dims.begin(), dims.end());
    need(buffer.element_type() == dtype,
         [&] { return name + " must be " + (dtype == ffi::F32 ? "float32" : "int32"); });
    need(all.size() >= rank, [&] {
      return name + " must have at least " + std::to_string(rank) + " dimensions, got shape " +
             text(all);
    });
    need(is_countable(all), [&] { return name + " must fit a memory, got shape " + text(all); });
    need(reinterpret_cast<uintptr_t>(data_) % kBytes == 0,
         [&] { return name + " must be aligned to its elements of 4 bytes"; });
    leading.assign(all.begin(), all.end() - rank);
    sizes.assign(all.end() - rank, all.end());
    for (int64_t size : sizes) slice_size *= size;
  }

  std::string name;
  Sizes leading, sizes;
  int64_t slice_size = 1;

 private:
  friend class Batch;
  static constexpr int64_t kBytes = 4;  // of an element: float32 and int32 are all there is

  static bool is_countable(const Sizes& sizes) {
    int64_t elements = 1;
    for (int64_t size : sizes) {
      if (size < 0 || size > kMostElements / elements) return false;
      if (size > 0) elements *= size;
    }
    return true;
  }

  char* data_ = nullptr;
};

inline int64_t product(const Sizes& sizes) {
  int64_t n = 1;
  for (int64_t size : sizes) n *= size;
  return n;
}

inline void need_sizes(const Array& array, const Sizes& sizes) {
  need(array.sizes == sizes, [&] {
    return array.name + " must have shape " + text(sizes) + ", got " + text(array.sizes);
  });
}

// What one call works on: as many slices as the results' leading dimensions say, and of each array
// the part that belongs to a slice.
class Batch {
 public:
  using Arrays = std::initializer_list<const Array*>;

  // Checks the leading dimensions of all results and operands, and that results have their memory
  // for themselves.
  Batch(Arrays results, Arrays operands)
      : Batch(std::vector<const Array*>(results), std::vector<const Array*>(operands)) {}
  Batch(const std::vector<const Array*>& results, const std::vector<const Array*>& operands) {
    if (!results.empty()) leading_ = results[0]->leading;
    for (size_t r = 0; r < results.size(); r++) {
      const Array& result = *results[r];
      need(result.leading == leading_, [&] {
        return result.name + " must have the leading dimensions of " + results[0]->name + ", " +
               text(leading_) + ", got " + text(result.leading);
      });
      for (size_t other = 0; other < r; other++) need_apart(result, *results[other]);
      for (const Array* operand : operands) need_apart(result, *operand);
    }
    for (const Array* operand : operands) need_broadcast(*operand);
    size_ = product(leading_);
  }

  int64_t size() const { return size_; }

  // The part of an array that belongs to slice `index`, 0 <= index < size().
  template <class T>
  T* at(const Array& array, int64_t index) const {
    static_assert(sizeof(T) == Array::kBytes, "read() takes elements of 4 bytes");
    need_broadcast(array);  // of one that the constructor was not told about, too
    int64_t slice = 0, stride = 1;
    for (size_t d = leading_.size(); d-- > 0;) {
      const int64_t size = array.leading[d];
      slice += size == 1 ? 0 : index % leading_[d] * stride;
      stride *= size;
      index /= leading_[d];
    }
    return reinterpret_cast<T*>(array.data_) + slice * array.slice_size;
  }

 private:
  void need_broadcast(const Array& array) const {
    bool fits = array.leading.size() == leading_.size();
    for (size_t d = 0; fits && d < leading_.size(); d++)
      fits = array.leading[d] == 1 || array.leading[d] == leading_[d];
    need(fits, [&] {
      return array.name + " must have the results' leading dimensions, " + text(leading_) +
             ", or 1 in their place, got " + text(array.leading);
    });
  }

  static void need_apart(const Array& a, const Array& b) {
    const auto end = [](const Array& array) {
      return array.data_ + product(array.leading) * array.slice_size * Array::kBytes;
    };
    const std::less_equal<const char*> behind;
    need(behind(end(a), b.data_) || behind(end(b), a.data_) || end(a) == a.data_ ||
             end(b) == b.data_,
         [&] { return a.name + " must not share memory with " + b.name; });
  }

  Sizes leading_;
  int64_t size_ = 1;
};

// Runs `body`, and turns what it throws into one of XLA's errors: nothing may unwind into XLA.
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

inline ThreadPool pool_of(ffi::ThreadPool& threads) {
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
