// A process that residue refuses to record, in its several builds. Waits until its input ends.
#include <unistd.h>

int main(void) {
  char byte;
  if (write(STDOUT_FILENO, "ready\n", 6) != 6) return 1;
  while (read(STDIN_FILENO, &byte, 1) == 1) {
  }
  return 0;
}
