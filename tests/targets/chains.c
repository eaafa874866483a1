// Allocates through chains of functions whose stack frames have every shape that a compiler makes.
//
// Each shape calls the next one of a path, which was drawn by lot, until the path ends in a site.
// So every shape is found below and above every other. Half of the paths run in a thread.
//
// Built without frame pointers: rbp is a register like any other, which some shapes make use of.
#define _GNU_SOURCE
#include <alloca.h>
#include <pthread.h>
#include <setjmp.h>

#include "chain.h"

typedef void shape(void *path, size_t size);

// The rest of a path. A macro, as a function would be one more frame.
#define GO_ON(path, size) (*(shape **)(path))((shape **)(path) + 1, size)

static CALLED void plain(void *path, size_t size) {
  FRAME;
  GO_ON(path, size);
}

static CALLED void saves_all_registers(void *path, size_t size) {
  FRAME;
  __asm__ volatile("" ::: "rbx", "rbp", "r12", "r13", "r14", "r15");
  GO_ON(path, size);
  __asm__ volatile("" ::: "rbx", "rbp", "r12", "r13", "r14", "r15");
}

// While the call is under way rbp is no address at all.
static CALLED void counts_in_rbp(void *path, size_t size) {
  FRAME;
  __asm__ volatile("mov $0x1234567, %%rbp" ::: "rbp");
  GO_ON(path, size);
}

// While the call is under way rbp points into the stack, but at no frame.
static CALLED void points_by_rbp(void *path, size_t size) {
  void *words[64] = {0};
  FRAME;
  for (size_t i = 0; i < 64; i++) words[i] = (void *)&words[(i + 7) % 64];
  __asm__ volatile("mov %0, %%rbp" ::"r"(words) : "rbp", "memory");
  GO_ON(path, size);
  KEEPS(words);
}

static CALLED void has_big_locals(void *path, size_t size) {
  char local[3000];
  FRAME;
  KEEPS(local);
  GO_ON(path, size);
  KEEPS(local);
}

// More than 16 bits can say.
static CALLED void has_huge_locals(void *path, size_t size) {
  char local[70000];
  FRAME;
  KEEPS(local);
  GO_ON(path, size);
  KEEPS(local);
}

// With -fstack-clash-protection this many pages are touched in a loop, and the CFA is counted from
// another register meanwhile.
static CALLED void has_many_pages(void *path, size_t size) {
  char local[200 * 1024];
  FRAME;
  local[0] = (char)size;
  KEEPS(local);
  GO_ON(path, size);
  KEEPS(local);
}

static CALLED void has_variable_locals(void *path, size_t size) {
  char local[1 + size % 301];
  FRAME;
  KEEPS(local);
  GO_ON(path, size);
  KEEPS(local);
}

static CALLED void calls_alloca(void *path, size_t size) {
  FRAME;
  char *last = NULL;
  for (size_t i = 0; i < size % 7; i++) {
    last = alloca(16 + i * size);
    KEEPS(last);
  }
  GO_ON(path, size);
  KEEPS(last);
}

static CALLED void is_realigned(void *path, size_t size) {
  _Alignas(64) char local[128];
  FRAME;
  KEEPS(local);
  GO_ON(path, size);
  KEEPS(local);
}

// Realigned, of a variable size, and with arguments on the stack: these are found by one more
// register, and the CFA by an expression.
static CALLED void is_realigned_and_variable(void *path, size_t size, size_t a, size_t b, size_t c,
                                             size_t d, size_t e, size_t f) {
  _Alignas(256) char local[256];
  char variable[1 + (size + a) % 555];
  FRAME;
  KEEPS(local);
  KEEPS(variable);
  GO_ON(path, size);
  KEEPS(local);
  if (a + b + c + d + e + f != 21) abort();
}
static CALLED void passes_arguments_on_the_stack(void *path, size_t size) {
  FRAME;
  is_realigned_and_variable(path, size, 1, 2, 3, 4, 5, 6);
}

__attribute__((force_align_arg_pointer)) static CALLED void aligns_its_stack(void *path, size_t size) {
  FRAME;
  GO_ON(path, size);
}

// A call that never returns is the caller's last instruction: the return address is behind its end.
// So the caller has no instruction to note itself with.
static __thread jmp_buf *outside;
__attribute__((noreturn)) static CALLED void never_returns(void *path, size_t size) {
  {
    FRAME;
    GO_ON(path, size);
  }
  longjmp(*outside, 1);
}
__attribute__((noreturn)) static CALLED void ends_in_a_call(void *path, size_t size) {
  never_returns(path, size);
}
static CALLED void jumps_out(void *path, size_t size) {
  FRAME;
  jmp_buf here;
  jmp_buf *volatile before = outside;
  outside = &here;
  if (setjmp(here) == 0) {
    ENTER("ends_in_a_call");
    ends_in_a_call(path, size);
  }
  outside = before;
}

