// The fields of JSON objects, each of the kind that is asked for, or else the problem is noted.
#pragma once
#include "engine/problem.h"
#include "files/codes.h"
#include "files/json.h"

namespace sparsejax {

class Fields {
 public:
  explicit Fields(Problem& problem) : problem_(problem) {}

  int64_t number(Json object, const char* name, int64_t otherwise) {
    const Json value = object.member(name);
    if (value.kind() == JsonKind::kMissing) return otherwise;
    if (!value.is_number()) complain(name, "is no whole number");
    return value.number();
  }

  // The code of a name; 0 where it is missing, if it may be.
  template <int64_t n>
  int64_t code(Json object, const char* name, const Code (&codes)[n], bool optional = true) {
    const Json value = object.member(name);
    if (value.kind() == JsonKind::kMissing && optional) return 0;
    const std::string text = value.text();
    for (const Code& code : codes)
      if (text == in_file(code.name)) return code.code;
    complain(name, "is nothing that this reader knows: '" + text + "'");
    return 0;
  }

  std::vector<int64_t> list(Json object, const char* name) {
    std::vector<int64_t> numbers;
    const JsonKind kind = object.member(name).kind();
    if (kind != JsonKind::kMissing && kind != JsonKind::kList) complain(name, "is no list");
    object.member(name).for_items([&](Json item) {
      if (!item.is_number()) complain(name, "holds what is no whole number");
      numbers.push_back(item.number());
    });
    return numbers;
  }

  // So many numbers, each `otherwise` where the list is missing.
  std::vector<int64_t> list_of(size_t count, Json object, const char* name, int64_t otherwise) {
    std::vector<int64_t> numbers = list(object, name);
    if (object.member(name).kind() == JsonKind::kMissing) numbers.assign(count, otherwise);
    if (numbers.size() != count) complain(name, "needs " + std::to_string(count) + " numbers");
    numbers.resize(count);
    return numbers;
  }

 private:
  void complain(const char* name, const std::string& what) {
    problem_.fail(std::string("'") + name + "' " + what);
  }

  Problem& problem_;
};

}  // namespace sparsejax
