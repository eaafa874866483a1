// Load at full speed that checks its own data, for harm tests, bounds and benchmarks.
//
// Usage: churn THREADS LIVE DEPTH
//   LIVE    blocks held at any time, by all threads together
//   DEPTH   frames between a thread's loop and the allocator
//
// After "ready" it answers commands:
//   fill     allocate the LIVE blocks           -> "filled"
//   run N    N free+malloc pairs in all threads -> "ns_per_pair X": time of one pair in one thread
//   load     pairs without end                  -> "loading"
//   stop     ends the load                      -> "pairs_per_second X"
//   truth    what is held                       -> one line of JSON
// and exits at the end of its input. Every block carries a tag, which is checked when it is freed.
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

#include "ground_truth.h"

enum { MOST_THREADS = 64 };

struct block {
  size_t tag, size;
};

struct worker {
  struct block **slots;
  size_t slot_count, state, pairs;
  // Tags of all blocks allocated and not yet freed, added up.
  size_t tag_sum;
  // Its own, so that threads do not slow each other down by counting.
  struct site totals;
} __attribute__((aligned(64)));

static struct worker workers[MOST_THREADS];
static size_t threads, live, depth;
static size_t pairs_to_do;  // by each thread; 0: until `stopping`
static char stopping;
static int data_was_harmed;
static pthread_barrier_t begin, done;

SITE(site_churn);
static SITE_FUNCTION struct block *site_churn(struct worker *worker, size_t size) {
  return took(&worker->totals, malloc(size), size);
}

static SITE_FUNCTION struct block *allocate_below(size_t frames, struct worker *worker, size_t size) {
  struct block *block =
      frames > 1 ? allocate_below(frames - 1, worker, size) : site_churn(worker, size);
  NOT_A_TAIL_CALL();
  return block;
}

static struct block *allocate(struct worker *worker, size_t random) {
  size_t size = sizeof(struct block) + random % 112;
  struct block *block = depth > 1 ? allocate_below(depth - 1, worker, size) : site_churn(worker, size);
  if (!block) abort();
  *block = (struct block){random, size};
  worker->tag_sum += random;
  return block;
}

static void release(struct worker *worker, struct block *block) {
  worker->tag_sum -= block->tag;
  gave(&worker->totals, block->size);
  if (block->size != sizeof(struct block) + block->tag % 112) data_was_harmed = 1;
  block->tag = 0;
  free(block);
}

// A frame of its own, so that a report shows as many frames as were walked.
static SITE_FUNCTION void churn_once(struct worker *worker) {
  size_t random = next_random(&worker->state);
  struct block **slot = &worker->slots[random % worker->slot_count];
  if (*slot) release(worker, *slot);
  *slot = allocate(worker, random);
}

static void *work(void *argument) {
  struct worker *worker = argument;
  for (;;) {
    pthread_barrier_wait(&begin);
    size_t pairs = 0;
    while (pairs_to_do ? pairs < pairs_to_do : !__atomic_load_n(&stopping, __ATOMIC_RELAXED)) {
      churn_once(worker);
      pairs++;
    }
    worker->pairs = pairs;
    pthread_barrier_wait(&done);
  }
  return NULL;
}

static void start_workers(void) {
  pthread_barrier_init(&begin, NULL, (unsigned)threads + 1);
  pthread_barrier_init(&done, NULL, (unsigned)threads + 1);
  for (size_t i = 0; i < threads; i++) {
    struct worker *worker = &workers[i];
    worker->slot_count = live / threads;
    worker->state = 88172645463325252 + i * 7919;
    worker->slots = mmap(NULL, worker->slot_count * sizeof *worker->slots, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_t thread;
    if (worker->slots == MAP_FAILED || pthread_create(&thread, NULL, work, worker) != 0) abort();
  }
}

static void fill(void) {
  for (size_t i = 0; i < threads; i++) {
    struct worker *worker = &workers[i];
    for (size_t slot = 0; slot < worker->slot_count; slot++) {
      if (!worker->slots[slot]) worker->slots[slot] = allocate(worker, next_random(&worker->state));
    }
  }
  say("filled");
}

static int checksum_is_right(void) {
  for (size_t i = 0; i < threads; i++) {
    size_t sum = 0;
    for (size_t slot = 0; slot < workers[i].slot_count; slot++) {
      struct block *block = workers[i].slots[slot];
      sum += block ? block->tag : 0;
    }
    if (sum != workers[i].tag_sum) return 0;
  }
  return !data_was_harmed;
}

static void tell(void) {
  struct site *all = &site_churn_totals;
  all->bytes = all->objects = all->allocated_bytes = all->allocated_objects = 0;
  for (size_t i = 0; i < threads; i++) {
    struct site *own = &workers[i].totals;
    all->bytes += own->bytes;
    all->objects += own->objects;
    all->allocated_bytes += own->allocated_bytes;
    all->allocated_objects += own->allocated_objects;
  }
  put_truth(checksum_is_right());
}

static double now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void say_figure(const char *name, double figure) {
  char line[64];
  snprintf(line, sizeof line, "%s %.1f", name, figure);
  say(line);
}

static void run(size_t pairs) {
  pairs_to_do = (pairs + threads - 1) / threads;
  double start = now_ns();
  pthread_barrier_wait(&begin);
  pthread_barrier_wait(&done);
  say_figure("ns_per_pair", (now_ns() - start) / (double)pairs_to_do);
}

static double load_began;

static void load(void) {
  pairs_to_do = 0;
  stopping = 0;
  load_began = now_ns();
  pthread_barrier_wait(&begin);
  say("loading");
}

static void stop(void) {
  __atomic_store_n(&stopping, 1, __ATOMIC_RELAXED);
  pthread_barrier_wait(&done);
  double seconds = (now_ns() - load_began) / 1e9, pairs = 0;
  for (size_t i = 0; i < threads; i++) pairs += (double)workers[i].pairs;
  say_figure("pairs_per_second", pairs / seconds);
}

int main(int argc, char **argv) {
  threads = argc > 1 ? strtoul(argv[1], NULL, 10) : 2;
  live = argc > 2 ? strtoul(argv[2], NULL, 10) : 1000;
  depth = argc > 3 ? strtoul(argv[3], NULL, 10) : 1;
  if (threads == 0 || threads > MOST_THREADS || live < threads) return 2;
  start_workers();
  // The first printed double makes the C library allocate.
  char warm_up[64];
  snprintf(warm_up, sizeof warm_up, "%.1f", 0.1 * argc);
  say("ready");

  char line[64];
  while (hear(line, sizeof line)) {
    if (strcmp(line, "fill") == 0) fill();
    else if (strncmp(line, "run ", 4) == 0) run(strtoul(line + 4, NULL, 10));
    else if (strcmp(line, "load") == 0) load();
    else if (strcmp(line, "stop") == 0) stop();
    else if (strcmp(line, "truth") == 0) tell();
    else say("unknown command");
  }
  return 0;
}
