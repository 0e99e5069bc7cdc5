// What a program must be to be run safely.
#pragma once
#include "engine/program.h"

namespace sparsejax {

constexpr int64_t kMostSide = int64_t{1} << 24;  // of an image, or that a window reaches

// The first thing that is wrong. What is read after it has its lowest value, and is not used.
class Problem {
 public:
  bool need(bool condition, const char* what) { return condition || fail(what); }
  bool fail(const std::string& what) {
    if (text_.empty()) text_ = "program: " + what;
    return false;
  }
  bool found() const { return !text_.empty(); }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

// Does the step say nothing but what its kind may say?
bool check_fields(const Step& step, Problem& problem);

// All else, of a program whose steps passed check_fields.
bool check_program(const Program& program, Problem& problem);

}  // namespace sparsejax
