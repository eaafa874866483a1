// Allocates through chains of C++ functions: while an exception is on its way, where it was caught,
// from functions that are inlined several levels deep, and in a thread of the standard library.
#include <pthread.h>

#include <functional>
#include <new>
#include <thread>

#include "chain.h"

SITE(site_new);
static CALLED void site_new(size_t size) {
  FRAME;
  took_here(&site_new_totals, operator new(size), size);
}
SITE(site_new_array);
static CALLED void site_new_array(size_t size) {
  FRAME;
  size = (size + 63) / 64 * 64;  // the library would round it up
  took_here(&site_new_array_totals, operator new[](size, std::align_val_t(64)), size);
}
ALLOCATING_SITE(site_malloc)

// Allocates when it ends, whichever way that happens.
struct Guard {
  size_t size;
  CALLED explicit Guard(size_t size) : size(size) {}
  CALLED ~Guard() {
    FRAME;
    site_new(size);
  }
};

struct Oops {
  char payload[100];
};

static CALLED void throws_after(size_t frames, size_t size) {
  FRAME;
  Guard guard(size + frames);
  if (frames == 0) {
    site_malloc(size);
    throw Oops();
  }
  throws_after(frames - 1, size);
}

// While the caught exception still exists, and after it is gone.
static CALLED void catches(size_t size) {
  FRAME;
  try {
    throws_after(4, size);
  } catch (const Oops &) {
    site_new(size);
  }
  site_new_array(size);
}

// From within a handler another exception is thrown, and on through a handler that throws again.
static CALLED void throws_again(size_t size) {
  FRAME;
  try {
    throws_after(1, size);
  } catch (const Oops &) {
    site_malloc(size);
    throw;
  }
}
static CALLED void catches_twice(size_t size) {
  FRAME;
  try {
    throws_again(size);
  } catch (...) {
    catches(size);
    site_new_array(size);
  }
}

// One frame of the stack, four functions of the source: residue shows all of them.
#define INLINED static inline __attribute__((always_inline)) void
INLINED innermost(size_t size) {
  FRAME;
  site_new(size);
}
INLINED inner(size_t size) {
  FRAME;
  innermost(size + 1);
  innermost(size + 2);
}
INLINED outer(size_t size) {
  FRAME;
  inner(size);
}
static CALLED void has_all_inlined(size_t size) {
  FRAME;
  outer(size);
  site_malloc(size);
}

struct Base {
  virtual ~Base() = default;
  virtual void allocate(size_t size) = 0;
};
struct Derived final : Base {
  CALLED void allocate(size_t size) override {
    FRAME;
    site_new_array(size);
  }
};
static CALLED void calls_virtually(Base &base, size_t size) {
  FRAME;
  base.allocate(size);
}

static CALLED void walk(size_t size) {
  FRAME;
  Derived derived;
  catches(size);
  catches_twice(size);
  has_all_inlined(size);
  calls_virtually(derived, size);
}

static pthread_barrier_t begin, done;

// What the standard library does between the C library and this is in its object, and in templates
// that are compiled here.
static CALLED void walk_in_a_thread() {
  ENTER("module:libstdc++.so.6*");
  ENTER("module:chains_cpp*");
  FRAME;
  pthread_barrier_wait(&begin);
  for (size_t i = 0; i < 20; i++) walk(100 + i);
  pthread_barrier_wait(&done);
  // A thread that ends releases memory of its own.
  for (;;) pause();
}

int main() {
  FRAME;
  pthread_barrier_init(&begin, nullptr, 2);
  pthread_barrier_init(&done, nullptr, 2);
  std::thread([] {
    walk_in_a_thread();
    NOT_A_TAIL_CALL();
  }).detach();
  say("ready");
  await_line();
  pthread_barrier_wait(&begin);
  for (size_t i = 0; i < 20; i++) walk(100 + i);
  pthread_barrier_wait(&done);
  tell_chains();
  _exit(0);
}
