// Gives the custom calls to Python; the only file that knows it. XLA is known here, in
// *_handlers.cc and ffi_arrays.h.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <string>

#include "kernels.h"
#include "xla/ffi/api/c_api.h"

namespace nb = nanobind;

extern "C" {
XLA_FFI_Error* sparsejax_spmm(XLA_FFI_CallFrame*);
XLA_FFI_Error* sparsejax_spmm_grad_values(XLA_FFI_CallFrame*);
XLA_FFI_Error* sparsejax_depthwise(XLA_FFI_CallFrame*);
XLA_FFI_Error* sparsejax_depthwise_grad_x(XLA_FFI_CallFrame*);
XLA_FFI_Error* sparsejax_depthwise_grad_kernel(XLA_FFI_CallFrame*);
}

namespace {

nb::capsule capsule(XLA_FFI_Handler* handler) {
  return nb::capsule(reinterpret_cast<void*>(handler));
}

}  // namespace

NB_MODULE(_xla_ops, m) {
  using namespace sparsejax;
  m.def("targets", [] {
    nb::dict d;
    d["spmm"] = capsule(sparsejax_spmm);
    d["spmm_grad_values"] = capsule(sparsejax_spmm_grad_values);
    d["depthwise"] = capsule(sparsejax_depthwise);
    d["depthwise_grad_x"] = capsule(sparsejax_depthwise_grad_x);
    d["depthwise_grad_kernel"] = capsule(sparsejax_depthwise_grad_kernel);
    return d;
  });
  m.def("isa", [] { return std::string(kernels().isa); });
  m.def("usable_isas", [] {
    nb::list names;
    for (const Kernels& set : usable_kernels()) names.append(set.isa);
    return names;
  });
  m.def("use", &use);
}
