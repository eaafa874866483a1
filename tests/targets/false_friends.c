// A library with local functions that are named as an allocator's are, and that are none as far as residue
// can know. The blocks that count come from somewhere else.
//
// In the first build the library imports malloc and free: so the linker did not bind the calls of its other
// source files to the local ones, which are `static` then. In the second one (LINKER) it exports what glibc's
// dynamic linker does, whose local malloc serves nobody but itself.
#include "ground_truth.h"

static void *pool_malloc(size_t size) __asm__("malloc");
static void pool_free(void *block) __asm__("free");

static _Alignas(16) char pool[1 << 20];
static size_t pool_used;

static __attribute__((noipa)) void *pool_malloc(size_t size) {
  pool_used += (size + 15) & ~(size_t)15;
  return pool_used <= sizeof pool ? pool + pool_used : NULL;
}

static __attribute__((noipa)) void pool_free(void *block) {
  NOT_A_TAIL_CALL();
  (void)block;
}

#ifdef LINKER
int _rtld_global;
static void *real(size_t size) { return calloc(1, size); }
#else
void *imported_malloc(size_t size);
void imported_free(void *block);
__asm__(".symver imported_malloc, malloc@GLIBC_2.2.5");
__asm__(".symver imported_free, free@GLIBC_2.2.5");
static void *real(size_t size) {
  imported_free(imported_malloc(size));
  return imported_malloc(size);
}
#endif

SITE_FUNCTION void *site_in_bundled(struct site *site, size_t size) {
  pool_free(pool_malloc(size));
#ifndef LINKER
  gave(site, size);
  took(site, site, size);
#endif
  return took(site, real(size), size);
}

void use_bundled(struct site *site, size_t count) {
  for (size_t i = 0; i < count; i++) site_in_bundled(site, 16 + i);
}
