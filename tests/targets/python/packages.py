"""Leaves memory behind through numpy, lxml and orjson, and through Python that they call.

A stack has the package's name where its native code runs.
"""
import ctypes
import sys

import numpy
import orjson
from lxml import etree
from truth import kept, run, trace

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc_usable_size.restype = ctypes.c_size_t
XML = b"<a>" + b"<b><c>text</c></b>" * 5000 + b"</a>"


def depth():
    """Python frames of the caller's caller, itself included."""
    frame, count = sys._getframe(2), 0
    while frame is not None:
        frame, count = frame.f_back, count + 1
    return count


def keep(thing):
    kept.append(thing)


def at_leaf(package, size):
    trace(size, [(depth(), package)], 2)


def called_by(package, size):
    trace(size, [(depth() - 1, package)], 2)


def arrays():
    (keep(numpy.zeros(30001, numpy.uint8)), at_leaf("numpy", 30001))
    (keep(numpy.empty((71, 77))), at_leaf("numpy", 8 * 71 * 77))
    (keep(numpy.arange(5003)), at_leaf("numpy", 8 * 5003))
    (keep(kept[0][:29009].copy()), at_leaf("numpy", 29009))
    (keep(numpy.zeros(5011) + 1), at_leaf("numpy", 8 * 5011))
    numpy.frompyfunc(called_by_numpy, 1, 1)(numpy.arange(1))


def called_by_numpy(_):
    (libc.malloc(30003), called_by("numpy", 30003))
    return 0


def trees():
    (keep(etree.fromstring(XML)), at_leaf("lxml", 0))
    kept[-1].xpath("f()", extensions={(None, "f"): called_by_lxml})


def called_by_lxml(_):
    (libc.malloc(30004), called_by("lxml", 30004))
    return 0


class Other:
    pass


def called_by_orjson(_):
    (libc.malloc(30005), called_by("orjson", 30005))
    (keep(numpy.zeros(30006, numpy.uint8)), between_both(30006))
    return None


def between_both(size):
    trace(size, [(depth() - 1, "orjson"), (depth(), "numpy")], 2)


def usable(thing):
    """Bytes of the block that an object is: orjson takes far more than the document needs."""
    return libc.malloc_usable_size(ctypes.c_void_p(id(thing)))


def documents():
    (keep(orjson.dumps(list(range(10007)))), at_leaf("orjson", usable(kept[-1])))
    orjson.dumps([Other()], default=called_by_orjson)


def sites():
    arrays()
    trees()
    documents()


run(sites)