// The call is in a part of the function that the compiler puts elsewhere.
static volatile int always = 1;
__attribute__((cold)) static CALLED void is_seldom_called(void) { NOT_A_TAIL_CALL(); }
static CALLED void calls_from_its_cold_part(void *path, size_t size) {
  FRAME;
  if (__builtin_expect(always, 0)) {
    is_seldom_called();
    GO_ON(path, size);
    is_seldom_called();
  }
}

// Through functions of the C library, which has no frame pointers either.
static __thread void *sorted_path;
static __thread size_t sorted_size;
static CALLED int compare(const void *a, const void *b) {
  FRAME;
  void *path = sorted_path;
  if (path) {
    sorted_path = NULL;
    GO_ON(path, sorted_size);
  }
  return *(const char *)a - *(const char *)b;
}
static CALLED void sorts(void *path, size_t size) {
  FRAME;
  char numbers[] = {3, 1, 2};
  sorted_path = path;
  sorted_size = size;
  ENTER("module:libc.so.6*");
  qsort(numbers, sizeof numbers, 1, compare);
}

// Leaves by a jump to the next shape, so it is nowhere on the stack. No FRAME, for that reason.
static CALLED void ends_in_a_jump(void *path, size_t size) { GO_ON(path, size); }
// The same, after it had a frame of its own.
static CALLED void gives_up_its_frame(void *path, size_t size) {
  is_seldom_called();
  GO_ON(path, size);
}

static CALLED void recurses(void *path, size_t size) {
  FRAME;
  if (depth % 4 != 0)
    recurses(path, size);
  else
    GO_ON(path, size);
}

static shape *const SHAPES[] = {
    plain,          saves_all_registers, counts_in_rbp,
    points_by_rbp,  has_big_locals,      has_huge_locals,
    has_many_pages, has_variable_locals, calls_alloca,
    is_realigned,   aligns_its_stack,    passes_arguments_on_the_stack,
    jumps_out,      sorts,               calls_from_its_cold_part,
    ends_in_a_jump, gives_up_its_frame,  recurses,
};
enum { SHAPE_COUNT = sizeof SHAPES / sizeof *SHAPES, LONGEST_PATH = 12, PATHS = 300 };

#define SITE_SHAPE(name, call)                                     \
  SITE(name);                                                      \
  static CALLED void name(void *path, size_t size) {               \
    FRAME;                                                         \
    (void)path;                                                    \
    took_here(&name##_totals, call, size);                         \
  }
SITE_SHAPE(site_malloc, malloc(size))
SITE_SHAPE(site_calloc, calloc(1, size))
SITE_SHAPE(site_realloc, realloc(NULL, size))
SITE_SHAPE(site_aligned_alloc, aligned_alloc(64, size))
static shape *const SITES[] = {site_malloc, site_calloc, site_realloc, site_aligned_alloc};

// Each shape once by itself, then by lot.
static CALLED void walk_path(size_t number, size_t *random) {
  FRAME;
  shape *path[LONGEST_PATH + 1];
  size_t length = number < SHAPE_COUNT ? 1 : 1 + next_random(random) % LONGEST_PATH;
  for (size_t i = 0; i < length; i++) {
    path[i] = SHAPES[number < SHAPE_COUNT ? number : next_random(random) % SHAPE_COUNT];
  }
  path[length] = SITES[number % 4];
  GO_ON(path, 64 + number);
}

static pthread_barrier_t begin, done;

// As the first function of a thread, not a function that main calls.
static CALLED void *walk_in_a_thread(void *unused) {
  FRAME;
  pthread_barrier_wait(&begin);
  size_t random = 0x2545f4914f6cdd1d;
  for (size_t i = 0; i < PATHS; i++) walk_path(i, &random);
  pthread_barrier_wait(&done);
  // A thread that ends releases memory of its own.
  for (;;) pause();
  return unused;
}

// Paths are deep, and a thread's usual stack is small for them.
static void start_thread_with_room(void) {
  pthread_attr_t attributes;
  pthread_t thread;
  pthread_barrier_init(&begin, NULL, 2);
  pthread_barrier_init(&done, NULL, 2);
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, (size_t)16 << 20);
  if (pthread_create(&thread, &attributes, walk_in_a_thread, NULL) != 0) abort();
}

int main(void) {
  FRAME;
  start_thread_with_room();
  say("ready");
  await_line();
  pthread_barrier_wait(&begin);
  size_t random = 88172645463325252;
  for (size_t i = 0; i < PATHS; i++) walk_path(i, &random);
  pthread_barrier_wait(&done);
  tell_chains();
  return 0;
}
