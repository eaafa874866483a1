// Ten blocks of a thousand bytes, which nobody frees.
#define KEEP_TEN()                                      \
  do {                                                  \
    for (int i = 0; i < 10; i++) {                      \
      void *volatile kept = malloc(1000);               \
      (void)kept;                                       \
    }                                                   \
    __asm__ volatile("" ::: "memory");                  \
  } while (0)
