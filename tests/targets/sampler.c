// A library to preload: samples malloc in its own process, in the format of `residue record
// --sample-stacks`, with the frames that the C++ runtime's unwinder walks. A third opinion, so that
// the comparison can be tried without residue and without root.
//
// Environment: SAMPLES is the file to write, SAMPLE_LIMIT how many at most; of seven calls one is
// taken.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <unwind.h>

enum { MOST_FRAMES = 500, MOST_BYTES = 64 << 10 };

// See tests/src/oracle/sample.rs.
struct header {
  uint32_t pid, tid;
  uint64_t ip, sp, bp;
  uint32_t end, frame_count, stack_bytes, left_out;
};

struct walk {
  uint64_t start, frames[MOST_FRAMES];
  uint32_t count, left_out;
};

void *__libc_malloc(size_t size);

static int file = -1;
static long left;
static __thread int busy __attribute__((tls_model("initial-exec")));
static __thread unsigned calls __attribute__((tls_model("initial-exec")));
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

static _Unwind_Reason_Code take(struct _Unwind_Context *context, void *argument) {
  struct walk *walk = argument;
  int is_interrupted = 0;
  uint64_t ip = _Unwind_GetIPInfo(context, &is_interrupted);
  // What comes behind the outermost frame.
  if (ip == 0) return _URC_NO_REASON;
  // The sampler's own frames come first.
  if (walk->count == 0 && ip != walk->start) return _URC_NO_REASON;
  if (walk->count == MOST_FRAMES) walk->left_out++;
  else walk->frames[walk->count++] = ip + (is_interrupted != 0);
  return _URC_NO_REASON;
}

// As much as there is. Page by page, because what cannot be read ends a copy at a whole vector; by a
// system call, because asking the C library where the stack ends asks for memory.
static size_t copy(uint64_t sp, char *bytes) {
  enum { PAGE = 4096, PAGES = MOST_BYTES / PAGE + 1 };
  struct iovec to = {bytes, MOST_BYTES}, from[PAGES];
  size_t length = 0;
  for (int i = 0; i < PAGES; i++) {
    size_t part = PAGE - (sp + length) % PAGE;
    if (part > MOST_BYTES - length) part = MOST_BYTES - length;
    from[i] = (struct iovec){(void *)(sp + length), part};
    length += part;
  }
  ssize_t copied = process_vm_readv(getpid(), &to, 1, from, PAGES, 0);
  return copied < 0 ? 0 : (size_t)copied;
}

static void put(const void *bytes, size_t length) {
  if (write(file, bytes, length) != (ssize_t)length) abort();
}

static void sample(uint64_t ip, uint64_t sp, uint64_t bp) {
  static struct walk walk;
  static char stack[MOST_BYTES];
  pthread_mutex_lock(&turn);
  walk.start = ip;
  walk.count = walk.left_out = 0;
  _Unwind_Backtrace(take, &walk);
  if (left > 0 && walk.count > 0) {
    left--;
    size_t bytes = copy(sp, stack);
    struct header header = {(uint32_t)getpid(), (uint32_t)syscall(SYS_gettid), ip, sp, bp, 0,
                            walk.count, (uint32_t)bytes, walk.left_out};
    put(&header, sizeof header);
    put(walk.frames, 8 * walk.count);
    put(stack, bytes);
  }
  pthread_mutex_unlock(&turn);
}

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("SAMPLES"), *limit = getenv("SAMPLE_LIMIT");
  if (!path || !limit) return;
  left = atol(limit);
  // Only the process that is meant, and none that it starts.
  unsetenv("LD_PRELOAD");
  file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

// Its frame holds the caller's bp, its return address the caller's ip, and the caller's sp is behind.
__attribute__((optimize("no-omit-frame-pointer"), noinline)) void *malloc(size_t size) {
  void *block = __libc_malloc(size);
  if (busy || file < 0 || left <= 0 || calls++ % 7 != 0) return block;
  busy = 1;
  uint64_t *frame = __builtin_frame_address(0);
  sample(frame[1], (uint64_t)(frame + 2), frame[0]);
  busy = 0;
  return block;
}
