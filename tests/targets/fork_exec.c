// Starts processes in every way while it is recorded, and finally replaces itself.
//
// A child begins as a copy of this process, probes' breakpoints and all; it must run on.
#define _GNU_SOURCE
#include <sys/wait.h>

#include "ground_truth.h"

enum { CHILDREN = 20 };

SITE(site_before_fork);
static SITE_FUNCTION void *site_before_fork(size_t size) {
  return took(&site_before_fork_totals, malloc(size), size);
}

SITE(site_in_child);
static SITE_FUNCTION void *site_in_child(size_t size) {
  return took(&site_in_child_totals, malloc(size), size);
}

SITE(site_after_exec);
static SITE_FUNCTION void *site_after_exec(size_t size) {
  return took(&site_after_exec_totals, malloc(size), size);
}

// The child's exit code says whether its blocks kept what was written to them.
static void live_as_child(void) {
  static unsigned char *blocks[500];
  for (size_t i = 0; i < 500; i++) {
    blocks[i] = site_in_child(100 + i);
    memset(blocks[i], (int)i, 100 + i);
  }
  for (size_t i = 0; i < 500; i++) {
    if (blocks[i][99] != (unsigned char)i) _exit(1);
    free(blocks[i]);
  }
  _exit(0);
}

static int ended_well(pid_t child) {
  int status;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static int fork_children(void) {
  for (int i = 0; i < CHILDREN; i++) {
    pid_t child = fork();
    if (child == 0) live_as_child();
    if (child < 0 || !ended_well(child)) return 0;
  }
  return 1;
}

static int vfork_children(void) {
  for (int i = 0; i < CHILDREN; i++) {
    pid_t child = vfork();
    if (child == 0) {
      execl("/bin/true", "true", (char *)NULL);
      _exit(127);
    }
    if (child < 0 || !ended_well(child)) return 0;
  }
  return 1;
}

int main(int argc, char **argv) {
  if (argc > 1 && strcmp(argv[1], "again") == 0) {
    for (size_t i = 0; i < 100; i++) site_after_exec(10 + i);
    tell_truth(1);
    return 0;
  }
  say("ready");
  await_line();
  for (size_t i = 0; i < 100; i++) site_before_fork(10 + i);
  if (!fork_children() || !vfork_children()) {
    tell_truth(0);
    return 1;
  }
  execl("/proc/self/exe", argv[0], "again", (char *)NULL);
  return 3;
}
