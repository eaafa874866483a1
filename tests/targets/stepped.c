// Allocates in a signal handler at every single instruction of some functions: before, within and
// after a prologue, in the stubs of the procedure linkage table, in the dynamic linker while it
// looks a function up, in another library, and in epilogues.
//
// Built with lazy binding, as a position-independent program and as one that is not.
//
// The dynamic linker enters by a function that counts from rbx. A walk that follows no register but
// rsp and rbp may end there, and say so.
#define _GNU_SOURCE
#include <errno.h>

#include "stepper.h"

int in_library(int number);

// Each in a section of its own, which says where it begins and ends.
#define IN_SECTION(name) __attribute__((section(name))) CALLED
extern const char __start_code_of_steps[], __stop_code_of_steps[];
extern const char __start_code_of_stepped[], __stop_code_of_stepped[];

// Callee-saved registers, a realigned stack of variable size, two calls through stubs.
static IN_SECTION("code_of_stepped") int stepped(int number) {
  _Alignas(64) char local[1 + (unsigned)number % 100];
  KEEPS(local);
  int sum = in_library(number);
  sum += in_library(sum) * number;
  KEEPS(local);
  return sum;
}

static IN_SECTION("code_of_steps") int steps(int number) {
  STEP_FROM_HERE();
  int result = stepped(number);
  STEP_TO_HERE();
  return result;
}

static int is_between(const void *at, const char *start, const char *stop) {
  return (const char *)at >= start && (const char *)at < stop;
}

static const void *program;  // where it is loaded
static char in_program[64] = "module:";
static size_t stubs_stepped, lookups_stepped, library_stepped;

// Which function is at this address, called by `stepped`.
static const char *callee_at(const void *at) {
  Dl_info found;
  if (!dladdr(at, &found)) abort();
  if (found.dli_fbase == program) {
    stubs_stepped++;
    return in_program;
  }
  if (strstr(found.dli_fname, "libstepped.so")) {
    library_stepped++;
    return "in_library";
  }
  if (!strstr(found.dli_fname, "ld-linux")) abort();
  lookups_stepped++;
  return "module:ld-linux-x86-64.so.2*";
}

static CALLED void at_step(const void *at) {
  ENTER("steps");
  if (is_between(at, __start_code_of_steps, __stop_code_of_steps)) return allocate_at_step();
  ENTER("stepped");
  if (is_between(at, __start_code_of_stepped, __stop_code_of_stepped)) return allocate_at_step();
  const char *callee = callee_at(at);
  if (strstr(callee, "ld-linux")) {
    ENTER("cut?");
    ENTER(callee);
    return allocate_at_step();
  }
  ENTER(callee);
  allocate_at_step();
}

int main(void) {
  FRAME;
  Dl_info found;
  if (!dladdr(__start_code_of_steps, &found)) abort();
  program = found.dli_fbase;
  strncat(in_program, program_invocation_short_name, 50);
  say("ready");
  await_line();
  step_by(at_step, 0);
  int first = steps(7);  // looks up `in_library`
  step_by(at_step, 1);
  if (steps(7) != first) abort();
  // All that is to be seen has been seen.
  if (!stubs_stepped || !lookups_stepped || !library_stepped) abort();
  tell_chains();
  return 0;
}
