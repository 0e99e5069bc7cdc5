// See program_runs.h.
#include "runtime/program_runs.h"

#include "kernels/kernels.h"

namespace sparsejax {
namespace {

// Rows run together, where their values take no more than 16 MB.
constexpr int64_t kMostRows = 1024, kMostRowFloats = int64_t{1} << 22;
constexpr size_t kMostPrograms = 8;  // of other numbers of rows, kept

std::vector<int64_t> sizes_of(const std::vector<Port>& ports) {
  std::vector<int64_t> sizes;
  for (const Port& port : ports) sizes.push_back(item_floats(port));
  return sizes;
}

}  // namespace

ProgramRuns::ProgramRuns(SavedProgram saved, std::shared_ptr<Stores> stores)
    : saved_(std::move(saved)),
      stores_(std::move(stores)),
      input_floats_(sizes_of(saved_.inputs)),
      output_floats_(sizes_of(saved_.outputs)) {
  saved_.words = {};
  if (!saved_.rows) {
    images_ =
        std::make_shared<Executable>(std::move(saved_.program), kernels(), usual_plan(), stores_);
    return;
  }
  int64_t floats = 0;
  for (const ImageSize& value : saved_.program.values) floats += value.floats();
  unit_ = std::max<int64_t>(1, std::min(kMostRows / saved_.rows_per_item, kMostRowFloats / floats));
}

std::shared_ptr<Executable> ProgramRuns::executable(int64_t items) {
  if (!saved_.rows) return images_;
  const Lock lock(mutex_);
  std::shared_ptr<Executable>& found = programs_[items];
  if (!found) found = made_for(items * saved_.rows_per_item);
  const std::shared_ptr<Executable> made = found;
  if (programs_.size() > kMostPrograms)
    programs_.erase(programs_.begin()->first == items ? std::next(programs_.begin())
                                                      : programs_.begin());
  return made;
}

// On the weights that another number of rows has packed, or packed anew.
std::shared_ptr<Executable> ProgramRuns::made_for(int64_t rows) const {
  for (const auto& entry : programs_)
    if (std::shared_ptr<Executable> made = entry.second ? entry.second->with_rows(rows) : nullptr)
      return made;
  Program program = saved_.program;
  for (ImageSize& value : program.values) value.height = rows;
  return std::make_shared<Executable>(std::move(program), kernels(), usual_plan(), stores_);
}

void ProgramRuns::run(const Team& team, int64_t items, const float* const* operands,
                      float* const* results) {
  const int64_t whole = items / unit_, rest = items % unit_, parts = whole + (rest > 0);
  const std::shared_ptr<Executable> all = whole > 0 ? executable(unit_) : nullptr;
  const std::shared_ptr<Executable> last = rest > 0 ? executable(rest) : nullptr;
  in_parts(team, parts, [&](int64_t part, const Team& helpers) {
    thread_local Pointers pointers;
    pointers.clear();
    const int64_t first = part * unit_;
    for (size_t i = 0; i < input_floats_.size(); i++)
      pointers.operands.push_back(operands[i] + first * input_floats_[i]);
    for (size_t i = 0; i < output_floats_.size(); i++)
      pointers.results.push_back(results[i] + first * output_floats_[i]);
    (part < whole ? all : last)
        ->run_image(helpers, pointers.operands.data(), pointers.results.data());
  });
}

}  // namespace sparsejax
