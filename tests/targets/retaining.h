// What requests leave behind, to the byte: for a server in C, and for a library that Python calls.
//
// serve() is to be called once a request, while it is worked on, and after() behind its response. Each of
// them allocates at most once, in a function of its own whose name begins with site_; nothing else here
// allocates, once start() is over. `tests/src/servers.rs` says the same of each route, in numbers.
#pragma once
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <time.h>

#include "ground_truth.h"

enum {
  MOST_KEPT = 1 << 16,
  // How many requests later a block is released: fewer than it takes to be called a survivor.
  LATER = 3,
  MOST_DEFERRED = 64,
  BACKGROUND_BLOCKS = 300,
  BACKGROUND_BYTES = 777,
};

// Each writes something else, or the compiler would make one function of them.
#define ALLOCATING_SITE(name, fill)              \
  static SITE_FUNCTION void *name(size_t size) { \
    void *block = malloc(size);                  \
    if (!block) abort();                         \
    return memset(block, fill, size);            \
  }

ALLOCATING_SITE(site_kept, 1)
ALLOCATING_SITE(site_freed_at_once, 2)
ALLOCATING_SITE(site_freed_later, 3)
ALLOCATING_SITE(site_freed_elsewhere, 4)
ALLOCATING_SITE(site_handed_over, 5)
ALLOCATING_SITE(site_afterwards, 6)
ALLOCATING_SITE(site_background, 7)

enum fate {
  FREED_AT_ONCE,
  KEPT,
  // By the request that is the third to come, whoever serves it.
  FREED_LATER,
  // Then, and by a thread that serves no requests.
  FREED_ELSEWHERE,
  // By that thread, while the request waits for it.
  HANDED_OVER,
  // Allocated when the response has been sent, and kept.
  KEPT_AFTERWARDS,
};

static const struct route {
  const char *path;
  size_t size;
  enum fate fate;
} routes[] = {
    {"/clean", 5000, FREED_AT_ONCE},
    {"/hundred", 100, KEPT},
    {"/thousand", 1000, KEPT},
    {"/hundred-thousand", 100000, KEPT},
    {"/later", 1000, FREED_LATER},
    {"/elsewhere", 1000, FREED_ELSEWHERE},
    {"/handed-over", 1000, HANDED_OVER},
    {"/afterwards", 1000, KEPT_AFTERWARDS},
};

static const struct route *route_of(const char *path) {
  for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
    if (strcmp(routes[i].path, path) == 0) return &routes[i];
  }
  return NULL;
}

// Not static, or the compiler would find that nobody reads it.
void *kept_blocks[MOST_KEPT];

static void keep(void *block) {
  static size_t count;
  size_t at = __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED);
  if (at >= MOST_KEPT) abort();
  kept_blocks[at] = block;
}

static void sleep_us(long us) {
  nanosleep(&(struct timespec){us / 1000000, us % 1000000 * 1000}, NULL);
}

// The thread that releases for others, one block at a time.
static pthread_mutex_t reaping = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t reaper_turn = PTHREAD_COND_INITIALIZER, reaped = PTHREAD_COND_INITIALIZER;
static void *to_reap;

static void *reap(void *none) {
  pthread_mutex_lock(&reaping);
  for (;;) {
    while (!to_reap) pthread_cond_wait(&reaper_turn, &reaping);
    free(to_reap);
    to_reap = NULL;
    pthread_cond_broadcast(&reaped);
  }
  return none;
}

// Returns when the block is released.
static void free_elsewhere(void *block) {
  pthread_mutex_lock(&reaping);
  while (to_reap) pthread_cond_wait(&reaped, &reaping);
  to_reap = block;
  pthread_cond_signal(&reaper_turn);
  while (to_reap == block) pthread_cond_wait(&reaped, &reaping);
  pthread_mutex_unlock(&reaping);
}

