// Allocates in functions whose names a test looks for.
//
// Usage: named [LIBRARY]...   paths of libraries like named_library.c's
//
// "call N FUNCTION" calls a function of the Nth library, "call 0 in_program" the program's own one; it takes
// ten blocks and keeps them. The answer is "called".
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "named.h"

__attribute__((noinline)) static void in_program(void) { KEEP_TEN(); }

int main(int argc, char **argv) {
  char line[256], name[128];
  int which;
  // Their buffers are taken once and for all.
  setvbuf(stdin, NULL, _IONBF, 0);
  setvbuf(stdout, NULL, _IONBF, 0);
  void *libraries[8] = {NULL};
  for (int i = 1; i < argc && i < 8; i++) {
    libraries[i] = dlopen(argv[i], RTLD_NOW | RTLD_LOCAL);
    if (!libraries[i]) return 2;
  }
  puts("ready");
  while (fgets(line, sizeof line, stdin)) {
    if (sscanf(line, "call %d %127s", &which, name) != 2) break;
    void (*function)(void) = in_program;
    if (which > 0 && which < 8) {
      if (!libraries[which]) return 3;
      *(void **)&function = dlsym(libraries[which], name);
    }
    if (!function) return 4;
    function();
    puts("called");
  }
  return 0;
}
