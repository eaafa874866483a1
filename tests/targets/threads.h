// Eight threads that release each other's blocks.
#pragma once
#include <pthread.h>

#include "calls.h"

enum { THREADS = 8, SLOTS = 4096 };

// Where threads leave blocks for one another. Each slot has its own lock, a word that spins: a
// mutex or queue of the C library might allocate.
static struct slot {
  char locked;
  struct held held;
} slots[SLOTS];

static pthread_barrier_t begin, done;
static size_t calls_a_thread;

static struct held allocate_somehow(size_t random) {
  size_t size = 1 + random / 8 % 2000;
  switch (random % 8) {
    case 0: return site_calloc(size);
    case 1: return site_realloc_of_null(size);
    case 2: return site_posix_memalign(32, size);
    case 3: return site_realloc_grow(site_malloc(size), size * 2);
    case 4: return site_realloc_shrink(site_malloc(size * 2), size);
    default: return site_malloc(size);
  }
}

static struct held swap(struct slot *slot, struct held held) {
  while (__atomic_test_and_set(&slot->locked, __ATOMIC_ACQUIRE)) {
  }
  struct held previous = slot->held;
  slot->held = held;
  __atomic_clear(&slot->locked, __ATOMIC_RELEASE);
  return previous;
}

static void *exchange_blocks(void *seed) {
  size_t state = 0x9e3779b97f4a7c15 ^ (size_t)seed;
  pthread_barrier_wait(&begin);
  for (size_t i = 0; i < calls_a_thread; i++) {
    size_t random = next_random(&state);
    struct held previous = swap(&slots[random >> 20 & (SLOTS - 1)], allocate_somehow(random));
    release(&previous);
  }
  pthread_barrier_wait(&done);
  // A thread that ends releases memory of its own; none may do so before the barrier.
  for (;;) pause();
  return NULL;
}

// Starting a thread allocates, so it is done before the recording.
static void start_threads(size_t calls) {
  calls_a_thread = calls / THREADS;
  pthread_barrier_init(&begin, NULL, THREADS + 1);
  pthread_barrier_init(&done, NULL, THREADS + 1);
  for (size_t i = 1; i <= THREADS; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, exchange_blocks, (void *)(i * 0x1234567)) != 0) abort();
  }
}

static void run_threads(void) {
  pthread_barrier_wait(&begin);
  pthread_barrier_wait(&done);
}
