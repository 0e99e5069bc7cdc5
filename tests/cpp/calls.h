// Calls of XLA's custom calls as XLA makes them, without XLA: buffers that end where they end,
// attributes, a pool of threads, errors that are counted.
#pragma once
#include <map>
#include <memory>

#include "testing.h"
#include "xla/ffi/api/c_api.h"

struct XLA_FFI_Error {
  std::string message;
};

struct XLA_FFI_ExecutionContext {
  sparsejax::test::Threads threads;
  int64_t num_threads = 1;
  bool has_pool = true;
  void* state = nullptr;
};

extern "C" {
#define TARGET(name) XLA_FFI_Error* sparsejax_##name(XLA_FFI_CallFrame*);
#include "bind/targets.def"
XLA_FFI_Error* sparsejax_program_instantiate(XLA_FFI_CallFrame*);
XLA_FFI_Error* sparsejax_program(XLA_FFI_CallFrame*);
}

namespace sparsejax::test {

using Dims = std::vector<int64_t>;

// A buffer; `words` are the bits of its elements of 4 bytes.
struct Tensor {
  XLA_FFI_DataType dtype;
  Dims dims;
  std::vector<uint32_t> words;
  int64_t shift = 0;              // bytes by which the address is wrong
  uint32_t* elsewhere = nullptr;  // the memory of another tensor

  int64_t elements() const;
  // The part of slice i of so many.
  Tensor slice(int64_t i, int64_t slices) const;
};
Tensor float_tensor(Dims dims);  // random
Tensor int_tensor(Dims dims, const std::vector<int32_t>& values);

struct Attribute {
  std::vector<int64_t> numbers;
  enum { kNumber, kFlag, kNumbers, kText } kind = kNumber;
  std::string text = {};
};

// Errors that were made and not yet destroyed.
inline int64_t living_errors = 0;
// Frees what instantiate has left in `state`, as XLA does.
void delete_state(void* state);
// What RegisterTypeId is to say next; empty for success.
inline std::string registration_error;

struct Call {
  XLA_FFI_Handler* handler;
  std::vector<Tensor> operands, results;
  std::map<std::string, Attribute> attributes;
  std::string name;
  int64_t num_threads = 1;
  bool has_pool = true;

  // What the handler says, or nothing.
  std::string run(XLA_FFI_ExecutionStage stage = XLA_FFI_ExecutionStage_EXECUTE,
                  void** state = nullptr);
};

// A small valid call of each handler but the program's, all arrays with these leading dimensions.
std::vector<Call> valid_calls(const Dims& leading);

constexpr int64_t kHuge = int64_t{1} << 62;

inline std::vector<Tensor>& side(Call& call, bool results) {
  return results ? call.results : call.operands;
}

// f(array) for each operand and result of a call.
template <class F>
void for_each_array(const Call& call, const F& f) {
  for (bool results : {false, true})
    for (size_t i = 0; i < side(const_cast<Call&>(call), results).size(); i++) f(results, i);
}

// Memory for the dimensions that a tensor says it has, and nothing behind it.
inline void fit(Tensor& tensor) {
  tensor.words.resize(tensor.elements());
  tensor.words.shrink_to_fit();
}

// What makes an array of two slices unfit.
struct ArrayDamage {
  const char* name;
  void (*apply)(Tensor&);
};
inline const ArrayDamage kDamages[] = {
    {"more slices", [](Tensor& t) { t.dims[0] = 3; }},
    {"fewer slices", [](Tensor& t) { t.dims[0] = 0; }},
    {"no leading dimension", [](Tensor& t) { t.dims.erase(t.dims.begin()); }},
    {"a leading dimension too many", [](Tensor& t) { t.dims.insert(t.dims.begin(), 1); }},
    {"leading dimensions alone", [](Tensor& t) { t.dims.resize(1); }},
    {"no dimensions", [](Tensor& t) { t.dims.clear(); }},
    {"another dtype", [](Tensor& t) { t.dtype = XLA_FFI_DataType_U32; }},
    {"a dtype of 8 bytes", [](Tensor& t) { t.dtype = XLA_FFI_DataType_S64; }},
};
inline const ArrayDamage kFakes[] = {
    // no memory has these sizes
    {"a negative size", [](Tensor& t) { t.dims.back() = -1; }},
    {"negative slices", [](Tensor& t) { t.dims[0] = -2; }},
    {"a huge size", [](Tensor& t) { t.dims.back() = kHuge; }},
    {"sizes that overflow", [](Tensor& t) { t.dims.insert(t.dims.begin(), {kHuge, 4}); }},
    {"overflow hidden by a 0", [](Tensor& t) { t.dims.insert(t.dims.begin(), {kHuge, 4, 0}); }},
    {"an odd address", [](Tensor& t) { t.shift = 1; }},
    {"an address between floats", [](Tensor& t) { t.shift = 2; }},
};

// One call that `bytes` describe, mostly wrong; a sanitizer watches.
void call_by_bytes(const uint8_t* bytes, size_t size);

}  // namespace sparsejax::test
