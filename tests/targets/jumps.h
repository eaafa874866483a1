// Jumps out of an allocator call in flight, so that it never returns.
//
// posix_memalign writes its result through the out-pointer after it has taken the block. With an
// out-pointer on a read-only page that write faults; the handler of SIGSEGV jumps out of the call.
// The block is lost to everyone: nobody holds it, and nobody may be said to hold it.
#pragma once
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include "calls.h"

// Makes a local array part of the frame, so that frames lie well apart.
#define KEEPS(array) __asm__ volatile("" ::"r"(array) : "memory")

static void **read_only_page;
static sigjmp_buf outside;

static void jump_out(int signal) {
  (void)signal;
  siglongjmp(outside, 1);
}

static void prepare_jumps(void) {
  read_only_page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (read_only_page == MAP_FAILED) abort();
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = jump_out;
  sigaction(SIGSEGV, &action, NULL);
}

SITE(site_abandoned);
static SITE_FUNCTION void site_abandoned(void) {
  posix_memalign(read_only_page, 64, 48);
  abort();  // the out-pointer cannot be written
}

#pragma GCC diagnostic ignored "-Winfinite-recursion"  // it ends, by siglongjmp
// Abandons a call `depth` frames further down the stack.
static SITE_FUNCTION void abandon_below(size_t depth) {
  char frame[64];
  KEEPS(frame);
  if (depth == 0)
    site_abandoned();
  else
    abandon_below(depth - 1);
  NOT_A_TAIL_CALL();
}

SITE(site_after_jump);
static SITE_FUNCTION struct held site_after_jump(size_t size) {
  return hold(&site_after_jump_totals, malloc(size), size);
}

// The same, `depth` frames further down: below the abandoned call, where an inner call would be.
static SITE_FUNCTION struct held allocate_below(size_t depth, size_t size) {
  char frame[64];
  KEEPS(frame);
  struct held held = depth == 0 ? site_after_jump(size) : allocate_below(depth - 1, size);
  NOT_A_TAIL_CALL();
  return held;
}

static SITE_FUNCTION void abandon(size_t depth) {
  if (sigsetjmp(outside, 1) == 0) abandon_below(depth);
}

static void jump_out_of_calls(void) {
  for (size_t round = 0; round < 300; round++) {
    abandon(round % 7);
    struct held same = site_after_jump(10 + round);
    struct held above_or_below = allocate_below(round % 11, 20 + round);
    if (round % 5 == 0) {  // several abandoned calls on top of each other
      for (size_t depth = 0; depth < 12; depth++) abandon(depth);
      struct held after = allocate_below(14, 30 + round);
      if (round % 2 == 0) release(&after);
    }
    if (round % 2 == 0) release(&same);
    if (round % 3 == 0) above_or_below = site_realloc_grow(above_or_below, 400 + round);
    if (round % 4 == 0) release(&above_or_below);
  }
}
