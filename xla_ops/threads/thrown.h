// What parallel loops throw: kept on the thread that it comes from, thrown again where the loop was
// begun. Built without exceptions there is nothing to keep.
#pragma once
#include <atomic>
#include <exception>

namespace sparsejax {

class Thrown {
 public:
  // Whether f returned; the first of what several threads throw is kept.
  template <class F>
  bool keep(const F& f) {
#ifdef __cpp_exceptions
    try {
      f();
    } catch (...) {
      if (!kept_.test_and_set()) error_ = std::current_exception();
      return false;
    }
#else
    f();
#endif
    return true;
  }

  // Once all threads are done; what was kept is forgotten.
  void rethrow() {
#ifdef __cpp_exceptions
    if (!error_) return;
    const std::exception_ptr error = std::move(error_);
    error_ = nullptr;
    kept_.clear();
    std::rethrow_exception(error);
#endif
  }

 private:
#ifdef __cpp_exceptions
  std::atomic_flag kept_ = ATOMIC_FLAG_INIT;
  std::exception_ptr error_;
#endif
};

}  // namespace sparsejax
