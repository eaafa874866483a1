# An object whose section headers are cut off: .eh_frame is found through PT_GNU_EH_FRAME.
    .globl _start
_start:
    .cfi_startproc
    push %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset %rbp, -16
    pop %rbp
    .cfi_def_cfa_offset 8
    ret
    .cfi_endproc
