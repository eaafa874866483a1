# glibc's signal trampoline, with what its call frame information says; and one like musl's, without.
    nop
    .cfi_startproc
    .cfi_signal_frame
    .cfi_escape 0x0f, 4, 0x77, 0xa0, 1, 6
    .cfi_escape 0x10, 6, 3, 0x77, 0xf8, 0
    .cfi_escape 0x10, 16, 3, 0x77, 0xa8, 1
    nop
    .globl restore_rt
restore_rt:
    mov $15, %rax
    syscall
    .cfi_endproc
    .skip 16, 0xcc
    .globl restore_rt_of_musl
restore_rt_of_musl:
    mov $15, %eax
    syscall
    .skip 16, 0xcc
    .globl _start
_start:
    ret
