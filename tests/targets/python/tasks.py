"""A server of asyncio whose requests each keep blocks of a size of their own: in their task, in tasks
and threads that it starts, in the parts of a stream and behind the response. What arrives on a connection
that all requests share keeps blocks, too, which are no request's.

Arguments: `fastapi`, `starlette` or `aiohttp`, and `asyncio` or `uvloop`. Prints `ready PID PORT`, and for each
request, when nothing is left to do for it, `held ID BYTES`.
"""
import asyncio
import collections
import contextvars
import ctypes
import itertools
import os
import socket
import sys
import threading

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
numbers = itertools.count(1)


class Request:
    def __init__(self, name):
        self.name = name
        self.size = 200000 + 1000 * next(numbers)
        self.held = 0

    def keep(self):
        assert libc.malloc(self.size)
        self.held += self.size

    def done(self):
        # In one piece: threads say so, too.
        os.write(1, b"held %s %d\n" % (self.name.encode(), self.held))

    async def child(self, depth):
        self.keep()
        await asyncio.sleep(0.002)
        if depth:
            await asyncio.gather(self.child(depth - 1), self.child(depth - 1))
        self.keep()

    async def work(self):
        """What handlers do: wait, start tasks, have something done in a thread, call back, ask others."""
        self.keep()
        await Shared.ask()
        self.keep()
        await asyncio.sleep(0.005)
        self.keep()
        await asyncio.gather(self.child(1), self.child(0))
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        # As asyncio.to_thread does, from 3.9 on.
        await loop.run_in_executor(None, context.run, self.keep)
        called = loop.create_future()
        loop.call_later(0.001, lambda: (self.keep(), called.set_result(None)))
        await called
        await asyncio.wait_for(self.child(0), 10)
        self.keep()

    async def parts(self):
        """Of a stream."""
        for _ in range(3):
            self.keep()
            await asyncio.sleep(0.002)
            yield b"part"
        self.done()

    async def afterwards(self):
        """Behind the response."""
        await self.child(1)
        self.done()


class Shared(asyncio.Protocol):
    """A connection, such as to a database, that the first request opens and all use."""

    connection = None

    def __init__(self):
        self.waiters = collections.deque()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        for _ in data:
            assert libc.malloc(200001)
            self.waiters.popleft().set_result(None)

    @classmethod
    async def ask(cls):
        loop = asyncio.get_running_loop()
        if cls.connection is None:
            cls.connection = asyncio.ensure_future(loop.create_connection(cls, *echo()))
        _, shared = await cls.connection
        waiter = loop.create_future()
        shared.waiters.append(waiter)
        shared.transport.write(b"?")
        await waiter


def echo():
    """The address of a server that answers each byte with it."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(1)

    def serve():
        accepted, _ = listening.accept()
        while True:
            accepted.sendall(accepted.recv(1))

    threading.Thread(target=serve, daemon=True).start()
    return listening.getsockname()


def listen():
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    print("ready %d %d" % (os.getpid(), listening.getsockname()[1]), flush=True)
    return listening


def serve_fastapi(loop):
    from fastapi import BackgroundTasks, FastAPI, Header
    from starlette.responses import StreamingResponse

    app = FastAPI()

    @app.middleware("http")
    async def middleware(request, call_next):
        return await call_next(request)

    @app.get("/plain")
    async def plain(x_request_id: str = Header(...)):
        request = Request(x_request_id)
        await request.work()
        request.done()

    @app.get("/thread")
    def thread(x_request_id: str = Header(...)):
        request = Request(x_request_id)
        request.keep()
        request.done()

    @app.get("/stream")
    async def stream(x_request_id: str = Header(...)):
        request = Request(x_request_id)
        await request.child(0)
        return StreamingResponse(request.parts())

    @app.get("/behind")
    async def behind(background: BackgroundTasks, x_request_id: str = Header(...)):
        request = Request(x_request_id)
        request.keep()
        background.add_task(request.keep)
        background.add_task(request.afterwards)

    serve_by_uvicorn(app, loop)


def serve_starlette(loop):
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.responses import PlainTextResponse, StreamingResponse
    from starlette.routing import Route

    def of(got):
        return Request(got.headers["X-Request-ID"])

    async def plain(got):
        request = of(got)
        await request.work()
        request.done()
        return PlainTextResponse("done")

    def thread(got):
        request = of(got)
        request.keep()
        request.done()
        return PlainTextResponse("done")

    async def stream(got):
        request = of(got)
        await request.child(0)
        return StreamingResponse(request.parts())

    async def behind(got):
        request = of(got)
        request.keep()
        return PlainTextResponse("done", background=BackgroundTask(request.afterwards))

    endpoints = [plain, thread, stream, behind]
    app = Starlette(routes=[Route("/" + it.__name__, it) for it in endpoints])
    serve_by_uvicorn(app, loop)


def serve_by_uvicorn(app, loop):
    import uvicorn

    config = uvicorn.Config(app, loop=loop, log_level="error", access_log=False)
    uvicorn.Server(config).run(sockets=[listen()])


def serve_aiohttp(loop):
    from aiohttp import web

    async def plain(got):
        request = Request(got.headers["X-Request-ID"])
        await request.work()
        request.done()
        return web.Response(text="done")

    async def stream(got):
        request = Request(got.headers["X-Request-ID"])
        await request.child(1)
        response = web.StreamResponse()
        await response.prepare(got)
        async for part in request.parts():
            await response.write(part)
        return response

    if loop == "uvloop":
        import uvloop

        uvloop.install()
    app = web.Application()
    app.router.add_get("/plain", plain)
    app.router.add_get("/stream", stream)
    web.run_app(app, sock=listen(), print=None)


if __name__ == "__main__":
    server, loop = sys.argv[1:]
    serve = {"fastapi": serve_fastapi, "starlette": serve_starlette, "aiohttp": serve_aiohttp}
    serve[server](loop)
