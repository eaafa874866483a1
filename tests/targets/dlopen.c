// Loads two libraries while it is recorded: one allocates from the C library, one brings its own
// malloc.
//
// Usage: dlopen PLUGIN BUNDLED   paths of the two libraries
//
// Between loading the second one and using it, it prints "loaded" and waits for a line: probes in
// a library that appears during a recording are put in from outside, some time after.
#define _GNU_SOURCE
#include <dlfcn.h>

#include "ground_truth.h"

typedef void (*use_library)(struct site *site, size_t count);

SITE(site_in_plugin);
SITE(site_in_bundled);

static use_library load(const char *path, const char *function) {
  // DEEPBIND: a library that brings its own malloc means that one.
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
  if (!library) {
    say(dlerror());
    _exit(2);
  }
  return (use_library)dlsym(library, function);
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  say("ready");
  await_line();
  use_library plugin = load(argv[1], "use_plugin");
  plugin(&site_in_plugin_totals, 300);

  use_library bundled = load(argv[2], "use_bundled");
  say("loaded");
  await_line();
  bundled(&site_in_bundled_totals, 200);

  tell_truth(1);
  return 0;
}
