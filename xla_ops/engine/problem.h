// What is wrong with a program or a file, in one sentence.
#pragma once
#include <string>

namespace sparsejax {

// The first thing that is wrong. What is read after it has its lowest value, and is not used.
class Problem {
 public:
  explicit Problem(const char* where) : where_(where) {}
  bool need(bool condition, const char* what) { return condition || fail(what); }
  bool fail(const std::string& what) {
    if (text_.empty()) text_ = where_ + (": " + what);
    return false;
  }
  bool found() const { return !text_.empty(); }
  const std::string& text() const { return text_; }

 private:
  const char* where_;
  std::string text_;
};

}  // namespace sparsejax
