// An object that says nothing about how to unwind it. Built twice, with and without frame pointers.
//
// It calls back through a pointer, so that it needs no stub, for which the linker would make a table.
__attribute__((noipa)) static int call_it(void (*callback)(int), int number) {
  volatile int local[20];
  local[number & 7] = number;
  callback(number);
  return local[number & 7];
}

int call_back(void (*callback)(int), int number) {
  volatile int local[50];
  local[number & 7] = call_it(callback, number);
  return local[number & 7];
}
