/* Runs what sparsejax.save wrote, without Python and without JAX.
 *
 * A model is loaded from the bytes of a file, which need not stay. Any number of threads may call
 * sparsejax_run on one model at a time, and sparsejax_set_threads while they do; sparsejax_free
 * must be the last call on a model. No function throws, exits or prints. Each that returns a
 * status leaves a sentence for sparsejax_last_error where that is not SPARSEJAX_OK.
 *
 * A file is checked before anything is made of it: reading asks for at most 1,024 bytes and a few
 * for each byte of the file, and a file is refused whose runs take more than 2 GiB on one thread. A
 * run allocates nothing on one thread if another of the same batch was before it. Denormal numbers
 * count as zero, as they do in XLA.
 */
#ifndef SPARSEJAX_H
#define SPARSEJAX_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define SPARSEJAX_API
#else
#define SPARSEJAX_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define SPARSEJAX_BATCH (-1) /* in a shape: any number of items */

typedef enum sparsejax_status {
  SPARSEJAX_OK = 0,
  SPARSEJAX_BAD_FILE = 1,     /* damaged, none of ours, or for a newer reader */
  SPARSEJAX_BAD_ARGUMENT = 2, /* what the caller handed over does not fit */
  SPARSEJAX_NO_MEMORY = 3,
  SPARSEJAX_FAILED = 4 /* the system gave no thread, say, or the CPU lacks the instructions */
} sparsejax_status;

typedef struct sparsejax_model sparsejax_model;

/* An input or output: floats in C order, whole numbers and truth values (0 or 1) in JAX, too. Lives
 * as long as the model. */
typedef struct sparsejax_port {
  const char* name; /* the path in the arguments, or in what is returned */
  int32_t rank;
  const int64_t* shape; /* the first size is SPARSEJAX_BATCH where the batch is free */
  int64_t item_floats;  /* of one item */
} sparsejax_port;

/* The caller's memory; what is input is not written. */
typedef struct sparsejax_buffer {
  float* data;
  size_t floats;
} sparsejax_buffer;

/* *model is null unless the status is SPARSEJAX_OK. */
SPARSEJAX_API sparsejax_status sparsejax_load(const void* bytes, size_t size,
                                              sparsejax_model** model);
SPARSEJAX_API void sparsejax_free(sparsejax_model* model);

SPARSEJAX_API int32_t sparsejax_num_inputs(const sparsejax_model* model);
SPARSEJAX_API int32_t sparsejax_num_outputs(const sparsejax_model* model);
SPARSEJAX_API sparsejax_status sparsejax_input(const sparsejax_model* model, int32_t index,
                                               sparsejax_port* port);
SPARSEJAX_API sparsejax_status sparsejax_output(const sparsejax_model* model, int32_t index,
                                                sparsejax_port* port);

/* Threads of a run, the caller's among them; 1 until it is said otherwise. Results do not depend on
 * it. Runs under way end with the threads that they began with. */
SPARSEJAX_API sparsejax_status sparsejax_set_threads(sparsejax_model* model, int32_t threads);

/* Computes `batch` items, 1 where the batch is not free. There is a buffer for each input and for
 * each output, of exactly batch * item_floats floats, and outputs overlap nothing. */
SPARSEJAX_API sparsejax_status sparsejax_run(sparsejax_model* model, int64_t batch,
                                             const sparsejax_buffer* inputs,
                                             const sparsejax_buffer* outputs);

/* What was wrong in this thread's last call that returned another status than SPARSEJAX_OK. */
SPARSEJAX_API const char* sparsejax_last_error(void);

/* The instruction set in use: avx512, avx2, sse2, neon or wasm; "" where the CPU has none that the
 * library was built for. */
SPARSEJAX_API const char* sparsejax_kernels(void);

#ifdef __cplusplus
}
#endif

#endif
