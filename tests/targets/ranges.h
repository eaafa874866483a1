// Maps and unmaps memory in every way, and knows the owner of every page.
//
// Most of it happens inside one stretch of addresses that was reserved before the recording, so
// that the kernel cannot place anything else in the holes. A range that mremap moved or resized
// belongs to who called mremap, as a block belongs to who called realloc.
#pragma once
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "ground_truth.h"

enum { PAGE = 4096, PAGES = 512 };
#define ANONYMOUS (MAP_PRIVATE | MAP_ANONYMOUS)
#define READ_WRITE (PROT_READ | PROT_WRITE)

static char *reserve;
static int a_file;
// Which site mapped a page of the reserve; NULL when none did. And by which of its calls.
static struct site *owners[PAGES];
static size_t calls_of[PAGES], call;

static void reserve_ranges(void) {
  reserve = mmap(NULL, PAGES * PAGE, PROT_NONE, ANONYMOUS | MAP_NORESERVE, -1, 0);
  a_file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  if (reserve == MAP_FAILED || a_file < 0) abort();
}

// Pages [first, first + count) have a new owner.
static void now_owned(size_t first, size_t count, struct site *site) {
  call++;
  for (size_t page = first; page < first + count; page++) {
    owners[page] = site;
    calls_of[page] = call;
  }
}

MAPPING_SITE(site_mmap_fixed);
static SITE_FUNCTION void site_mmap_fixed(size_t first, size_t count) {
  // An odd length: the kernel rounds it up to whole pages.
  void *at = mmap(reserve + first * PAGE, count * PAGE - 100, READ_WRITE, ANONYMOUS | MAP_FIXED, -1, 0);
  if (at == MAP_FAILED) abort();
  now_owned(first, count, &site_mmap_fixed_totals);
}

