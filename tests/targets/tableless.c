// Allocates below an object without any unwind table.
//
// Usage: tableless LIBRARY whole    it keeps frame pointers, by which its callers are found
//        tableless LIBRARY cut      it does not: the stack ends there, and has to say so
//        tableless LIBRARY astray   nor does it, and its caller happens to use rbp as frame pointer:
//                                   whoever followed that would skip the caller and not notice
#include <dlfcn.h>

#include "chain.h"

static int (*call_back)(void (*callback)(int), int number);

// What lies outside of where the stack is cut is not expected.
static int is_cut;

SITE(site_called_back);
static CALLED void site_called_back(int number) {
  FRAME;
  took_here(&site_called_back_totals, malloc((size_t)number), (size_t)number);
}

// A macro, as the object's caller must be the function that does something odd with rbp.
#define CALL_THROUGH_OBJECT(number)                                \
  if (is_cut) {                                                    \
    depth = 0;                                                     \
    ENTER("cut");                                                  \
    ENTER("module:libtableless.so");                               \
    call_back(site_called_back, number);                           \
  } else {                                                         \
    ENTER("call_back");                                            \
    ENTER("call_it");                                              \
    call_back(site_called_back, number);                           \
  }

// While the call is under way rbp is no address at all.
static CALLED void counts_in_rbp(int number) {
  FRAME;
  __asm__ volatile("mov $0x1234567, %%rbp" ::: "rbp");
  CALL_THROUGH_OBJECT(number)
}

// The size of its frame is not known, so it counts from rbp.
static CALLED void counts_from_rbp(int number) {
  char local[number];
  FRAME;
  KEEPS(local);
  CALL_THROUGH_OBJECT(number)
  KEEPS(local);
}

int main(int argc, char **argv) {
  FRAME;
  void *library = argc == 3 ? dlopen(argv[1], RTLD_NOW) : NULL;
  if (!library) return 2;
  *(void **)&call_back = dlsym(library, "call_back");
  is_cut = strcmp(argv[2], "whole") != 0;
  say("ready");
  await_line();
  if (strcmp(argv[2], "astray") != 0) counts_in_rbp(100);
  if (strcmp(argv[2], "cut") != 0) counts_from_rbp(200);
  tell_chains();
  return 0;
}
