// Allocates in signal handlers: on the stack of who is interrupted, on a stack of their own, in a
// handler of a handler, and in another thread.
//
// Who is interrupted is known to the instruction: a trap in its midst, or a loop that waits for the
// signal. Between a handler and the interrupted function lies one frame of the C library, which
// returns from the signal.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <ucontext.h>

#include "chain.h"

#define TRAMPOLINE "module:libc.so.6"

ALLOCATING_SITE(site_in_handler)
ALLOCATING_SITE(site_in_nested_handler)
ALLOCATING_SITE(site_in_thread)
ALLOCATING_SITE(site_afterwards)

// SIGTRAP by int3 goes on behind it, SIGILL by ud2 at the instruction itself.
#define TRAP() __asm__ volatile("int3" ::: "memory")
#define ILLEGAL() __asm__ volatile("ud2" ::: "memory")
enum { ILLEGAL_BYTES = 2 };

static CALLED void on_illegal(int signal, siginfo_t *info, void *context) {
  ENTER(TRAMPOLINE);
  FRAME;
  (void)signal, (void)info;
  site_in_nested_handler(80);
  ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += ILLEGAL_BYTES;
}

static CALLED void on_trap(int signal) {
  ENTER(TRAMPOLINE);
  FRAME;
  site_in_handler(64 + (size_t)signal);
  ILLEGAL();
  site_in_handler(200);
}

// In a leaf function, which has not even adjusted the stack pointer.
static CALLED void is_interrupted(void) { TRAP(); }
static CALLED void calls_interrupted(size_t size) {
  FRAME;
  char local[1 + size];
  KEEPS(local);
  {
    ENTER("is_interrupted");
    is_interrupted();
  }
  TRAP();
  KEEPS(local);
  site_afterwards(size);
}

// Says that it spins from where it spins, so the signal finds it there.
static volatile int spinning, handled;
static CALLED void spins(void) {
  FRAME;
  spinning = 1;
  while (!handled) {
  }
}
static CALLED void on_signal_of_thread(int signal) {
  ENTER(TRAMPOLINE);
  FRAME;
  site_in_thread((size_t)signal * 10);
  handled = 1;
}
static CALLED void *waits_for_signal(void *unused) {
  FRAME;
  spins();
  // A thread that ends releases memory of its own.
  for (;;) pause();
  return unused;
}
static CALLED void signals_a_thread(pthread_t thread) {
  FRAME;
  while (!spinning) usleep(1000);
  pthread_kill(thread, SIGUSR2);
  while (!handled) usleep(1000);
}

static void handle(int signal, void *handler, int flags) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  *(void **)&action.sa_sigaction = handler;
  action.sa_flags = flags;
  if (sigaction(signal, &action, NULL) != 0) abort();
}

static void on_alternate_stack(void) {
  static char alternate[64 << 10];
  stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
  if (sigaltstack(&stack, NULL) != 0) abort();
  handle(SIGTRAP, on_trap, SA_ONSTACK);
}

int main(void) {
  FRAME;
  pthread_t thread;
  handle(SIGTRAP, on_trap, 0);
  handle(SIGILL, on_illegal, SA_SIGINFO);
  handle(SIGUSR2, on_signal_of_thread, 0);
  say("ready");
  await_line();
  calls_interrupted(100);
  on_alternate_stack();
  calls_interrupted(300);
  // What starting a thread takes is in no site.
  if (pthread_create(&thread, NULL, waits_for_signal, NULL) != 0) abort();
  signals_a_thread(thread);
  tell_chains();
  return 0;
}
