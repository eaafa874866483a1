"""Servers of threads that have their work done by a pool behind a `queue.Queue` or behind a list and a condition. Each
request of `/leak` has 10,001 bytes kept, one of `/clean` none; one of `/plain` asks nothing of the pool. A sampler
keeps as much 50 times a second, whatever goes on beside it, and so does a loop that waits for a pipe.

Arguments: `threads` (`http.server`, a thread a connection), `flask`, or `gunicorn` (eight threads, which take their work
from a `queue.SimpleQueue`); then `queue` or `list`. Prints `ready PID PORT`.
"""
import os
import queue
import select
import sys
import threading
import time

WORKERS = 4
KEPT = []


def keep():
    KEPT.append(bytearray(10000))


def pass_by():
    bytearray(20000)


class List:
    """What has the methods of `queue.Queue` that are needed here."""

    def __init__(self):
        self.waiting = []
        self.came = threading.Condition()

    def put(self, item):
        with self.came:
            self.waiting.append(item)
            self.came.notify()

    def get(self):
        with self.came:
            while not self.waiting:
                self.came.wait()
            return self.waiting.pop(0)


JOBS = List() if sys.argv[-1] == "list" else queue.Queue()


def work():
    while True:
        job, done = JOBS.get()
        job()
        done.set()


def sample():
    while True:
        keep()
        time.sleep(0.02)


def loop():
    reads, _ = os.pipe()
    poll = select.epoll()
    poll.register(reads, select.EPOLLIN)
    while True:
        keep()
        poll.poll(0.02)


def start_threads():
    for target in [work] * WORKERS + [sample, loop]:
        threading.Thread(target=target, daemon=True).start()


def answer(path):
    if path != "/plain":
        done = threading.Event()
        JOBS.put((keep if path == "/leak" else pass_by, done))
        done.wait()
    return b"ok"


def application(environ, start_response):
    body = answer(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Length", "2")])
    return [body]


def say_ready(port):
    print("ready %d %d" % (os.getpid(), port), flush=True)


def serve_threads():
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = answer(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    start_threads()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    say_ready(server.server_port)
    server.serve_forever()


def serve_flask():
    from flask import Flask, request
    from werkzeug.serving import make_server

    app = Flask(__name__)

    @app.route("/<name>")
    def route(name):
        return answer(request.path)

    start_threads()
    server = make_server("127.0.0.1", 0, app, threaded=True)
    say_ready(server.server_port)
    server.serve_forever()


def serve_gunicorn():
    from gunicorn.app.base import BaseApplication

    def post_worker_init(worker):
        start_threads()
        say_ready(worker.sockets[0].getsockname()[1])

    class Application(BaseApplication):
        def load_config(self):
            settings = {
                "bind": "127.0.0.1:0",
                "threads": 8,
                "loglevel": "error",
                "post_worker_init": post_worker_init,
            }
            for name, value in settings.items():
                self.cfg.set(name, value)

        def load(self):
            return application

    Application().run()


if __name__ == "__main__":
    globals()["serve_" + sys.argv[1]]()
