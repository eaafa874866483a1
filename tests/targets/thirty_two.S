// A 32-bit process without a C library: says "ready", then waits until its input ends.
// System calls by int 0x80 (i386: read 3, write 4, exit 1).
        .section .rodata
ready:  .ascii "ready\n"
        .text
        .globl _start
_start: movl $4, %eax
        movl $1, %ebx
        movl $ready, %ecx
        movl $6, %edx
        int $0x80
wait:   movl $3, %eax
        movl $0, %ebx
        leal -16(%esp), %ecx
        movl $1, %edx
        int $0x80
        cmpl $1, %eax
        je wait
        movl $1, %eax
        movl $0, %ebx
        int $0x80
        .section .note.GNU-stack, "", @progbits
