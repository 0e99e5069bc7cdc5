// Whole operations: cut into tiles, run on a pool of threads. Results do not depend on the number
// of threads.
#pragma once
#include "engine/depthwise_axis.h"
#include "engine/matrix.h"
#include "kernels/bcr.h"
#include "kernels/table.h"
#include "threads/parallel_for.h"

namespace sparsejax {

// y[image] = activation(W x[image] + bias); see spmm.h for the layouts.
void run_spmm(const Kernels& kernels, const ThreadPool& pool, const SpmmCall& call, int64_t images,
              const float* x, float* y);

// grad_values[nonzero][block] and grad_bias[rows], summed over images and pixels. call.bias and
// activation are unused.
void run_spmm_grad_values(const Kernels& kernels, const ThreadPool& pool, const SpmmCall& call,
                          int64_t images, const float* x, const float* grad_y, float* grad_values,
                          float* grad_bias);

// As run_spmm, for a matrix of runs; see bcr.h.
void run_bcr(const Kernels& kernels, const ThreadPool& pool, const BcrCall& call, int64_t images,
             const float* x, float* y);

// grad_values as the matrix has its values, summed over images and pixels; call.bias and activation
// are unused.
void run_bcr_grad_values(const Kernels& kernels, const ThreadPool& pool, const BcrCall& call,
                         int64_t images, const float* x, const float* grad_y, float* grad_values);

struct ConvSizes {
  int64_t images, channels;
  AxisSizes y, x;
  bool channels_last;  // [image][y][x][channel], else [image][channel][y][x]
};

// Floats of scratch that a thread may need: 256 MB. Only taps that lie very far apart need more.
constexpr int64_t kMaxScratch = 1 << 26;

// kernel [y][x][channel] always; bias [channel] may be null. False where a thread would need more
// than kMaxScratch: then nothing is right.
[[nodiscard]] bool run_depthwise(const Kernels& kernels, const ThreadPool& pool,
                                 const ConvSizes& sizes, const float* kernel, const float* bias,
                                 Activation activation, const float* x, float* out);
[[nodiscard]] bool run_depthwise_grad_x(const Kernels& kernels, const ThreadPool& pool,
                                        const ConvSizes& sizes, const float* kernel,
                                        const float* grad_out, float* grad_x);
[[nodiscard]] bool run_depthwise_grad_kernel(const Kernels& kernels, const ThreadPool& pool,
                                             const ConvSizes& sizes, const float* x,
                                             const float* grad_out, float* grad_kernel,
                                             float* grad_bias);

}  // namespace sparsejax
