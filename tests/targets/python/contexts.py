"""Threads in contexts of contextvars, as asyncio enters them, and what Python itself says of these.

Prints `context IDENT ADDRESS` for each thread, `none` where it is in no context, and `ready`; then
waits, in a task, for its input to end.
"""
import asyncio
import contextvars
import gc
import sys
import threading
import time


def say(address):
    print("context %#x %s" % (threading.get_ident(), address), flush=True)


def sleep(address):
    say(address)
    time.sleep(1000)


def context_of_task():
    """Before 3.12 a task does not tell its context, but leads there; behind it, to those of callbacks."""
    task = asyncio.current_task()
    if hasattr(task, "get_context"):
        return "%#x" % id(task.get_context())
    contexts = (it for it in gc.get_referents(task) if isinstance(it, contextvars.Context))
    return "%#x" % id(next(contexts))


async def task():
    await asyncio.sleep(0.001)
    sleep(context_of_task())


async def parent():
    await asyncio.gather(asyncio.ensure_future(task()))


def loop():
    asyncio.new_event_loop().run_until_complete(parent())


def callback():
    """What a transport's callback is: no task, but a context of its own."""
    context = contextvars.copy_context()
    loop = asyncio.new_event_loop()
    loop.call_soon(sleep, "%#x" % id(context), context=context)
    loop.run_forever()


def nested():
    outer, inner = contextvars.copy_context(), contextvars.Context()
    outer.run(inner.run, sleep, "%#x" % id(inner))


def left():
    """Behind a context that was left, the one before is entered again."""
    outer = contextvars.copy_context()

    def run():
        contextvars.copy_context().run(int)
        sleep("%#x" % id(outer))

    outer.run(run)


THREADS = [loop, callback, nested, left, lambda: sleep("none")]
for function in THREADS:
    threading.Thread(target=function, daemon=True).start()
    time.sleep(0.2)


async def main():
    say(context_of_task())
    print("ready", flush=True)
    sys.stdin.read()


asyncio.get_event_loop_policy().new_event_loop().run_until_complete(main())
