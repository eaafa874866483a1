// Every allocator function of the C library, one site a branch.
#pragma once
#include <errno.h>
#include <malloc.h>
#include <stdint.h>

// A volatile size keeps the compiler from knowing, and refusing, what the call will be.
static volatile size_t HUGE_SIZE = PTRDIFF_MAX - 4096;

struct held {
  void *block;
  size_t size;
  struct site *site;
};

static struct held hold(struct site *site, void *block, size_t size) {
  return (struct held){took(site, block, size), size, site};
}

static void release(struct held *held) {
  if (held->block) {
    gave(held->site, held->size);
    free(held->block);
  }
  held->block = NULL;
}

#define ALLOCATING(name, call)                                     \
  SITE(name);                                                      \
  static SITE_FUNCTION struct held name(size_t size) {             \
    return hold(&name##_totals, call, size);                       \
  }

ALLOCATING(site_malloc, malloc(size))
ALLOCATING(site_calloc, calloc(1, size))
ALLOCATING(site_realloc_of_null, realloc(NULL, size))
ALLOCATING(site_aligned_alloc, aligned_alloc(64, size))
ALLOCATING(site_memalign, memalign(256, size))
ALLOCATING(site_valloc, valloc(size))
ALLOCATING(site_reallocarray_of_null, reallocarray(NULL, size, 1))
#ifdef __GLIBC__
ALLOCATING(site_pvalloc, pvalloc(size))
#endif

// Failing calls: each must give NULL, and count nothing.
ALLOCATING(site_malloc_fails, malloc(HUGE_SIZE))
ALLOCATING(site_calloc_overflows, calloc(HUGE_SIZE, 16))
ALLOCATING(site_reallocarray_overflows, reallocarray(NULL, HUGE_SIZE, 16))
ALLOCATING(site_aligned_alloc_fails, aligned_alloc(64, HUGE_SIZE / 64 * 64))

SITE(site_calloc_many);
static SITE_FUNCTION struct held site_calloc_many(size_t count, size_t size) {
  return hold(&site_calloc_many_totals, calloc(count, size), count * size);
}

SITE(site_posix_memalign);
static SITE_FUNCTION struct held site_posix_memalign(size_t alignment, size_t size) {
  void *block = NULL;
  int result = posix_memalign(&block, alignment, size);
  return hold(&site_posix_memalign_totals, result == 0 ? block : NULL, size);
}

// The out-pointer is left as it was when the call fails: a stale block there must not be counted.
SITE(site_posix_memalign_fails);
static SITE_FUNCTION void site_posix_memalign_fails(void *stale) {
  void *block = stale;
  if (posix_memalign(&block, 3, 100) != EINVAL) abort();
  if (posix_memalign(&block, 64, HUGE_SIZE) != ENOMEM) abort();
  NOT_A_TAIL_CALL();
}

#define REALLOCATING(name, call, new_size)                         \
  SITE(name);                                                      \
  static SITE_FUNCTION struct held name(struct held old, size_t size) { \
    struct held new = hold(&name##_totals, call, new_size);        \
    gave(old.site, old.size);                                      \
    return new;                                                    \
  }

REALLOCATING(site_realloc_grow, realloc(old.block, size), size)
REALLOCATING(site_realloc_shrink, realloc(old.block, size), size)
REALLOCATING(site_realloc_move, realloc(old.block, size), size)
REALLOCATING(site_realloc_same, realloc(old.block, size), size)
REALLOCATING(site_reallocarray, reallocarray(old.block, size, 3), size * 3)
// glibc frees and returns NULL; musl returns a block of zero bytes.
REALLOCATING(site_realloc_to_zero, realloc(old.block, size), size)

// A reallocation that fails leaves the old block where it was, with its old owner.
SITE(site_realloc_fails);
static SITE_FUNCTION void site_realloc_fails(void *block) {
  if (realloc(block, HUGE_SIZE)) abort();
  if (reallocarray(block, HUGE_SIZE, 16)) abort();
  NOT_A_TAIL_CALL();
}

static void walk_failures(struct held *old) {
  site_malloc_fails(0);
  site_calloc_overflows(0);
  site_reallocarray_overflows(0);
  site_aligned_alloc_fails(0);
  site_posix_memalign_fails(old->block);
  site_realloc_fails(old->block);
  free(NULL);
}

static void walk_reallocations(size_t round) {
  struct held block = site_malloc(100 + round);
  struct held neighbour = site_malloc(100);  // in the way of growing in place
  block = site_realloc_grow(block, 3000 + round);
  block = site_realloc_same(block, 3000 + round);
  block = site_realloc_shrink(block, 40 + round);
  block = site_realloc_move(block, 300000 + round);  // over the mmap threshold: always moves
  block = site_realloc_move(block, 700000 + round);  // and moves by mremap
  block = site_realloc_shrink(block, 500 + round);
  block = site_reallocarray(block, 77 + round);
  if (round % 3 == 0) release(&block);
  if (round % 2 == 0) release(&neighbour);

  struct held doomed = site_malloc(64);
  struct held nothing = site_realloc_to_zero(doomed, 0);
  if (round % 4 == 0) release(&nothing);
}

// One call of each kind, each held in some rounds and released in the others.
static void walk_round(size_t round) {
  struct held blocks[] = {
      site_malloc(1 + round * 13),
      site_malloc(0),
      site_calloc(24 + round),
      site_calloc_many(3 + round, 17),
      site_calloc_many(0, 17),
      site_realloc_of_null(50 + round),
      site_posix_memalign(sizeof(void *), 10 + round),
      site_posix_memalign(4096, 100 + round),
      site_aligned_alloc(64 * (1 + round % 5)),
      site_memalign(333 + round),
      site_valloc(5000 + round),
      site_reallocarray_of_null(91 + round),
      site_malloc(200000 + round),  // by mmap
#ifdef __GLIBC__
      site_pvalloc(4097 + round),
#endif
  };
  walk_failures(&blocks[0]);
  walk_reallocations(round);
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
    if ((round + i) % 3 != 0) release(&blocks[i]);
  }
}

static void walk_family(void) {
  for (size_t round = 0; round < 100; round++) walk_round(round);
}
