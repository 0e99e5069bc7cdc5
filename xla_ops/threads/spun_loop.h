// The loop that threads share by spinning.
#pragma once
#include <atomic>
#include <cstdint>

#include "threads/machine.h"
#include "threads/thrown.h"

namespace sparsejax {

// The loop that is under way is one word, so that an item that was claimed can never be taken for
// one of a later loop: its number | items << 20 | next item. Who claims an item below the number
// of items knows that the caller waits for it, and may read the rest.
class SpunLoop {
 public:
  static constexpr int64_t kMost = (int64_t{1} << 20) - (1 << 16);  // items of a loop

  std::atomic<uint64_t> word{0};
  std::atomic<int64_t> done{0};
  std::atomic<bool> finished{false};
  const void* function = nullptr;
  void (*call)(const void*, int64_t) = nullptr;
  Thrown thrown;

  static constexpr int kBits = 20;  // of the number of items, and of the next one
  static int64_t next(uint64_t w) { return static_cast<int64_t>(w & ((1u << kBits) - 1)); }
  static int64_t items(uint64_t w) { return next(w >> kBits); }

  // Does one item if there is one.
  bool take() {
    uint64_t w = word.load(std::memory_order_acquire);
    if (next(w) >= items(w)) return false;
    w = word.fetch_add(1, std::memory_order_acq_rel);
    if (next(w) >= items(w)) return false;
    thrown.keep([&] { call(function, next(w)); });
    done.fetch_add(1, std::memory_order_acq_rel);
    return true;
  }

  void help() {
    for (int64_t idle = 0; !finished.load(std::memory_order_acquire);)
      idle = take() ? 0 : rest(idle);
  }

  // Spins for a little, then lets others run between two looks.
  static int64_t rest(int64_t idle) {
    if (idle < 200) {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#elif defined(__aarch64__)
      __asm__ volatile("yield");
#endif
    } else {
      let_others_run();
    }
    return idle + 1;
  }

  void run(int64_t n, const void* f, void (*g)(const void*, int64_t)) {
    function = f;
    call = g;
    done.store(0, std::memory_order_relaxed);
    const uint64_t loop = (word.load(std::memory_order_relaxed) >> (2 * kBits)) + 1;
    word.store(loop << (2 * kBits) | static_cast<uint64_t>(n) << kBits, std::memory_order_release);
    while (take()) {
    }
    for (int64_t idle = 0; done.load(std::memory_order_acquire) < n;) idle = rest(idle);
    thrown.rethrow();
  }
};

}  // namespace sparsejax