// Blocks that wait for later requests, in the order in which they are due.
static struct deferred {
  void *block;
  size_t due;
  bool elsewhere;
  // The thread that allocated it, and whether that has begun another request since.
  pid_t owner;
  bool owner_turned;
} deferred[MOST_DEFERRED];
static size_t first_deferred, end_of_deferred, requests;
static pthread_mutex_t deferring = PTHREAD_MUTEX_INITIALIZER;
// Whether a thread ends with its connection.
static bool threads_end;

static pid_t this_thread(void) { return (pid_t)syscall(SYS_gettid); }

static void defer(void *block, bool elsewhere) {
  pthread_mutex_lock(&deferring);
  if (end_of_deferred - first_deferred == MOST_DEFERRED) abort();
  deferred[end_of_deferred++ % MOST_DEFERRED] =
      (struct deferred){block, requests + LATER, elsewhere, this_thread(), false};
  pthread_mutex_unlock(&deferring);
}

// A request is over when its thread is, at the latest; with a thread a connection, not before. Waits
// for that, so that what is released later is released after its request.
static void await_end_of(const struct deferred *it) {
  for (int ms = 0; threads_end && !it->owner_turned && ms < 5000; ms++) {
    if (syscall(SYS_tgkill, getpid(), it->owner, 0) != 0) return;
    sleep_us(1000);
  }
}

static bool next_due(struct deferred *due) {
  pthread_mutex_lock(&deferring);
  *due = deferred[first_deferred % MOST_DEFERRED];
  bool is_due = first_deferred < end_of_deferred && due->due <= requests;
  if (is_due) first_deferred++;
  pthread_mutex_unlock(&deferring);
  return is_due;
}

static void begin_request(void) {
  pthread_mutex_lock(&deferring);
  requests++;
  for (size_t i = first_deferred; i < end_of_deferred; i++) {
    struct deferred *it = &deferred[i % MOST_DEFERRED];
    it->owner_turned |= it->owner == this_thread();
  }
  pthread_mutex_unlock(&deferring);
  struct deferred due;
  while (next_due(&due)) {
    await_end_of(&due);
    if (due.elsewhere) free_elsewhere(due.block);
    else free(due.block);
  }
}

// The thread that allocates by itself, when it is told to begin.
static size_t background_made;
static bool background_begun;

static void *allocate_in_background(void *none) {
  while (!__atomic_load_n(&background_begun, __ATOMIC_ACQUIRE)) sleep_us(1000);
  for (size_t i = 0; i < BACKGROUND_BLOCKS; i++) {
    keep(site_background(BACKGROUND_BYTES));
    __atomic_store_n(&background_made, i + 1, __ATOMIC_RELEASE);
    sleep_us(500);
  }
  return none;
}

// To be called once, by the process that serves.
void start(int threads_end_with_connections) {
  threads_end = threads_end_with_connections;
  pthread_t thread;
  if (pthread_create(&thread, NULL, reap, NULL) != 0) abort();
  if (pthread_create(&thread, NULL, allocate_in_background, NULL) != 0) abort();
}

void begin_background(void) { __atomic_store_n(&background_begun, true, __ATOMIC_RELEASE); }

size_t background_progress(void) { return __atomic_load_n(&background_made, __ATOMIC_ACQUIRE); }

// Whether there is such a route.
int serve(const char *path) {
  begin_request();
  const struct route *route = route_of(path);
  if (!route) return 0;
  switch (route->fate) {
    case FREED_AT_ONCE: free(site_freed_at_once(route->size)); break;
    case KEPT: keep(site_kept(route->size)); break;
    case FREED_LATER: defer(site_freed_later(route->size), false); break;
    case FREED_ELSEWHERE: defer(site_freed_elsewhere(route->size), true); break;
    case HANDED_OVER: free_elsewhere(site_handed_over(route->size)); break;
    case KEPT_AFTERWARDS: break;
  }
  return 1;
}

// When the response has been sent.
void after(const char *path) {
  const struct route *route = route_of(path);
  if (route && route->fate == KEPT_AFTERWARDS) keep(site_afterwards(route->size));
}
