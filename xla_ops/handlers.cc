// Binds the kernels to XLA's FFI and to Python; the only file that knows both.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

NB_MODULE(_xla_ops, m) {
  m.def("targets", []() { return nb::dict(); });
}
