"""Makes functions and drops them at once, each with a name and a size of its own, as a template engine
or `exec` in a loop does. The name tells the size: `made_30001_` leaves 30001 bytes behind.

Takes the number of functions. Prints `done` when all are made.
"""
import ctypes
import sys

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
SOURCE = "def made_%d_(size):\n\n    return libc.malloc(size)\nmade_%d_(%d)\n"


def make(first, count):
    for size in range(first, first + count):
        exec(SOURCE % (size, size, size), {"libc": libc})


print("ready", flush=True)
sys.stdin.readline()
make(30001, int(sys.argv[1]))
print("done", flush=True)
sys.stdin.read()
