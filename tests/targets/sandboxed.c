// Allocates under a seccomp filter that kills for the system calls by which the kernel's own code
// in a probed process comes back to the kernel: such filters know nothing of them, and neither do
// those of containers.
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>

#include "ground_truth.h"

// arch/x86/entry/syscalls/syscall_64.tbl
#define NR_URETPROBE 335
#define NR_UPROBE 336

SITE(site_sandboxed);
SITE_FUNCTION void *site_sandboxed(size_t size) {
  return took(&site_sandboxed_totals, malloc(size), size);
}

static int sandbox(void) {
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NR_URETPROBE, 2, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NR_UPROBE, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
  };
  struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

int main(void) {
  if (!sandbox()) return 4;
  say("ready");
  await_line();
  for (size_t i = 0; i < 100; i++) {
    void *kept = site_sandboxed(10 + i);
    if (i % 2) {
      free(kept);
      gave(&site_sandboxed_totals, 10 + i);
    }
  }
  tell_truth(1);
  return 0;
}
