"""A Flask application whose routes leave known amounts behind in native code, by `retaining.h`.

gunicorn runs this file, which is its configuration too; without gunicorn it is Flask's own threaded
server. Prints `worker PID PORT` once it serves. RESIDUE_RETAINING is the path of the native library.
"""
import ctypes
import os

from flask import Flask, Response, request
from werkzeug.serving import make_server

native = ctypes.CDLL(os.environ["RESIDUE_RETAINING"])
native.background_progress.restype = ctypes.c_size_t

bind = "127.0.0.1:0"
workers = 1

application = Flask(__name__)


def say_that_it_serves(port):
    print("worker %d %d" % (os.getpid(), port), flush=True)


def post_worker_init(worker):
    """gunicorn's hook. Its worker has been forked by now, so that threads may be started."""
    native.start(0)
    say_that_it_serves(worker.sockets[0].getsockname()[1])


@application.route("/background")
def begin_background():
    native.begin_background()
    return "begun"


@application.route("/progress")
def progress():
    return str(native.background_progress())


@application.route("/<name>")
def route(name):
    path = request.path.encode()
    if not native.serve(path):
        return Response("no such route", status=404)
    response = Response("served")
    response.call_on_close(lambda: native.after(path))
    return response


def serve_by_flask():
    """As `application.run()` does, which tells its port to persons only."""
    native.start(1)
    server = make_server("127.0.0.1", 0, application, threaded=True)
    say_that_it_serves(server.server_port)
    server.serve_forever()


if __name__ == "__main__":
    serve_by_flask()
