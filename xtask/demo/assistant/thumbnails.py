"""Leak 4: native code that forgets to free. See `native/thumbnail.c`."""

import ctypes
import os

WIDTH, HEIGHT = 160, 100

_library = ctypes.CDLL(os.environ["THUMBNAIL_LIBRARY"])
for _function in (_library.leak_thumbnail, _library.draw_thumbnail):
    _function.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
    _function.restype = ctypes.c_size_t


def make():
    """Makes a thumbnail and loses it. Returns the bytes lost so far in this worker."""
    return _library.leak_thumbnail(WIDTH, HEIGHT)


def preview():
    """Makes a thumbnail and gives it back."""
    return _library.draw_thumbnail(WIDTH, HEIGHT)
