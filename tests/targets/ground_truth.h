// What a target knows of its own memory, by the function that asked for it.
//
// The protocol, one line each way:
//   target  "ready"        everything that is not part of the test is allocated and mapped
//   harness (any line)     residue is attached: begin
//   target  {"sites":…}    what the target holds, by site
//   target  "barrier"      nothing changes from here on
//   harness (any line)     residue has stopped: exit
//
// Nothing here allocates: a line is formatted in a static buffer and written by write(2). A site is
// a function whose name begins with site_; the harness finds it in residue's stacks by that name.
#pragma once
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Kept out of line, not cloned, and with its name as it stands: it must be one frame of the stack.
#define SITE_FUNCTION __attribute__((noinline, noclone))

// Keeps the call before it from becoming a jump, which would take its caller off the stack.
#define NOT_A_TAIL_CALL() __asm__ volatile("" ::: "memory")

enum kind {
  BLOCKS,
  // Blocks, but what the site ever got is not known: a call that throws allocates its exception.
  BLOCKS_AND_EXCEPTIONS,
  // Memory mappings, which are listed apart.
  MAPPINGS,
};

struct site {
  const char *name;
  size_t kind;
  // Requested bytes (mappings: whole pages), and how many blocks.
  size_t bytes, objects;
  // The same, of everything it ever got.
  size_t allocated_bytes, allocated_objects;
} __attribute__((aligned(64)));

// The linker gathers all sites of a program between these two symbols.
extern struct site __start_sites[], __stop_sites[];

#define IN_SITES __attribute__((section("sites"), used))
#define SITE_OF(kind, function) \
  static struct site function##_totals IN_SITES = {#function, kind, 0, 0, 0, 0}
#define SITE(function) SITE_OF(BLOCKS, function)
#define MAPPING_SITE(function) SITE_OF(MAPPINGS, function)

static inline void add_to(size_t *total, size_t amount) {
  __atomic_fetch_add(total, amount, __ATOMIC_RELAXED);
}

// A site got a block. NULL is none.
static inline void *took(struct site *site, void *block, size_t size) {
  NOT_A_TAIL_CALL();
  if (block) {
    add_to(&site->bytes, size);
    add_to(&site->objects, 1);
    add_to(&site->allocated_bytes, size);
    add_to(&site->allocated_objects, 1);
  }
  return block;
}

// A block of the site was released, by anyone.
static inline void gave(struct site *site, size_t size) {
  add_to(&site->bytes, -size);
  add_to(&site->objects, (size_t)-1);
}

static inline void put(const char *text, size_t length) {
  while (length > 0) {
    ssize_t written = write(STDOUT_FILENO, text, length);
    if (written <= 0) _exit(3);
    text += written;
    length -= (size_t)written;
  }
}

static inline void say(const char *line) {
  put(line, strlen(line));
  put("\n", 1);
}

// Reads one line into `line`; 0 when standard input is closed.
static inline int hear(char *line, size_t capacity) {
  size_t length = 0;
  char byte;
  while (read(STDIN_FILENO, &byte, 1) == 1) {
    if (byte == '\n') {
      line[length] = 0;
      return 1;
    }
    if (length + 1 < capacity) line[length++] = byte;
  }
  return 0;
}

// Waits for the harness; ends the target when the harness is gone.
static inline void await_line(void) {
  char line[64];
  if (!hear(line, sizeof line)) _exit(0);
}

static inline void put_site(const struct site *site) {
  char text[512];
  int length = snprintf(text, sizeof text, "\"%s\":{\"bytes\":%zu,\"objects\":%zu", site->name,
                        site->bytes, site->objects);
  if (site->kind == BLOCKS) {
    length += snprintf(text + length, sizeof text - (size_t)length,
                       ",\"allocated_bytes\":%zu,\"allocated_objects\":%zu",
                       site->allocated_bytes, site->allocated_objects);
  }
  put(text, (size_t)length);
  put("}", 1);
}

static inline void put_sites(int mappings) {
  int first = 1;
  for (const struct site *site = __start_sites; site < __stop_sites; site++) {
    if ((site->kind == MAPPINGS) != mappings) continue;
    if (!first) put(",", 1);
    put_site(site);
    first = 0;
  }
}

// Prints what is held, on one line. `checksum` says whether the target's own data is unharmed.
static inline void put_truth(int checksum_is_right) {
  put("{\"sites\":{", 10);
  put_sites(0);
  put("},\"mappings\":{", 14);
  put_sites(1);
  put(checksum_is_right ? "},\"checksum\":\"right\"}\n" : "},\"checksum\":\"wrong\"}\n", 22);
}

// The end of a target: the truth, the barrier, and the harness's leave to exit.
static inline void tell_truth(int checksum_is_right) {
  put_truth(checksum_is_right);
  say("barrier");
  await_line();
}

// A small generator (xorshift64, Marsaglia 2003): the same numbers in every run.
static inline size_t next_random(size_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}
