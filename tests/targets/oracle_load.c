// Allocates from as many different stacks as it can, until it is killed. Nothing is counted here:
// what matters is how the stacks look.
//
// Functions of many shapes: with few and many saved registers, small and large frames, frames whose
// size is known only at run time, realigned stacks, tail calls, calls through pointers, callbacks
// through the C library, and recursion of random depth. Each thread does all of it.
#include <alloca.h>
#include <pthread.h>
#include <search.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define APART __attribute__((noinline, noclone))

struct load {
  uint64_t random;
  unsigned depth;
};

static uint64_t next(struct load *load) {
  load->random ^= load->random << 13;
  load->random ^= load->random >> 7;
  load->random ^= load->random << 17;
  return load->random;
}

typedef uint64_t (*shape)(struct load *, uint64_t);
static uint64_t descend(struct load *load, uint64_t value);

// A leaf asks for memory and gives it back; the stack behind it is what is looked at.
APART static uint64_t allocate(struct load *load, uint64_t value) {
  size_t size = 16 + next(load) % 400;
  char *block;
  switch (value % 4) {
    case 0: block = calloc(1, size); break;
    case 1: block = realloc(malloc(size), size * 2); break;
    case 2: block = aligned_alloc(64, (size + 63) & ~(size_t)63); break;
    default: block = malloc(size);
  }
  if (!block) abort();
  block[0] = (char)value;
  value += (uint64_t)(unsigned char)*(volatile char *)block;
  free(block);
  return value;
}

APART static uint64_t few_registers(struct load *load, uint64_t value) {
  return descend(load, value + 1) + 1;
}

// All registers that a callee has to save hold something over the calls.
APART static uint64_t many_registers(struct load *load, uint64_t value) {
  uint64_t a = next(load), b = next(load), c = next(load), d = next(load), e = next(load);
  uint64_t sum = descend(load, value ^ a);
  sum += allocate(load, sum ^ b) * c;
  return sum + (a ^ b) + (c & d) + (e | a) + allocate(load, d ^ e);
}

APART static uint64_t large_frame(struct load *load, uint64_t value) {
  volatile char space[3000];
  space[value % sizeof space] = (char)value;
  uint64_t sum = descend(load, value);
  return sum + (uint64_t)space[value % sizeof space];
}

// The size of the frame is known only at run time: this needs a frame pointer.
APART static uint64_t dynamic_frame(struct load *load, uint64_t value) {
  volatile char *space = alloca(32 + value % 500);
  space[value % 32] = 1;
  return descend(load, value) + (uint64_t)space[value % 32];
}

APART static uint64_t variable_array(struct load *load, uint64_t value) {
  volatile uint64_t numbers[1 + value % 40];
  numbers[0] = value;
  uint64_t sum = allocate(load, value);
  return sum + descend(load, value) + numbers[0];
}

APART static uint64_t realigned(struct load *load, uint64_t value) {
  volatile char space[64] __attribute__((aligned(64)));
  space[value % sizeof space] = 1;
  return descend(load, value) + (uint64_t)space[value % sizeof space];
}

// Realigned, with arguments on the stack: the frame keeps a pointer to them.
APART static uint64_t realigned_with_arguments(uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                                               uint64_t e, struct load *load, uint64_t value,
                                               uint64_t last) {
  volatile char space[128] __attribute__((aligned(128)));
  space[value % sizeof space] = (char)last;
  return descend(load, value) + a + b + c + d + e + last + (uint64_t)space[value % sizeof space];
}

APART static uint64_t many_arguments(struct load *load, uint64_t value) {
  uint64_t a = next(load), b = next(load);
  return realigned_with_arguments(a, b, a ^ b, a + b, a - b, load, value, a | b);
}

APART static uint64_t tail_call(struct load *load, uint64_t value) {
  return descend(load, value * 3);
}

// The call is on a path that returns early, behind a part of the prologue (shrink-wrapping).
APART static uint64_t early_exit(struct load *load, uint64_t value) {
  if (value % 3 == 0) return allocate(load, value);
  uint64_t a = next(load), sum = 0;
  for (uint64_t i = 0; i < value % 3; i++) sum += descend(load, a + i) ^ a;
  return sum;
}

APART static uint64_t jump_table(struct load *load, uint64_t value) {
  switch (value % 8) {
    case 0: return allocate(load, value) + 1;
    case 1: return descend(load, value >> 3) * 5;
    case 2: return few_registers(load, value) - 3;
    case 3: return large_frame(load, value) ^ 9;
    case 4: return allocate(load, next(load)) + allocate(load, value);
    case 5: return dynamic_frame(load, value) + 8;
    case 6: return realigned(load, value) | 1;
    default: return tail_call(load, value);
  }
}

// The comparison asks for memory, below the C library's sort, which has no frame pointers.
static __thread struct load *sorting;

static int compare(const void *left, const void *right) {
  uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
  if ((a ^ b) % 5 == 0) allocate(sorting, a);
  return a < b ? -1 : a > b;
}

APART static uint64_t sort(struct load *load, uint64_t value) {
  uint64_t numbers[24];
  for (size_t i = 0; i < 24; i++) numbers[i] = next(load);
  sorting = load;
  qsort(numbers, 2 + value % 22, sizeof *numbers, compare);
  return numbers[0];
}

APART static uint64_t search(struct load *load, uint64_t value) {
  uint64_t numbers[16];
  for (size_t i = 0; i < 16; i++) numbers[i] = i * 16;
  sorting = load;
  uint64_t key = value % 256;
  return bsearch(&key, numbers, 16, sizeof *numbers, compare) != NULL;
}

static void ignore(void *node) { (void)node; }

APART static uint64_t tree(struct load *load, uint64_t value) {
  void *root = NULL;
  uint64_t numbers[8];
  sorting = load;
  for (size_t i = 0; i < 8; i++) {
    numbers[i] = next(load) ^ value;
    tsearch(&numbers[i], &root, compare);
  }
  tdestroy(root, ignore);
  return numbers[0];
}

// The C library asks for memory itself.
APART static uint64_t library(struct load *load, uint64_t value) {
  char *text = NULL, *copy = strdup("a text that is copied");
  if (asprintf(&text, "%llu %s", (unsigned long long)value, copy) < 0) abort();
  FILE *memory = fmemopen(NULL, 64 + next(load) % 64, "w");
  if (memory) fclose(memory);
  value += strlen(text);
  free(text);
  free(copy);
  return value;
}

static const shape shapes[] = {allocate,       few_registers, many_registers, large_frame,
                               dynamic_frame,  variable_array, realigned,     many_arguments,
                               tail_call,      early_exit,    jump_table,     sort,
                               search,         tree,          library};
enum { SHAPES = sizeof shapes / sizeof *shapes };

APART static uint64_t descend(struct load *load, uint64_t value) {
  if (load->depth == 0) return allocate(load, value);
  load->depth--;
  uint64_t sum = shapes[next(load) % SHAPES](load, value);
  return sum ^ load->random;
}

static void *work(void *seed) {
  struct load load = {0x9e3779b97f4a7c15 ^ (uint64_t)(uintptr_t)seed, 0};
  for (uint64_t round = 0;; round++) {
    load.depth = next(&load) % 24;
    descend(&load, round);
    // Much faster, and the load would be all of a small machine.
    if (round % 64 == 0) usleep(200);
  }
  return NULL;
}

int main(void) {
  for (uintptr_t seed = 1; seed < 4; seed++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, (void *)(seed * 0x1234567)) != 0) abort();
  }
  puts("ready");
  fflush(stdout);
  work(NULL);
}
