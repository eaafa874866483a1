// Maps memory that other processes may map as well, and what looks like it: each kind at a site of its own.
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#include "ground_truth.h"

enum { MIB = 1 << 20 };
#define READ_WRITE (PROT_READ | PROT_WRITE)

static char *or_abort(void *at) {
  if (at == MAP_FAILED) abort();
  return at;
}

// A memfd of one MiB, mapped; it lives on without its descriptor.
static inline __attribute__((always_inline)) char *map_memfd(int flags) {
  int memory = memfd_create("residue", 0);
  if (memory < 0 || ftruncate(memory, MIB) != 0) abort();
  char *at = or_abort(mmap(NULL, MIB, READ_WRITE, flags, memory, 0));
  close(memory);
  return at;
}

#define MAPPING(name, held, body)           \
  MAPPING_SITE(name);                       \
  static SITE_FUNCTION void name(void) {    \
    body;                                   \
    name##_totals.bytes += (held);          \
  }

static char *attach(void) {
  int segment = shmget(IPC_PRIVATE, MIB, 0600 | IPC_CREAT);
  char *at = or_abort(shmat(segment, NULL, 0));
  shmctl(segment, IPC_RMID, NULL);
  return at;
}

// Not by the C library's mremap: glibc 2.36 gives the kernel no fifth argument, and it wants one here.
static SITE_FUNCTION void move_content(char *from) {
  long to = syscall(SYS_mremap, from, MIB, MIB, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
  NOT_A_TAIL_CALL();
  if (to == -1) abort();
}

static char *before_anonymous, *before_file, *before_memfd, *before_segment;

static void map_before(void) {
  int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  before_anonymous = or_abort(mmap(NULL, MIB, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  before_file = or_abort(mmap(NULL, 4096, PROT_READ, MAP_SHARED, self, 0));
  before_memfd = map_memfd(MAP_SHARED);
  before_segment = attach();
  close(self);
}

// Shared memory.
MAPPING(site_memfd, MIB, map_memfd(MAP_SHARED))
MAPPING(site_memfd_hole, MIB / 2, munmap(map_memfd(MAP_SHARED) + MIB / 4, MIB / 2))
MAPPING(site_anonymous, MIB, or_abort(mmap(NULL, MIB, READ_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)))
MAPPING(site_segment, MIB, attach())
MAPPING(site_segment_in_parts, MIB, mprotect(attach() + MIB / 2, MIB / 4, PROT_READ))
MAPPING(site_segment_hole, MIB - 4096, munmap(attach() + 4096, 4096))
MAPPING(site_memfd_twice, 2 * MIB, or_abort(mremap(map_memfd(MAP_SHARED), 0, MIB, MREMAP_MAYMOVE)))
MAPPING(site_memfd_from_before, MIB / 2, or_abort(mremap(before_memfd, MIB, MIB / 2, 0)))
SITE_FUNCTION static char *posix(void) {
  int memory = shm_open("/residue-test", O_RDWR | O_CREAT, 0600);
  if (memory < 0 || ftruncate(memory, MIB) != 0) abort();
  shm_unlink("/residue-test");
  char *at = or_abort(mmap(NULL, MIB, READ_WRITE, MAP_SHARED, memory, 0));
  close(memory);
  return at;
}
MAPPING(site_posix, MIB, posix())

MAPPING(site_segment_tail, MIB - 4096, munmap(attach(), 4096))
MAPPING(site_memfd_stays, 2 * MIB, move_content(map_memfd(MAP_SHARED)))

// Memory of this process alone.
MAPPING(site_private_stays, 2 * MIB,
        move_content(or_abort(mmap(NULL, MIB, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))))
MAPPING(site_private_from_before, 2 * MIB, or_abort(mremap(before_anonymous, MIB, 2 * MIB, MREMAP_MAYMOVE)))

// Nothing: it is gone again, or shows a file, or is a copy of one as far as it was written to.
MAPPING(site_segment_detached, 0, shmdt(attach()))
MAPPING(site_segment_from_before, 0, shmdt(before_segment))
MAPPING(site_memfd_unmapped, 0, munmap(map_memfd(MAP_SHARED), MIB))
MAPPING(site_memfd_copy, 0, map_memfd(MAP_PRIVATE))
MAPPING(site_file_moved, 0, or_abort(mremap(before_file, 4096, 8192, MREMAP_MAYMOVE)))
static char *map_file(void) {
  int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  char *at = or_abort(mmap(NULL, 4096, PROT_READ, MAP_SHARED, self, 0));
  close(self);
  return at;
}
MAPPING(site_file, 0, map_file())

int main(void) {
  map_before();
  say("ready");
  await_line();

  site_memfd();
  site_memfd_hole();
  site_anonymous();
  site_segment();
  site_segment_in_parts();
  site_segment_hole();
  site_segment_tail();
  site_memfd_stays();
  site_memfd_twice();
  site_memfd_from_before();
  site_posix();
  site_private_stays();
  site_private_from_before();
  site_segment_detached();
  site_segment_from_before();
  site_memfd_unmapped();
  site_memfd_copy();
  site_file_moved();
  site_file();

  tell_truth(1);
  return 0;
}
