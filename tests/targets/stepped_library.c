// A function in another object, for stepped.c. It has a frame, which comes and goes.
int in_library(int number) {
  volatile int local[100];
  local[number & 63] = number;
  __asm__ volatile("" ::: "rbx", "rbp", "r12");
  return local[number & 63] * 3;
}
