// What the C++ library asks of a system with threads: there is one, which never ends.
extern "C" int __cxa_thread_atexit(void (*)(void*), void*, void*) { return 0; }
