// A library whose functions begin with an instruction that the kernel puts no probe on: a breakpoint.
// Nobody calls them.

.macro unprobeable name
  .globl \name
  .type \name, @function
\name:
  int3
  ret
  .size \name, . - \name
.endm

.text
unprobeable SSL_read
unprobeable SSL_write
unprobeable SSL_free
unprobeable malloc
unprobeable calloc
unprobeable realloc
unprobeable free

.section .note.GNU-stack, "", @progbits
