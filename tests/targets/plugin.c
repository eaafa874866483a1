// A library that allocates. Built twice: once on the C library's malloc, once (BUNDLED) with a
// malloc of its own, as a library that ships its own allocator has it.
#include "ground_truth.h"

#ifdef BUNDLED
// Never gives memory back; that is enough for an allocator that is only watched.
static _Alignas(16) char arena[1 << 20];
static size_t arena_used;

__attribute__((noinline)) void *malloc(size_t size) {
  size_t start = arena_used;
  size_t end = start + ((size + 15) & ~(size_t)15);
  if (end > sizeof arena) return NULL;
  arena_used = end;
  return arena + start;
}

__attribute__((noinline)) void free(void *block) {
  NOT_A_TAIL_CALL();
  (void)block;
}

#define SITE_NAME site_in_bundled
#define USE use_bundled
#else
#define SITE_NAME site_in_plugin
#define USE use_plugin
#endif

SITE_FUNCTION void *SITE_NAME(struct site *site, size_t size) {
  return took(site, malloc(size), size);
}

void USE(struct site *site, size_t count) {
  for (size_t i = 0; i < count; i++) {
    void *block = SITE_NAME(site, 16 + i);
    if (i % 3 == 0) {
      gave(site, 16 + i);
      free(block);
    }
  }
}
