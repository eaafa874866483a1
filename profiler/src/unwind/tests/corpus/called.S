# What compilers write: pushes, a frame pointer, a realigned stack, a remembered state.
# Made, as the others here, by: sh make.sh
    .globl saved
saved:
    .cfi_startproc
    push %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset %rbp, -16
    mov %rsp, %rbp
    .cfi_def_cfa_register %rbp
    .cfi_remember_state
    leave
    .cfi_def_cfa %rsp, 8
    ret
    .cfi_restore_state
    call other
    leave
    .cfi_def_cfa %rsp, 8
    .cfi_restore %rbp
    ret
    .cfi_endproc
    .globl realigned
realigned:
    .cfi_startproc
    lea 8(%rsp), %r10
    .cfi_def_cfa %r10, 0
    and $-32, %rsp
    push -8(%r10)
    push %rbp
    mov %rsp, %rbp
    .cfi_escape 0x10, 6, 2, 0x76, 0
    push %r10
    .cfi_escape 0x0f, 3, 0x76, 0x78, 6
    sub $8, %rsp
    ret
    .cfi_endproc
    .globl other
other:
    .cfi_startproc
    sub $70000, %rsp
    .cfi_def_cfa_offset 70008
    jmp saved@plt
    .cfi_endproc
    .globl _start
_start:
    .cfi_startproc
    .cfi_undefined %rip
    hlt
    .cfi_endproc
