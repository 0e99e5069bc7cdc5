// Drafts of programs as the files that `save` would write.
#pragma once
#include "files/model.h"
#include "programs.h"
#include "runtime/sparsejax.h"

namespace sparsejax::test {

// A draft that a file can hold: all inputs and outputs in one order of axes, vectors of rank 1
// or 3.
Draft saved_draft(Choices& choices);

// Its file; weights are stored in forms that the bytes choose, so far as these can hold them.
std::vector<uint8_t> file_of(const Draft& draft, Choices& choices, bool rows = false);

// A file of several programs and loops.
std::vector<uint8_t> looped_file(Choices& choices);

// Small enough to run under a sanitizer.
bool is_small(const Model& model);

// Bytes changed, and perhaps cut off.
void damage(Choices& choices, std::vector<uint8_t>& file);

// One file that `bytes` describe, damaged perhaps, read and run by the C interface: what is
// accepted gives what the program gives. Returns what is wrong, or nothing.
std::string file_problem(const Kernels& kernels, const uint8_t* bytes, size_t size);

// Runs a model on a batch of two and on one; whatever comes out is right.
void run_model(sparsejax_model* model);

// A file of any bytes, read and run if it is one. It must do no harm, and that is all.
void run_any_file(const uint8_t* bytes, size_t size);

}  // namespace sparsejax::test
