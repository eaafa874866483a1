"""Leaves a known size behind at each of its places. With the argument `bridge`, also through C."""
import asyncio
import contextlib
import ctypes
import functools
import operator
import signal
import sys
import threading

import truth
from truth import kept, own_size, run, trace

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
# Keeps the GIL while it calls.
held = ctypes.PyDLL(None)
held.malloc.restype = ctypes.c_void_p


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

    @staticmethod
    def static(size):
        plain(size)

    @classmethod
    def of_class(cls, size):
        plain(size)

    def __init__(self, size):
        plain(size)

    def __getattr__(self, name):
        return plain(int(name[1:]))

    def __getitem__(self, size):
        return plain(size)

    def __enter__(self):
        return plain(20022)

    def __exit__(self, *_):
        return plain(20023)



class Dying:
    def __del__(self):
        plain(20024)


def generator(size):
    yield None
    yield (libc.malloc(size), trace(size))


def delegating(size):
    yield from generator(size)


def finally_in_a_generator(size):
    try:
        yield
    finally:
        (libc.malloc(size), trace(size))


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


def closure(size):
    def inside():
        return plain(size)
    return inside


@contextlib.contextmanager
def context(size):
    yield (libc.malloc(size), trace(size))


async def inner(size):
    await asyncio.sleep(0)
    (libc.malloc(size), trace(size))


async def numbers():
    await asyncio.sleep(0)
    (libc.malloc(20025), trace(20025))
    yield 20027
    (libc.malloc(20026), trace(20026))
    yield None


class Manager:
    async def __aenter__(self):
        await inner(20029)

    async def __aexit__(self, *_):
        await inner(20030)


async def outer(size):
    await asyncio.gather(inner(size))
    async for number in numbers():
        number and plain(number)
    async with Manager():
        plain(20031)
    [(libc.malloc(20032), trace(20032)) async for _ in one()]
    await asyncio.get_running_loop().run_in_executor(None, plain, 20033)


async def one():
    yield 1


def called_back(_):
    plain(20004)
    return 0


# Kept: a code object that is freed at once may be gone before residue has read its name.
MADE = compile(
    "def made():\n\n  return (libc.malloc(20018), trace(20018))\nmade()", "<string>", "exec")
UNICODE = compile(
    "def größe_大小_𝐱(größe):\n  (libc.malloc(größe), trace(größe))\n\n\ngröße_大小_𝐱(20034)",
    "/srv/übung/" + "very_long_directory/" * 40 + "модуль.py", "exec")
LONG_BODY = compile(
    "def long_body(a):\n" + "    a = a + 1; b = (a,\n  2)\n" * 1500 + "\n" * 400
    + "    (libc.malloc(20035), trace(20035))\nlong_body(1)", "<string>", "exec")
EXPRESSION = compile("plain(20045)", "<string>", "eval")
THROUGH_C = compile("bridge.keep(40010)", "<string>", "exec")
CLASS_BODY = compile(
    "class Body:\n  x = (libc.malloc(20036), trace(20036))\n", "<string>", "exec")


def on_signal(*_):
    plain(20037)


def exceptions(size):
    try:
        raise ValueError
    except ValueError:
        try:
            recursion(2, size)
        finally:
            plain(size + 1)


def calls():
    plain(20001)
    with_the_gil(20002)
    session = Session(20005)
    session.method(20006)
    Session(20007).attribute
    session.static(20038)
    session.of_class(20039)
    session._20040
    session[20041]
    with session:
        pass
    Dying()
    closure(20042)()
    with context(20043):
        pass
    behind_a_decorator(20010)
    recursion(30, 20011)
    recursion(90, 20044)
    (lambda size: (libc.malloc(size), trace(size)))(20017)
    exec(MADE, globals())
    exec(UNICODE, globals())
    exec(LONG_BODY, globals())
    exec(CLASS_BODY, globals())
    eval(EXPRESSION)
    sorted([1], key=lambda _: plain(20019))
    list(map(plain, [20046]))
    functools.partial(plain, 20047)()
    operator.methodcaller("of_class", 20048)(Session)
    exceptions(20049)
    ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(called_back)(1)
    signal.signal(signal.SIGUSR1, on_signal)
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
    functools.reduce(lambda _, size: plain(size), [0, 20051])


