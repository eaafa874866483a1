// Which functions are under way, so that a site knows the whole chain of its callers.
//
// Each thread notes the functions that it is in, on a stack beside the real one. Wherever a site
// takes a block, that list is the truth for residue's stack, in all its frames. Entries that are no
// function of the program say what is expected instead; see tests/src/chains.rs.
//
// What is here runs in signal handlers too, and allocates nothing.
#pragma once
#include "ground_truth.h"

enum { MOST_CALLS = 1024, MOST_CHAINS = 2048 };

// Neither inlined, nor cloned, nor changed by what its callers are.
#define CALLED __attribute__((noipa))

// Makes a local array part of the frame, at the call that stands before.
#define KEEPS(array) __asm__ volatile("" ::"r"(array) : "memory")

// A signal handler may look at any time, so the compiler may not put it off.
#define NOTED() __asm__ volatile("" ::: "memory")

static __thread const char *calls[MOST_CALLS];
static __thread size_t depth;

static inline size_t enter(const char *function) {
  if (depth == MOST_CALLS) abort();
  calls[depth] = function;
  size_t entered_at = depth++;
  NOTED();
  return entered_at;
}

// Back to where it was, even if functions further in were left by a jump.
static inline void leave(const size_t *entered_at) {
  depth = *entered_at;
  NOTED();
}

#define JOIN_AGAIN(a, b) a##b
#define JOIN(a, b) JOIN_AGAIN(a, b)
// Until the end of the block. What has to be done there keeps the last call from being a jump.
#define ENTER(what) \
  __attribute__((cleanup(leave), unused)) const size_t JOIN(entered_at_, __COUNTER__) = enter(what)
#define FRAME ENTER(__func__)

static struct chain {
  const char *frames[MOST_CALLS];
  size_t length, bytes, objects;
} chains[MOST_CHAINS];
static size_t chain_count;
static char chains_locked;

static inline int is_current(const struct chain *chain) {
  return chain->length == depth && memcmp(chain->frames, calls, depth * sizeof *calls) == 0;
}

static inline struct chain *current_chain(void) {
  for (size_t i = 0; i < chain_count; i++) {
    if (is_current(&chains[i])) return &chains[i];
  }
  if (chain_count == MOST_CHAINS) abort();
  struct chain *chain = &chains[chain_count++];
  memcpy(chain->frames, calls, depth * sizeof *calls);
  chain->length = depth;
  return chain;
}

// A site got a block, through the calls that are under way. NULL ends the target.
static inline void *took_here(struct site *site, void *block, size_t size) {
  if (!took(site, block, size)) abort();
  while (__atomic_test_and_set(&chains_locked, __ATOMIC_ACQUIRE)) {
  }
  struct chain *chain = current_chain();
  chain->bytes += size;
  chain->objects++;
  __atomic_clear(&chains_locked, __ATOMIC_RELEASE);
  return block;
}

// A site of its own for each place that is to be told apart.
#define ALLOCATING_SITE(name)                                      \
  SITE(name);                                                      \
  static CALLED void *name(size_t size) {                          \
    FRAME;                                                         \
    return took_here(&name##_totals, malloc(size), size);          \
  }

static inline void put_chain(const struct chain *chain) {
  char text[128];
  put("{\"frames\":[", 11);
  for (size_t i = chain->length; i-- > 0;) {
    put(text, (size_t)snprintf(text, sizeof text, "\"%s\"%s", chain->frames[i], i ? "," : ""));
  }
  put(text, (size_t)snprintf(text, sizeof text, "],\"bytes\":%zu,\"objects\":%zu}", chain->bytes,
                             chain->objects));
}

// As tell_truth, with the chains.
static inline void tell_chains(void) {
  put("{\"chains\":[", 11);
  for (size_t i = 0; i < chain_count; i++) {
    if (i > 0) put(",", 1);
    put_chain(&chains[i]);
  }
  put("],\"sites\":{", 11);
  put_sites(0);
  say("},\"mappings\":{},\"checksum\":\"right\"}");
  say("barrier");
  await_line();
}
