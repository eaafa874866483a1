// Allocates below libcrypto, whose inner loops are written in assembly by hand: from the allocator
// that it is given, and at every few instructions of its SHA-256.
//
// Where such a routine begins and ends it counts from rax or rsi for some instructions. A walk that
// follows no register but rsp and rbp may end there, and say so.
//
// The library is Debian's, without symbols of its own functions. It chooses its assembly by the
// processor, and by the variable OPENSSL_ia32cap, of which other code paths can be asked for.
//
// Usage: crypto   prints "no libcrypto" and ends where there is none
#define _GNU_SOURCE
#include "stepper.h"

#define LIBRARY "libcrypto.so.3"
#define IN_LIBRARY "module:" LIBRARY

enum { BLOCK = 64, BLOCKS_HASHED = 4, ONE_IN = 5 };

// As in OpenSSL 3's crypto.h and sha.h; its headers need not be installed.
typedef void *allocate_fn(size_t, const char *, int);
typedef void *reallocate_fn(void *, size_t, const char *, int);
typedef void release_fn(void *, const char *, int);
static int (*set_mem_functions)(allocate_fn *, reallocate_fn *, release_fn *);
static int (*digest)(const void *, size_t, unsigned char *, unsigned *, const void *, void *);
static const void *(*evp_sha256)(void);
static int (*sha256_init)(void *);
static int (*sha256_update)(void *, const void *, size_t);

static int recording;

// The size stands before the block, as a reallocation does not say it.
SITE(site_for_library);
static CALLED void *site_for_library(size_t size, const char *file, int line) {
  FRAME;
  (void)file, (void)line;
  size_t *block = malloc(size + 16);
  if (recording) took_here(&site_for_library_totals, block, size + 16);
  if (!block) abort();
  *block = size;
  return (char *)block + 16;
}
static CALLED void release_for_library(void *block, const char *file, int line) {
  // Nothing is given back: what was taken is what is held.
  (void)block, (void)file, (void)line;
}
static CALLED void *reallocate_for_library(void *old, size_t size, const char *file, int line) {
  FRAME;
  void *block = site_for_library(size, file, line);
  size_t old_size = old ? ((size_t *)old)[-2] : 0;
  return memcpy(block, old, old_size < size ? old_size : size);
}

static CALLED void calls_library(void) {
  unsigned char hash[64];
  unsigned length;
  FRAME;
  ENTER(IN_LIBRARY "*");
  if (!digest("abc", 3, hash, &length, evp_sha256(), NULL)) abort();
}

// Whole blocks only: then all that SHA256_Update calls is the assembly.
static unsigned char input[BLOCK * BLOCKS_HASHED];
static CALLED void steps_through_assembly(void *state) {
  STEP_FROM_HERE();
  sha256_update(state, input, sizeof input);
  STEP_TO_HERE();
}

static size_t step, assembly_stepped;
static CALLED void at_step(const void *at) {
  Dl_info found;
  if (step++ % ONE_IN != 0) return;
  if (!dladdr(at, &found)) abort();
  ENTER("steps_through_assembly");
  if (!strstr(found.dli_fname, LIBRARY)) return allocate_at_step();
  ENTER(IN_LIBRARY);
  if (found.dli_saddr == (void *)sha256_update) return allocate_at_step();
  ENTER("cut?");
  ENTER(IN_LIBRARY);
  assembly_stepped++;
  allocate_at_step();
}

static void load(void) {
  void *library = dlopen(LIBRARY, RTLD_NOW);
  if (!library) {
    say("no libcrypto");
    _exit(0);
  }
  *(void **)&set_mem_functions = dlsym(library, "CRYPTO_set_mem_functions");
  *(void **)&digest = dlsym(library, "EVP_Digest");
  *(void **)&evp_sha256 = dlsym(library, "EVP_sha256");
  *(void **)&sha256_init = dlsym(library, "SHA256_Init");
  *(void **)&sha256_update = dlsym(library, "SHA256_Update");
  if (!set_mem_functions || !digest || !evp_sha256 || !sha256_init || !sha256_update) abort();
}

int main(void) {
  size_t state[64];  // a SHA256_CTX takes 112 bytes
  FRAME;
  load();
  if (!set_mem_functions(site_for_library, reallocate_for_library, release_for_library)) abort();
  calls_library();  // what it does but once
  say("ready");
  await_line();
  recording = 1;
  for (int i = 0; i < 10; i++) calls_library();
  if (!sha256_init(state)) abort();
  step_by(at_step, 0);
  steps_through_assembly(state);
  step_by(at_step, 1);
  steps_through_assembly(state);
  if (!assembly_stepped) abort();
  tell_chains();
  return 0;
}
