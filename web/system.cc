// What the C++ library asks of a system.
#include <__verbose_abort>
#include <cstdlib>
#include <new>

#include "threads/team.h"

// With threads: there is one, which never ends.
extern "C" int __cxa_thread_atexit(void (*)(void*), void*, void*) { return 0; }

// To print why it ends, which takes 20 KB; network.js says what it can.
void std::__libcpp_verbose_abort(const char*, ...) noexcept { __builtin_trap(); }

#if SPARSEJAX_SHARED_MEMORY
// The library's own malloc is for one thread; what helpers allocate comes from here, too.
namespace {
sparsejax::Mutex allocating;
}

void* operator new(size_t size) {
  void* memory;
  {
    const sparsejax::Lock lock(allocating);
    memory = std::malloc(size ? size : 1);
  }
  if (!memory) __builtin_trap();
  return memory;
}
void operator delete(void* memory) noexcept {
  const sparsejax::Lock lock(allocating);
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept { operator delete(memory); }

// What another thread's instance of the module does from then on.
extern "C" __attribute__((export_name("sparsejax_help"))) void sparsejax_help() {
  sparsejax::Helpers::all().help();
}

// The same instance says so when it met a fault.
extern "C" __attribute__((export_name("sparsejax_failed"))) void sparsejax_failed() {
  sparsejax::Helpers::all().fail();
}
#endif
