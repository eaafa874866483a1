#!/bin/sh
# The guest's first process: shows what the kernel says to each program, runs the tests, and switches
# the machine off. The host reads the tests' results from the console.
export PATH=/bin RESIDUE_BIN=/residue RESIDUE_FIXTURES=/fixtures
export RESIDUE_TEST_RUNS=1 RESIDUE_TEST_CALLS=2000
busybox mount -t devtmpfs dev /dev
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t tmpfs tmp /tmp
if /residue inspect programs; then
    /tests --test-threads=1 exactness::
fi
busybox poweroff -f
