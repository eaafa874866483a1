"""Fills Python's own allocator in known ways, one command a line on its input, `done` after each.

grow COUNT          requests that each leave one small entry in a cache, and garbage
rounds COUNT KEEP   allocations of many sizes, a line of its own for each round; half of them stay.
trace               starts tracemalloc
truth               prints `line NUMBER BYTES OBJECTS` for each line of a round: what tracemalloc says
                    that it still holds in blocks of up to 512 bytes
realloc             blocks that pass the border between Python's allocator and malloc
loop COUNT          allocates and frees small objects; prints `took NANOSECONDS`, per object
"""
import ctypes
import itertools
import sys
import time
import tracemalloc

CACHE = {}
KEPT = []
api = ctypes.pythonapi
for name, arguments in (
        ("Malloc", [ctypes.c_size_t]),
        ("Realloc", [ctypes.c_void_p, ctypes.c_size_t]),
        ("Free", [ctypes.c_void_p])):
    function = getattr(api, "PyObject_" + name)
    function.argtypes = arguments
    function.restype = None if name == "Free" else ctypes.c_void_p


def request(key, value):
    CACHE[key] = (key, value)


def garbage(key):
    return [str(key)]


def grow(count):
    for key in range(count):
        request(key, "value")
        garbage(key)


def rounds(count, keep):
    # The sizes are made once: only `bytes` is to allocate in a round's line.
    sizes = list(range(1, 480)) * (keep // 479)
    source = "[bytes(size) for size in SIZES],\n" * (2 * count)
    # Of each pair of lines, the second one's are given up.
    held = eval(compile("[" + source + "]", "rounds.py", "eval"), {"SIZES": sizes})
    del held[1::2]
    KEPT.append(held)


def truth():
    lines = {}
    for trace in tracemalloc.take_snapshot().traces:
        frame = trace.traceback[0]
        if frame.filename == "rounds.py" and trace.size <= 512:
            line = lines.setdefault(frame.lineno, [0, 0])
            line[0] += trace.size
            line[1] += 1
    for line, (size, objects) in sorted(lines.items()):
        print("line %d %d %d" % (line, size, objects))


def small(count):
    for _ in range(count):
        api.PyObject_Malloc(512)


def freed(count):
    for _ in range(count):
        api.PyObject_Free(api.PyObject_Malloc(512))


def moved(count):
    for _ in range(count):
        api.PyObject_Realloc(api.PyObject_Malloc(100), 512)


def grown(count):
    for _ in range(count):
        api.PyObject_Realloc(api.PyObject_Malloc(512), 20001)


def shrunk(count):
    for _ in range(count):
        api.PyObject_Realloc(api.PyObject_Malloc(20003), 512)


def loop(count):
    best = None
    for _ in range(5):
        began = time.perf_counter()
        for _ in itertools.repeat(None, count):
            object()
        took = (time.perf_counter() - began) / count * 1e9
        best = took if best is None else min(best, took)
    print("took %.1f" % best)


print("ready", flush=True)
for command in sys.stdin:
    name, *numbers = command.split()
    numbers = [int(number) for number in numbers]
    if name == "trace":
        tracemalloc.start()
    elif name == "realloc":
        for of in (small, freed, moved, grown, shrunk):
            of(50)
    else:
        globals()[name](*numbers)
    print("done", flush=True)
