"""Threads that sleep, and what Python itself says of their stacks.

Prints `thread IDENT FUNCTION:LINE;...` for each, innermost first, and `ready`; then waits for its input
to end.
"""
import sys
import threading
import time


def sleep():
    time.sleep(1000)


class Worker:
    def run(self, depth):
        if depth:
            return self.run(depth - 1)
        return [sleep() for _ in range(1)]


def generator():
    yield sleep()


def stack(frame):
    names = []
    while frame is not None:
        code = frame.f_code
        name = getattr(code, "co_qualname", code.co_name)
        names.append("%s:%d" % (name, frame.f_lineno))
        frame = frame.f_back
    return ";".join(names)


def report():
    time.sleep(0.3)
    for ident, frame in sys._current_frames().items():
        if ident != threading.get_ident():
            print("thread %#x %s" % (ident, stack(frame)))
    print("ready", flush=True)
    time.sleep(1000)


for function in [sleep, lambda: Worker().run(20), lambda: list(generator()), report]:
    threading.Thread(target=function, daemon=True).start()
sys.stdin.read()
