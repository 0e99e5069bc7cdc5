// A program that is ready to run: planned and packed. Of its floats it keeps what is not packed.
#pragma once
#include <algorithm>
#include <memory>
#include <vector>

#include "engine/memory.h"
#include "engine/packed_store.h"
#include "engine/pieces.h"
#include "engine/tap_planes.h"
#include "kernels/table.h"
#include "threads/machine.h"
#include "threads/team.h"

namespace sparsejax {

class Executable;

// What executables share: programs of other shapes, of equal weights, runs that follow each other.
struct Stores {
  KeptMemory memory;
  PackedStore packed;
};

// Where one run's values lie.
struct Frame {
  const Executable* executable;
  const float* const* operands;
  float* const* results;
  float *arena, *job;
  double* seconds;     // of each step, null unless profiled
  const Piece* piece;  // of the job that a thread computes, null where all of it is computed

  float* strip(int64_t value, int64_t strip) const;
  // Pointers to `count` rows of channel 0 from row `first` on; null outside of the image.
  void rows(int64_t value, int64_t first, int64_t count, std::vector<const float*>& rows) const;
};

class Executable {
 public:
  // With what it shares with others, or what is its own.
  Executable(Program program, const Kernels& kernels, const PlanOptions& options,
             std::shared_ptr<Stores> stores = std::make_shared<Stores>());

  // The same program of images that are `rows` rows of one pixel, on the same packed weights; null
  // where its values are no such images of one height.
  std::unique_ptr<Executable> with_rows(int64_t rows) const;

  // operands[i] and results[i] hold one image each. Any number of threads may run at a time;
  // results do not depend on the number of threads in the pool.
  void run_image(const ThreadPool& pool, const float* const* operands, float* const* results);
  // The same, by a team that goes on to other runs.
  void run_image(const Team& team, const float* const* operands, float* const* results);

  // Seconds that each step takes in a run on one thread, best of `runs`, with these operands or,
  // without any, with zeros.
  std::vector<double> profile(int64_t runs, std::vector<const float*> operands = {});

  const Program& program() const { return program_; }
  const Plan& plan() const { return plan_; }
  const Kernels& kernels() const { return kernels_; }
  const PackedProduct* product(const Step& step) const {
    return products_[&step - program_.steps.data()].get();
  }
  // Of a product with a window.
  const TapPlanes& planes(const Step& step) const { return planes_[&step - program_.steps.data()]; }
  // Of an average pool: by how much the sum of each output pixel is multiplied.
  const float* scales(const Step& step) const {
    return scales_[&step - program_.steps.data()].data();
  }
  // Floats of scratch that one run on `threads` threads takes.
  int64_t scratch_floats(int64_t threads) const {
    return plan_.arena_floats + std::min(threads, kPieces) * plan_.job_floats;
  }

 private:
  Executable(const Executable& packed, Program program);
  void pack(const Step& step);
  void drop_packed_floats();
  void run(const Team& team, Frame frame);
  void run_job(const Job& job, const Team& team, const Frame& frame);

  Program program_;
  PlanOptions options_;
  Plan plan_;
  Kernels kernels_;
  std::shared_ptr<Stores> stores_;
  std::vector<std::shared_ptr<const PackedProduct>> products_;
  std::vector<TapPlanes> planes_;
  std::vector<std::vector<float>> scales_;
};

inline float* Frame::strip(int64_t value, int64_t strip) const {
  const Strips& strips = executable->plan().values[value];
  return strips.kept ? arena + strips.begin + strip * strips.floats
                     : job + strips.begin + strip % strips.ring * strips.floats;
}

// One strip of a step's output, from strips that are there; the team may take part.
void run_step(const Frame& frame, const Step& step, int64_t strip, const Team& team);

}  // namespace sparsejax
