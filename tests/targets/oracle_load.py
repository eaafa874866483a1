"""Allocates from as many different native stacks as an interpreter has, until it is killed.

Run with PYTHONMALLOC=malloc every object is an allocation of the C library.
"""

import collections
import ctypes
import decimal
import functools
import hashlib
import io
import itertools
import json
import operator
import pickle
import random
import re
import struct
import threading
import time
import zlib

LIBC = ctypes.CDLL(None)
COMPARISON = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int)
)
DOCUMENT = {
    "users": [
        {"id": n, "name": f"user {n}", "scores": [n / 3, n / 7], "tags": {"a": None, "b": True}}
        for n in range(12)
    ]
}


def parse(depth):
    text = json.dumps(DOCUMENT, indent=depth % 3, sort_keys=depth % 2 == 0)
    return len(json.loads(text)["users"]) + descend(depth)


def match(depth):
    pattern = re.compile(rf"(\w+)-{{1,{1 + depth}}}(?P<number>\d+|[a-f]{{2,}})")
    text = " ".join(f"word{n}-{n * 7}" for n in range(20))
    found = pattern.sub(lambda it: it["number"].upper() + str(descend(depth - 1)), text, count=1)
    re.purge()
    return len(found)


def map_keys(depth):
    counts = collections.Counter(str(n % 17) for n in range(200))
    table = {(key, n): [key] * n for key, n in counts.items()}
    table.update({n: descend(depth - 1) for n in range(2)})
    return len(table) + len({**table, **counts})


def generate(depth):
    def numbers(limit):
        for n in range(limit):
            yield from (n, str(n), [n])

    pairs = itertools.groupby(sorted(map(str, numbers(30))), key=len)
    return sum(len(list(group)) for _, group in pairs) + descend(depth)


def raise_and_catch(depth):
    try:
        with io.BytesIO() as buffer:
            buffer.write(b"x" * 1000)
            if depth % 2:
                raise ValueError(f"on purpose at {depth}")
            return descend(depth)
    except ValueError as error:
        return len(str(error)) + descend(depth)
    finally:
        bytes(500)


def sort_by_callback(depth):
    numbers = (ctypes.c_int * 9)(*random.sample(range(100), 9))

    def compare(left, right):
        return (left[0] > right[0]) - (left[0] < right[0]) + 0 * len(str(descend(0)))

    LIBC.qsort(numbers, len(numbers), ctypes.sizeof(ctypes.c_int), COMPARISON(compare))
    return numbers[0] + descend(depth)


class Shape:
    registry = {}

    def __init_subclass__(cls, **arguments):
        super().__init_subclass__(**arguments)
        cls.registry[cls.__name__] = cls

    def __init__(self, depth):
        self.depth = depth
        self.children = [object() for _ in range(depth)]

    def __getattr__(self, name):
        return descend(self.depth - 1), name

    def __lt__(self, other):
        return len(self.children) + descend(0) < len(other.children)


def make_classes(depth):
    kind = type(f"Shape{depth}", (Shape,), {"extra": property(lambda self: descend(depth - 1))})
    shapes = sorted(kind(n % 5) for n in range(6))
    return len(shapes) + len(repr(shapes[0].missing)) + shapes[1].extra


def encode(depth):
    data = pickle.dumps(DOCUMENT) + struct.pack("<10d", *range(10))
    packed = zlib.compress(data, depth % 9)
    digest = hashlib.sha256(zlib.decompress(packed)).hexdigest()
    return len(digest) + int(decimal.Decimal(depth + 2).sqrt() * 10) + descend(depth)


def evaluate(depth):
    names = {"descend": descend, "depth": depth}
    code = compile("sum(descend(depth - 2) for _ in range(1)) + len([*'abc'])", "<made>", "eval")
    return eval(code, names)


def reduce(depth):
    return functools.reduce(operator.add, (10**n for n in range(60)), descend(depth)) % 1000


SHAPES = [
    parse,
    match,
    map_keys,
    generate,
    raise_and_catch,
    sort_by_callback,
    make_classes,
    encode,
    evaluate,
    reduce,
]


def descend(depth):
    if depth <= 0:
        return len(bytearray(random.randrange(1, 2000)))
    return random.choice(SHAPES)(depth - 1)


def work():
    while True:
        descend(random.randrange(1, 8))
        Shape.registry.clear()


def main():
    for shape in SHAPES:
        shape(2)
    for _ in range(2):
        threading.Thread(target=work, daemon=True).start()
    print("ready", flush=True)
    while True:
        time.sleep(0.05)
        descend(3)


main()
