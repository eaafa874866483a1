// Runs code one instruction at a time, and stops in a handler after each of them.
//
// The processor traps after every instruction while the trap flag (Intel SDM vol. 1, 3.4.3.3) is
// set; the kernel takes it away for the handler, and gives it back when that returns. It is set and
// cleared by the handler of a breakpoint, for code that did so itself would have to push the flags,
// and then the stack pointer would not be where its unwind table says.
#pragma once
#include <dlfcn.h>
#include <signal.h>
#include <ucontext.h>

#include "chain.h"

enum { TRAP_FLAG = 0x100 };

// Every instruction between one and the next is a step.
#define STEP_FROM_HERE() __asm__ volatile("int3" ::: "memory")
#define STEP_TO_HERE() __asm__ volatile("int3" ::: "memory")

// Called for each instruction, with the address of the next one.
typedef void on_step(const void *at);
static on_step *each_step;

static CALLED void on_trap(int signal, siginfo_t *info, void *context) {
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  (void)signal;
  if (info->si_code != TRAP_TRACE)
    registers[REG_EFL] ^= TRAP_FLAG;
  else
    each_step((const void *)registers[REG_RIP]);
  NOT_A_TAIL_CALL();
}

static void step_by(on_step *step, int on_a_stack_of_its_own) {
  static char alternate[64 << 10];
  stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_trap;
  action.sa_flags = SA_SIGINFO | (on_a_stack_of_its_own ? SA_ONSTACK : 0);
  each_step = step;
  if (sigaltstack(&stack, NULL) != 0 || sigaction(SIGTRAP, &action, NULL) != 0) abort();
}

// Allocates in the handler, below whatever was entered.
ALLOCATING_SITE(site_at_step)
static CALLED void allocate_at_step(void) {
  ENTER("module:libc.so.6");  // returns from the signal
  ENTER("on_trap");
  ENTER("at_step");
  FRAME;
  site_at_step(32);
}
