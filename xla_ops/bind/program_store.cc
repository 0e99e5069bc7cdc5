// See program_store.h.
#include "bind/program_store.h"

#include <map>
#include <mutex>
#include <stdexcept>

#include "kernels/kernels.h"

namespace sparsejax {
namespace {

struct Store {
  std::mutex mutex;
  std::map<std::string, std::weak_ptr<Executable>> programs;
  const std::shared_ptr<Stores> shared = std::make_shared<Stores>();
};

Store& store() {
  static Store* const store = new Store;  // executables may outlive the module's statics
  return *store;
}

void keep(const std::string& name, const std::shared_ptr<Executable>& made) {
  std::lock_guard<std::mutex> lock(store().mutex);
  auto& programs = store().programs;
  for (auto it = programs.begin(); it != programs.end();)
    it = it->second.expired() ? programs.erase(it) : std::next(it);
  programs[name] = made;
}

}  // namespace

const std::shared_ptr<Stores>& shared_stores() { return store().shared; }

std::shared_ptr<Executable> find_program(const std::string& name) {
  std::lock_guard<std::mutex> lock(store().mutex);
  const auto found = store().programs.find(name);
  return found == store().programs.end() ? nullptr : found->second.lock();
}

std::shared_ptr<Executable> load_program(const std::string& name, const int64_t* words,
                                         int64_t num_words, const float* floats, int64_t num_floats,
                                         const PlanOptions& options, const Kernels& kernels) {
  if (auto found = find_program(name)) return found;
  Program program;
  const std::string wrong = parse_program(words, num_words, {floats, floats + num_floats}, program);
  if (!wrong.empty()) throw std::invalid_argument(wrong);
  auto made = std::make_shared<Executable>(std::move(program), kernels, options, shared_stores());
  keep(name, made);
  return made;
}

std::shared_ptr<Executable> load_with_rows(const std::string& name, const Executable& program,
                                           int64_t rows) {
  if (auto found = find_program(name)) return found;
  std::shared_ptr<Executable> made = program.with_rows(rows);
  if (made) keep(name, made);
  return made;
}

}  // namespace sparsejax
