"""Leaks a known size at each of its places, and prints the stack that Python itself sees there.

Waits for a line, makes its leaks, prints `site BYTES FUNCTION:LINE;...` for each, outermost first, and
`done`; then waits for its input to end.
"""
import asyncio
import ctypes
import functools
import sys
import threading

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
# Keeps the GIL while it calls.
held = ctypes.PyDLL(None)
held.malloc.restype = ctypes.c_void_p
printed = []


def trace(size):
    """Notes the stack of the caller, whose line is that of its allocation."""
    frame, names = sys._getframe(1), []
    while frame is not None:
        code = frame.f_code
        name = getattr(code, "co_qualname", code.co_name)
        names.append("%s:%d" % (name, frame.f_lineno))
        frame = frame.f_back
    printed.append("site %d %s" % (size, ";".join(reversed(names))))


def plain(size):
    return (libc.malloc(size), trace(size))


def with_the_gil(size):
    return (held.malloc(size), trace(size))


class Session:
    def method(self, size):
        return (libc.malloc(size),
                trace(size)) if size < 0 else plain(size)

    @property
    def attribute(self):
        return plain(20003)

    def __init__(self, size):
        plain(size)


def generator(size):
    yield None
    yield (libc.malloc(size), trace(size))


def delegating(size):
    yield from generator(size)


def decorated(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)
    return wrapper


@decorated
def behind_a_decorator(size):
    (libc.malloc(size), trace(size))


def recursion(depth, size):
    if depth:
        return recursion(depth - 1, size)
    return (libc.malloc(size), trace(size))


async def inner(size):
    await asyncio.sleep(0)
    (libc.malloc(size), trace(size))


async def outer(size):
    await asyncio.gather(inner(size))


def called_back(_):
    plain(20004)
    return 0


# Kept: a code object that is freed at once may be gone before residue has read its name.
MADE = compile(
    "def made():\n\n  return (libc.malloc(20018), trace(20018))\nmade()", "<string>", "exec")


def sites():
    plain(20001)
    with_the_gil(20002)
    Session(20005).method(20006)
    Session(20007).attribute
    list(generator(20008))
    list(delegating(20009))
    behind_a_decorator(20010)
    recursion(30, 20011)
    [(libc.malloc(20012), trace(20012)) for i in range(2)]
    list((libc.malloc(20014), trace(20014)) for i in range(2))
    {i: (libc.malloc(20016), trace(20016)) for i in range(1)}
    (lambda size: (libc.malloc(size), trace(size)))(20017)
    exec(MADE, globals())
    sorted([1], key=lambda _: plain(20019))
    asyncio.new_event_loop().run_until_complete(outer(20020))
    thread = threading.Thread(target=plain, args=(20021,))
    thread.start()
    thread.join()
    ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(called_back)(1)


print("ready", flush=True)
sys.stdin.readline()
sites()
print("\n".join(printed))
print("done", flush=True)
sys.stdin.read()