def generators():
    list(generator(20008))
    list(delegating(20009))
    [(libc.malloc(20012), trace(20012)) for i in range(2)]
    list((libc.malloc(20014), trace(20014)) for i in range(2))
    {i: (libc.malloc(20016), trace(20016)) for i in range(1)}
    {(libc.malloc(20052), trace(20052)) for i in range(1)}
    [[(libc.malloc(20053), trace(20053)) for i in range(1)] for j in range(1)]
    suspended = finally_in_a_generator(20054)
    next(suspended)
    suspended.close()
    suspended = finally_in_a_generator(20055)
    next(suspended)
    with contextlib.suppress(KeyError):
        suspended.throw(KeyError())
    any(plain(size) for size in [20056])


def threads():
    asyncio.new_event_loop().run_until_complete(outer(20020))
    for depth, size in enumerate((20021, 20057)):
        thread = threading.Thread(target=recursion, args=(depth, size))
        thread.start()
        thread.join()


def keep(*things):
    kept.extend(things)


def objects():
    """Large enough to be the C library's: more than 512 bytes. What an object's head takes may come
    from the interpreter's arenas."""
    (keep(bytearray(30000)), trace(30001))
    (keep([None] * 3001), trace(8 * 3001))
    (keep(list(range(3100))), trace(own_size(kept[-1])))
    (keep(set(range(5000))), trace(own_size(kept[-1])))
    (keep(bytes(30100)), trace(sys.getsizeof(kept[-1])))
    (keep("x" * 30200), trace(sys.getsizeof(kept[-1])))
    (keep("ж" * 15300), trace(sys.getsizeof(kept[-1])))
    (keep((None,) * 3333), trace(sys.getsizeof(kept[-1])))
    (keep(b"".join([b"x" * 300] * 101)), trace(sys.getsizeof(kept[-1])))
    (keep(int.from_bytes(b"\xff" * 30000, "big")), trace(sys.getsizeof(kept[-1])))
    (keep(libc.malloc(1 << 30)), trace(1 << 30))


def ping(levels, size):
    """Python, then C, then Python again: a block at each level."""
    bridge.keep(size)
    (libc.malloc(size + 100), trace(size + 100))
    if levels:
        bridge.descend(levels % 3 + 1, pong, levels - 1, size + 1)


def pong(levels, size):
    bridge.keep(size + 200)
    for _ in (bridge.apply(ping, levels, size) for _ in [1]):
        pass


class Sorted:
    def __init__(self, size):
        self.size = size

    def __lt__(self, _):
        bridge.keep(self.size)
        return False


async def awaits_c(size):
    await asyncio.sleep(0)
    bridge.descend(2, bridge.keep, size)
    return bridge.apply(recursion, 4, size + 1)


def through_c():
    bridge.keep(40001)
    bridge.descend(1, plain, 40002)
    bridge.descend(3, bridge.keep, 40003)
    bridge.apply(bridge.apply, bridge.descend, 2, bridge.apply, bridge.keep, 40004)
    ping(7, 40100)
    bridge.apply(sorted, [Sorted(40005), Sorted(40006)])
    bridge.descend(1, list, (bridge.keep(40007) for _ in range(1)))
    asyncio.new_event_loop().run_until_complete(awaits_c(40008))
    bridge.descend(2, exec, THROUGH_C, globals())
    thread = threading.Thread(target=bridge.descend, args=(2, ping, 3, 41100))
    thread.start()
    thread.join()


def sites():
    calls()
    generators()
    threads()
    objects()
    if bridge:
        through_c()


bridge = None
if "bridge" in sys.argv:
    import bridge
    bridge.set_trace(trace)
    truth.native = bridge.frames
run(sites)
