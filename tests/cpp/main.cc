// Runs the tests that it is linked with on every instruction set that was built and that this CPU
// has.
#include "testing.h"

int main() {
  using namespace sparsejax;
  test::expect(!test::Test::all().empty(), "there are tests");
  test::expect(!use("none"), "an unknown instruction set is refused");
  for (const test::Test& test : test::Test::all())
    if (test.once) test.once();
  for (const Kernels& set : usable_kernels()) {
    use(set.isa);
    for (const test::Test& test : test::Test::all())
      if (test.on_each) test.on_each(set);
    std::printf("%s: %d failures\n", set.isa, test::failures);
  }
  return test::failures != 0;
}
