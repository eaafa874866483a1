"""What a target knows about the blocks that it leaves behind: a size for each place, and its stack.

A stack is Python's own account of it, with the functions of the extension module `bridge` between, as
that counts them. Outermost first.
"""
import sys

told = []
kept = []


def native():
    """The functions of `bridge` that run, each with how many Python frames lie outside."""
    return []


def trace(size, between=None, up=1):
    """Notes the stack of the caller, or of its caller, whose line is that of its allocation."""
    frame, frames = sys._getframe(up), []
    while frame is not None:
        code = frame.f_code
        # The qualified name is kept in a code object from 3.11 on.
        name = getattr(code, "co_qualname", code.co_name)
        frames.append("%s:%d" % (name, frame.f_lineno))
        frame = frame.f_back
    frames.reverse()
    for outside, name in reversed(native() if between is None else between):
        frames.insert(outside, name)
    told.append("site %d %s" % (size, ";".join(frames)))


def own_size(thing):
    """Bytes of the block behind a container, without the object itself."""
    return sys.getsizeof(thing) - sys.getsizeof(type(thing)())


def run(sites):
    """Says `ready`, waits for a line, runs the sites, tells what they have left behind, and waits."""
    print("ready", flush=True)
    sys.stdin.readline()
    sites()
    print("\n".join(told))
    print("done", flush=True)
    sys.stdin.read()
