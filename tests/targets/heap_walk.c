// Walks every function of the malloc family through every branch, then lets eight threads free
// each other's blocks, jumps out of allocator calls in flight, and finally maps memory.
//
// Usage: heap_walk [CALLS]   calls of the eight threads together, default 200000
#define _GNU_SOURCE
#include "ground_truth.h"

#include "calls.h"
#include "jumps.h"
#include "ranges.h"
#include "threads.h"

int main(int argc, char **argv) {
  size_t calls = argc > 1 ? strtoul(argv[1], NULL, 10) : 200000;
  start_threads(calls);
  reserve_ranges();
  prepare_jumps();
  say("ready");
  await_line();

  walk_family();
  jump_out_of_calls();
  run_threads();
  walk_ranges();

  tell_truth(1);
  return 0;
}
