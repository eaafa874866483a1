// Allocates where a stack begins, and far from there.
//
// Usage: outermost recursion   in 600 frames of one function
//        outermost thread      in a thread's first function, and in what it calls
//        outermost child       in a child that was forked, through what it shares with its parent;
//                              the child alone reads, answers and allocates
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>

#include "chain.h"

ALLOCATING_SITE(site_far_in)

static CALLED void recurses(size_t frames, size_t size) {
  FRAME;
  if (frames > 1)
    recurses(frames - 1, size);
  else
    site_far_in(size);
}
static CALLED void starts_recursion(size_t frames) {
  FRAME;
  recurses(frames, 100);
}

// The first function of a thread is a site itself.
SITE(site_first);
static CALLED void *site_first(void *size) {
  FRAME;
  took_here(&site_first_totals, malloc((size_t)size), (size_t)size);
  site_far_in(50);
  starts_recursion(3);
  // A thread that ends releases memory of its own.
  for (;;) pause();
  return NULL;
}

static size_t all_held(void) {
  size_t bytes = 0;
  for (const struct site *site = __start_sites; site < __stop_sites; site++) {
    bytes += __atomic_load_n(&site->bytes, __ATOMIC_ACQUIRE);
  }
  return bytes;
}

static void start_threads(void) {
  for (size_t i = 1; i <= 3; i++) {
    pthread_t thread;
    size_t before = all_held();
    if (pthread_create(&thread, NULL, site_first, (void *)(100 * i)) != 0) abort();
    while (all_held() != before + 100 * i + 50 + 100) usleep(1000);
  }
}

// Through a function that was under way when the process was one, and through one that was not.
static CALLED void forks(void) {
  FRAME;
  pid_t child = fork();
  if (child < 0) abort();
  if (child > 0) {
    waitpid(child, NULL, 0);
    _exit(0);
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  say("ready");
  await_line();
  site_far_in(70);
  starts_recursion(5);
}

int main(int argc, char **argv) {
  FRAME;
  const char *what = argc > 1 ? argv[1] : "";
  if (strcmp(what, "child") == 0) {
    forks();
  } else {
    say("ready");
    await_line();
    if (strcmp(what, "recursion") == 0) starts_recursion(600);
    if (strcmp(what, "thread") == 0) start_threads();
  }
  tell_chains();
  return 0;
}
