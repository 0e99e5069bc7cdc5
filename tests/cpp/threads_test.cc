// What threads share: parallel loops, teams, pools that fail, scratch memory.
#include <atomic>
#include <stdexcept>

#include "testing.h"
#include "threads/scratch.h"
#include "threads/team.h"

namespace sparsejax::test {
namespace {

void test_parallel_for() {
  for (int64_t n : {0, 1, 2, 7, 1000}) {
    std::vector<std::atomic<int>> times(n);
    Threads threads;
    parallel_for(threads.pool(4), n, [&](int64_t i) { times[i]++; });
    for (int64_t i = 0; i < n; i++) expect(times[i] == 1, "each item runs once");
  }
  int64_t sum = 0;  // a pool that never helps
  parallel_for(ThreadPool{4, [](std::function<void()>) {}}, 10, [&](int64_t i) { sum += i; });
  expect(sum == 45, "the caller does the work alone");
  // Rounding upwards stands for any mode: 1 + 1e-9 is 1 in the mode that threads begin with.
  const uint64_t before = float_mode();
#if defined(__x86_64__)
  set_float_mode((before & ~uint64_t{0x6000}) | 0x4000);
#else
  set_float_mode((before & ~uint64_t{0xc00000}) | 0x400000);
#endif
  std::atomic<int> rounded_up{0};
  volatile float tiny = 1e-9f;
  Threads threads;
  parallel_for(threads.pool(4), 100, [&](int64_t) { rounded_up += 1.f + tiny > 1.f; });
  threads.join();
  set_float_mode(before);
  expect(rounded_up == 100, "helpers round as their caller does");
}

// A pool of four whose third task is refused; the tasks before it run, late.
struct Failing {
  Threads threads;
  int64_t scheduled = 0;
  ThreadPool pool() {
    return {4, [this, good = threads.pool(4)](std::function<void()> task) {
              if (++scheduled == 3) throw std::runtime_error("no more threads");
              good.schedule(std::move(task));
            }};
  }
};

template <class F>
int64_t count_thrown(const F& f) {
  try {
    f();
  } catch (const std::runtime_error&) {
    return 1;
  }
  return 0;
}

void test_schedule_that_throws() {
  for (int64_t trial = 0; trial < 50; trial++) {
    Failing failing;
    {
      std::vector<std::atomic<int>> times(1000);  // gone before the helpers are
      const int64_t thrown =
          count_thrown([&] { parallel_for(failing.pool(), 1000, [&](int64_t i) { times[i]++; }); });
      expect(thrown == 1, "parallel_for reports a schedule that throws");
      for (const auto& time : times) expect(time <= 1, "no item runs twice");
    }
    expect(count_thrown([&] {
             failing.scheduled = 0;
             const Team team(failing.pool());
           }) == 1,
           "a team reports a schedule that throws");
    failing.threads.join();  // ends when all helpers went home
  }
}

void test_items_that_throw() {
  Threads threads;
  std::atomic<int> times{0};
  const auto item = [&](int64_t) {
    times++;
    throw std::runtime_error("an item");
  };
  expect(count_thrown([&] { parallel_for(threads.pool(3), 20, item); }) == 1, "thrown once");
  const Team team(threads.pool(3));
  for (int64_t loop = 0; loop < 2; loop++)
    expect(count_thrown([&] { team.for_each(20, item); }) == 1, "thrown once in each loop");
  expect(times == 60, "all items are begun, whatever they throw");
}

// A full queue runs tasks on the thread that schedules them.
void test_pool_that_runs_at_once() {
  const ThreadPool pool = {4, [](std::function<void()> task) { task(); }};
  int64_t sum = 0;
  parallel_for(pool, 10, [&](int64_t i) { sum += i; });
  const Team team(pool);
  team.for_each(10, [&](int64_t i) { sum += i; });
  expect(sum == 90, "tasks that run at once");
}

void test_scratch_is_bounded() {
  for (int64_t floats : {int64_t{0}, int64_t{100}, Scratch::kKept, 64 * Scratch::kKept}) {
    const Scratch memory(floats);
    expect(reinterpret_cast<uintptr_t>(memory.data()) % 64 == 0, "scratch is aligned");
    if (floats > 0) memory.data()[0] = memory.data()[floats - 1] = 1;
    const Scratch nested(floats);
    if (floats > 0) nested.data()[0] = nested.data()[floats - 1] = 2;
    expect(floats == 0 || memory.data()[0] == 1, "nested scratch is its own");
    expect(Scratch::kept_floats() <= Scratch::kKept, "a thread keeps no more than its bound");
  }
}

void test_threads() {
  test_parallel_for();
  test_schedule_that_throws();
  test_items_that_throw();
  test_pool_that_runs_at_once();
  test_scratch_is_bounded();
}

const Test threads(test_threads);

}  // namespace
}  // namespace sparsejax::test
