// Runs of one program of a file, for any number of items.
#pragma once
#include <map>
#include <memory>

#include "engine/executable.h"
#include "files/saved_program.h"

namespace sparsejax {

// f(part, team): one after the other by the whole team, or by threads alone where there are enough.
template <class F>
void in_parts(const Team& team, int64_t parts, const F& f) {
  if (parts < team.num_threads()) {
    for (int64_t part = 0; part < parts; part++) f(part, team);
  } else {
    team.for_each(parts, [&](int64_t part) { f(part, Team(ThreadPool{})); });
  }
}

// What a run reads and writes. Kept for a thread's next run, so that they are allocated once.
struct Pointers {
  std::vector<const float*> operands;
  std::vector<float*> results;

  void clear() {
    operands.clear();
    results.clear();
  }
};

class ProgramRuns {
 public:
  ProgramRuns(SavedProgram saved, std::shared_ptr<Stores> stores);

  // Computes items that lie one behind the other. Any number of threads may run at a time.
  void run(const Team& team, int64_t items, const float* const* operands, float* const* results);

  int64_t scratch_floats() { return executable(1)->scratch_floats(1); }  // of an item, one thread

 private:
  std::shared_ptr<Executable> executable(int64_t items);
  std::shared_ptr<Executable> made_for(int64_t rows) const;

  SavedProgram saved_;
  const std::shared_ptr<Stores> stores_;
  std::vector<int64_t> input_floats_, output_floats_;  // of an item
  int64_t unit_ = 1;                                   // items that run together
  std::shared_ptr<Executable> images_;
  Mutex mutex_;                                              // of what follows
  std::map<int64_t, std::shared_ptr<Executable>> programs_;  // of rows, by the number of items
};

}  // namespace sparsejax
