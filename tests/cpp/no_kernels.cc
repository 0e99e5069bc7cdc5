// Empty tables of an instruction set that is not tested: kernels.cc wants to know of it.
#include "kernels/kernels.h"

namespace sparsejax::SPARSEJAX_TARGET {
extern const SpmmKernels spmm = {};
extern const BcrKernels bcr = {};
extern const DepthwiseKernels depthwise = {};
extern const DepthwisePlaneKernels depthwise_planes = {};
extern const WindowKernels window = {};
extern const ElementwiseKernels elementwise = {};
extern const ProductKernels product = {};
}  // namespace sparsejax::SPARSEJAX_TARGET
