"""Lies about its own frames, and is honest in another thread. See hostile.c."""
import ctypes
import sys
import threading

import hostile
from truth import run, told, trace

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p


def honest(size):
    return (libc.malloc(size), trace(size))


def others():
    honest(60001)
    [honest(60003) for _ in range(2)]


def sites():
    honest(60002)
    thread = threading.Thread(target=others)
    thread.start()
    lies = hostile.lie(int(sys.argv[1]))
    thread.join()
    told.append("site %d lies" % lies)
    honest(60004)


run(sites)