MAPPING_SITE(site_mmap_shared);
static SITE_FUNCTION void site_mmap_shared(size_t first, size_t count) {
  void *at = mmap(reserve + first * PAGE, count * PAGE, READ_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  if (at == MAP_FAILED) abort();
  now_owned(first, count, &site_mmap_shared_totals);
}

// A file over anonymous pages: they are gone, and the file counts for nobody.
static SITE_FUNCTION void map_file(size_t first, size_t count) {
  void *at = mmap(reserve + first * PAGE, count * PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, a_file, 0);
  if (at == MAP_FAILED) abort();
  now_owned(first, count, NULL);
}

// Straight to the kernel, past the C library's mmap. syscall() has no frame of its own, hence the
// function between it and the site.
static SITE_FUNCTION long raw_mmap(size_t first, size_t count) {
  long at = syscall(SYS_mmap, reserve + first * PAGE, count * PAGE, READ_WRITE, ANONYMOUS | MAP_FIXED, -1, 0);
  NOT_A_TAIL_CALL();
  return at;
}
MAPPING_SITE(site_mmap_direct);
static SITE_FUNCTION void site_mmap_direct(size_t first, size_t count) {
  if (raw_mmap(first, count) == -1) abort();
  now_owned(first, count, &site_mmap_direct_totals);
}

static void unmap(size_t first, size_t count) {
  if (munmap(reserve + first * PAGE, count * PAGE - 1) != 0) abort();
  now_owned(first, count, NULL);
}

// Moves pages [from, from + count) over [to, to + new_count).
MAPPING_SITE(site_mremap_move);
static SITE_FUNCTION void site_mremap_move(size_t from, size_t count, size_t to, size_t new_count) {
  void *at = mremap(reserve + from * PAGE, count * PAGE, new_count * PAGE,
                    MREMAP_MAYMOVE | MREMAP_FIXED, reserve + to * PAGE);
  if (at == MAP_FAILED) abort();
  now_owned(from, count, NULL);
  now_owned(to, new_count, &site_mremap_move_totals);
}

MAPPING_SITE(site_mremap_shrink);
static SITE_FUNCTION void site_mremap_shrink(size_t first, size_t count, size_t new_count) {
  void *at = mremap(reserve + first * PAGE, count * PAGE, new_count * PAGE, 0);
  if (at == MAP_FAILED) abort();
  now_owned(first, count, NULL);
  now_owned(first, new_count, &site_mremap_shrink_totals);
}

// The pages from `first` on that one call mapped. Only such a run is sure to be one area to the
// kernel, which mremap wants.
static size_t run_length(size_t first) {
  size_t count = 0;
  if (!owners[first]) return 0;
  while (first + count < PAGES && calls_of[first + count] == calls_of[first]) count++;
  return count;
}

static void remap_something(size_t first, size_t random) {
  size_t count = run_length(first);
  if (count < 2) return;
  size_t new_count = 1 + random % count;
  size_t to = random / 512 % (PAGES - count);
  if (new_count < count && random % 3 == 0)
    site_mremap_shrink(first, count, new_count);
  else if (to + count < first || to > first + count)
    site_mremap_move(first, count, to, random % 2 ? count : new_count);
}

static void walk_reserve(void) {
  size_t state = 88172645463325252;
  for (size_t i = 0; i < 2000; i++) {
    size_t random = next_random(&state);
    size_t count = 1 + random % 24;
    size_t first = random / 32 % (PAGES - 24);
    switch (random >> 40 & 7) {
      case 0: site_mmap_shared(first, count); break;
      case 1: site_mmap_direct(first, count); break;
      case 2: map_file(first, count); break;
      case 3: case 4: unmap(first, count); break;
      case 5: case 6: remap_something(first, random >> 8); break;
      default: site_mmap_fixed(first, count);
    }
  }
  for (size_t page = 0; page < PAGES; page++) {
    if (owners[page]) owners[page]->bytes += PAGE;
  }
}

// Where the kernel likes, with the ends and the middle cut out.
MAPPING_SITE(site_mmap_anywhere);
static SITE_FUNCTION void site_mmap_anywhere(void) {
  char *at = mmap(NULL, 20 * PAGE, READ_WRITE, ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) abort();
  munmap(at, PAGE);
  munmap(at + 8 * PAGE, 3 * PAGE);
  munmap(at + 19 * PAGE, PAGE);
  site_mmap_anywhere_totals.bytes += 15 * PAGE;
}

MAPPING_SITE(site_mremap_grow);
static SITE_FUNCTION void site_mremap_grow(void) {
  char *at = mmap(NULL, 4 * PAGE, READ_WRITE, ANONYMOUS, -1, 0);
  at = mremap(at, 4 * PAGE, 64 * PAGE, MREMAP_MAYMOVE);
  if (at == MAP_FAILED) abort();
  site_mremap_grow_totals.bytes += 64 * PAGE;
}

// Calls that fail change nothing.
MAPPING_SITE(site_mapping_fails);
static SITE_FUNCTION void site_mapping_fails(void) {
  char *at = mmap(NULL, 2 * PAGE, READ_WRITE, ANONYMOUS, -1, 0);
  if (mmap(NULL, (size_t)1 << 60, READ_WRITE, ANONYMOUS, -1, 0) != MAP_FAILED) abort();
  if (munmap(at + 1, PAGE) == 0) abort();
  if (mremap(at, PAGE, (size_t)1 << 60, MREMAP_MAYMOVE) != MAP_FAILED) abort();
  if (mremap(at, PAGE, 3 * PAGE, 0) != MAP_FAILED) abort();  // its own second page is in the way
  site_mapping_fails_totals.bytes += 2 * PAGE;
}

#ifdef __GLIBC__  // musl refuses to move the break
MAPPING_SITE(site_sbrk);
static SITE_FUNCTION void site_sbrk(void) {
  if (sbrk(48 * PAGE) == (void *)-1) abort();
  if (sbrk(-16 * PAGE) == (void *)-1) abort();
  site_sbrk_totals.bytes += 32 * PAGE;
}
#endif

static void walk_ranges(void) {
#ifdef __GLIBC__
  site_sbrk();
#endif
  for (int i = 0; i < 5; i++) {
    site_mmap_anywhere();
    site_mremap_grow();
    site_mapping_fails();
  }
  walk_reserve();
}
