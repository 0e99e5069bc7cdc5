// Runs of a file's sequence of programs.
#pragma once
#include "files/model.h"
#include "runtime/program_runs.h"

namespace sparsejax {

class SequenceRuns {
 public:
  // Of a model that is a sequence; the model stays.
  SequenceRuns(const Model& model, std::vector<std::unique_ptr<ProgramRuns>>& programs,
               std::shared_ptr<Stores> stores);

  // As ProgramRuns has it.
  void run(const Team& team, int64_t items, const float* const* operands, float* const* results);

 private:
  const Model& model_;
  std::vector<std::unique_ptr<ProgramRuns>>& programs_;
  const std::shared_ptr<Stores> stores_;
  int64_t unit_;  // items that run together
};

}  // namespace sparsejax
