#!/bin/sh
# Makes the objects beside this file from their sources, with binutils 2.40. Run it here.
set -eu
# Small pages, because the files would be zeros otherwise.
link="ld -s -z noseparate-code -z max-page-size=512 --hash-style=sysv"
for name in called signal debug_frame without_sections; do
    as "$name.S" -o "$name.o"
done
$link -shared --eh-frame-hdr called.o -o called.elf
$link signal.o -o signal.elf
# -S and -s would take .debug_frame away.
ld -z noseparate-code -z max-page-size=512 --section-start=.second=0x402000 debug_frame.o -o debug_frame.elf
objcopy --keep-section=.debug_frame --strip-unneeded debug_frame.elf
$link --eh-frame-hdr without_sections.o -o without_sections.elf
# e_shoff, e_shnum and e_shstrndx of the ELF header become zero.
dd if=/dev/zero of=without_sections.elf bs=1 seek=40 count=8 conv=notrunc status=none
dd if=/dev/zero of=without_sections.elf bs=1 seek=60 count=4 conv=notrunc status=none
rm called.o signal.o debug_frame.o without_sections.o
