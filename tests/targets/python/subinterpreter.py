"""Leaks in a subinterpreter, in a function of its own, once it has read a line; then waits."""
try:
    import _xxsubinterpreters as interpreters
except ImportError:
    import _interpreters as interpreters

CODE = '''
import ctypes, sys
libc = ctypes.PyDLL(None)
libc.malloc.restype = ctypes.c_void_p

def in_the_subinterpreter():
    libc.malloc(30001)

print("ready", flush=True)
sys.stdin.readline()
in_the_subinterpreter()
print("done", flush=True)
sys.stdin.read()
'''


def create():
    # An interpreter with a GIL of its own does not load ctypes.
    for arguments in [{"isolated": False}, {"config": "legacy"}]:
        try:
            return interpreters.create(**arguments)
        except TypeError:
            pass
    return interpreters.create()


def enter():
    run = getattr(interpreters, "run_string", None) or interpreters.exec
    run(create(), CODE)


enter()
