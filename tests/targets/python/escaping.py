"""Servers of asyncio that have their work done in other threads: `/executor` by `loop.run_in_executor`, which copies
no context, `/thread` in one. Each request of both keeps 10,001 bytes, one of `/clean` keeps none.

Argument: `streams` (`asyncio.start_server`), `aiohttp`, `uvicorn` or `hypercorn`, which runs a WSGI application in an
executor by itself. Prints `ready PID PORT`.
"""
import asyncio
import contextvars
import os
import socket
import sys

KEPT = []


def keep():
    KEPT.append(bytearray(10000))


def pass_by():
    bytearray(20000)


async def work(path):
    loop = asyncio.get_running_loop()
    if path == "/thread":
        # As asyncio.to_thread does, from 3.9 on.
        await loop.run_in_executor(None, contextvars.copy_context().run, keep)
    else:
        await loop.run_in_executor(None, keep if path == "/executor" else pass_by)


def listen():
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    print("ready %d %d" % (os.getpid(), listening.getsockname()[1]), flush=True)
    return listening


def serve_streams():
    async def handle(reader, writer):
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            await work(head.split()[1].decode())
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
            if b"Connection: close" in head:
                break
        writer.close()

    async def run():
        server = await asyncio.start_server(handle, sock=listen())
        await server.serve_forever()

    asyncio.run(run())


def serve_aiohttp():
    from aiohttp import web

    async def handle(request):
        await work(request.path)
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_get("/{path}", handle)
    web.run_app(app, sock=listen(), print=None)


def serve_uvicorn():
    import uvicorn

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        await work(scope["path"])
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[listen()])


def serve_hypercorn():
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    def app(environ, start_response):
        (keep if environ["PATH_INFO"] == "/executor" else pass_by)()
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    config = Config()
    config.bind = ["fd://%d" % listen().detach()]
    config.loglevel = "ERROR"
    asyncio.run(serve(app, config, mode="wsgi"))


if __name__ == "__main__":
    globals()["serve_" + sys.argv[1]]()
