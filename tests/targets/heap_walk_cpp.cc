// Walks every kind of new and delete, with exceptions thrown out of allocator calls, and frees
// across eight threads.
//
// Each site calls operator new through a function of its own: libstdc++ is built without frame
// pointers, and where only the malloc inside it is probed, the frame right above it may be missed.
#include <pthread.h>

#include <cstdint>
#include <new>

#include "ground_truth.h"

namespace {

constexpr std::align_val_t ALIGNMENT{128};
volatile size_t HUGE_SIZE = PTRDIFF_MAX - 4096;

using Release = void (*)(void *, size_t);

struct Held {
  void *block;
  size_t size;
  site *owner;
  Release release_block;
};

void release(Held &held) {
  if (held.block) {
    gave(held.owner, held.size);
    held.release_block(held.block, held.size);
  }
  held.block = nullptr;
}

void plain_delete(void *block, size_t) { operator delete(block); }
void sized_delete(void *block, size_t size) { operator delete(block, size); }
void nothrow_delete(void *block, size_t) { operator delete(block, std::nothrow); }
void aligned_delete(void *block, size_t) { operator delete(block, ALIGNMENT); }
void sized_aligned_delete(void *block, size_t size) { operator delete(block, size, ALIGNMENT); }
void array_delete(void *block, size_t) { operator delete[](block); }
void sized_array_delete(void *block, size_t size) { operator delete[](block, size); }
void aligned_array_delete(void *block, size_t) { operator delete[](block, ALIGNMENT); }

#define SITE_BY(name, call, how) SITE_OF_KIND(BLOCKS, name, call, how)
#define SITE_OF_KIND(kind, name, call, how)                        \
  SITE_OF(kind, name);                                             \
  SITE_FUNCTION void *call_of_##name(size_t size) {                \
    void *block = call;                                            \
    NOT_A_TAIL_CALL();                                             \
    return block;                                                  \
  }                                                                \
  extern "C" SITE_FUNCTION Held name(size_t size) {                \
    void *block = call_of_##name(size);                            \
    return {took(&name##_totals, block, size), size, &name##_totals, how}; \
  }

SITE_BY(site_new, operator new(size), plain_delete)
SITE_BY(site_new_sized_delete, operator new(size), sized_delete)
SITE_BY(site_new_nothrow, operator new(size, std::nothrow), nothrow_delete)
SITE_BY(site_new_aligned, operator new(size, ALIGNMENT), aligned_delete)
SITE_BY(site_new_aligned_sized_delete, operator new(size, ALIGNMENT), sized_aligned_delete)
SITE_BY(site_new_aligned_nothrow, operator new(size, ALIGNMENT, std::nothrow), aligned_delete)
SITE_BY(site_new_array, operator new[](size), array_delete)
SITE_BY(site_new_array_sized_delete, operator new[](size), sized_array_delete)
SITE_BY(site_new_array_nothrow, operator new[](size, std::nothrow), array_delete)
SITE_BY(site_new_array_aligned, operator new[](size, ALIGNMENT), aligned_array_delete)
SITE_OF_KIND(BLOCKS_AND_EXCEPTIONS, site_new_nothrow_fails,
             operator new(HUGE_SIZE + 0 * size, std::nothrow), plain_delete)
SITE_OF_KIND(BLOCKS_AND_EXCEPTIONS, site_new_throws,
             operator new(HUGE_SIZE + 0 * size), plain_delete)
SITE_OF_KIND(BLOCKS_AND_EXCEPTIONS, site_new_array_throws,
             operator new[](HUGE_SIZE + 0 * size), plain_delete)
SITE_OF_KIND(BLOCKS_AND_EXCEPTIONS, site_new_aligned_throws,
             operator new(HUGE_SIZE + 0 * size, ALIGNMENT), plain_delete)

using Allocate = Held (*)(size_t);

constexpr Allocate KINDS[] = {
    site_new,         site_new_sized_delete,         site_new_nothrow,
    site_new_aligned, site_new_aligned_sized_delete, site_new_aligned_nothrow,
    site_new_array,   site_new_array_sized_delete,   site_new_array_nothrow,
    site_new_array_aligned,
};
constexpr size_t KIND_COUNT = sizeof KINDS / sizeof *KINDS;

// The exception leaves operator new without a return; what follows must count all the same.
void must_throw(Allocate allocate) {
  try {
    allocate(0);
  } catch (const std::bad_alloc &) {
    return;
  }
  abort();
}

void walk_round(size_t round) {
  for (size_t kind = 0; kind < KIND_COUNT; kind++) {
    // Whole multiples of the alignment: aligned_alloc inside may not be asked for anything else.
    Held held = KINDS[kind](128 * (1 + (round + kind) % 9));
    if ((round + kind) % 3 != 0) release(held);
    if (round % 5 == 0) must_throw(site_new_throws);
    if (round % 7 == 0) must_throw(site_new_array_throws);
    if (round % 8 == 0) must_throw(site_new_aligned_throws);
  }
  if (site_new_nothrow_fails(0).block) abort();
  operator delete(nullptr);
}

constexpr int THREADS = 8;
constexpr size_t SLOTS = 1024;
pthread_barrier_t begin, done;
Held slots[SLOTS];
pthread_mutex_t locks[SLOTS];

void *exchange_blocks(void *seed) {
  size_t state = 0x2545f4914f6cdd1d ^ reinterpret_cast<size_t>(seed);
  pthread_barrier_wait(&begin);
  for (int i = 0; i < 5000; i++) {
    size_t random = next_random(&state);
    Held held = KINDS[random % KIND_COUNT](128 * (1 + random / 16 % 9));
    size_t slot = random >> 20 & (SLOTS - 1);
    pthread_mutex_lock(&locks[slot]);
    Held previous = slots[slot];
    slots[slot] = held;
    pthread_mutex_unlock(&locks[slot]);
    release(previous);
  }
  pthread_barrier_wait(&done);
  for (;;) pause();
  return nullptr;
}

void start_threads() {
  pthread_barrier_init(&begin, nullptr, THREADS + 1);
  pthread_barrier_init(&done, nullptr, THREADS + 1);
  for (pthread_mutex_t &lock : locks) pthread_mutex_init(&lock, nullptr);
  for (size_t i = 1; i <= THREADS; i++) {
    pthread_t thread;
    void *seed = reinterpret_cast<void *>(i * 0x1234567);
    if (pthread_create(&thread, nullptr, exchange_blocks, seed) != 0) abort();
  }
}

}  // namespace

int main() {
  start_threads();
  must_throw(site_new_throws);  // the unwinder's own first-time allocations
  say("ready");
  await_line();

  for (size_t round = 0; round < 200; round++) walk_round(round);
  pthread_barrier_wait(&begin);
  pthread_barrier_wait(&done);

  tell_truth(1);
  return 0;
}
