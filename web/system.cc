// What the C++ library asks of a system.
#include <__verbose_abort>

// With threads: there is one, which never ends.
extern "C" int __cxa_thread_atexit(void (*)(void*), void*, void*) { return 0; }

// To print why it ends, which takes 20 KB; network.js says what it can.
void std::__libcpp_verbose_abort(const char*, ...) noexcept { __builtin_trap(); }
