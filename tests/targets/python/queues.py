"""A server of threads that has its work done by one other thread, which takes jobs out of a queue: of `/unique` each
job is an object of its own, of `/shared` all are the same one. Each request keeps 10,001 bytes.

Prints `ready PID PORT`.
"""
import http.server
import os
import queue
import threading
import time

KEPT = []
JOBS = queue.SimpleQueue()
DONE = threading.Semaphore(0)


def keep():
    KEPT.append(bytearray(10000))


def work():
    while True:
        # Meanwhile others put theirs in, if there are any.
        for _ in range(20):
            if JOBS.qsize() >= 4:
                break
            time.sleep(0.005)
        job, done = JOBS.get(), DONE
        if isinstance(job, tuple):
            job, done = job
        job()
        del job
        done.release()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/shared":
            JOBS.put_nowait(keep)
            DONE.acquire()
        else:
            done = threading.Semaphore(0)
            JOBS.put_nowait((keep, done))
            done.acquire()
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *arguments):
        pass


threading.Thread(target=work, daemon=True).start()
SERVER = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
SERVER.daemon_threads = True
print("ready %d %d" % (os.getpid(), SERVER.server_address[1]), flush=True)
SERVER.serve_forever()
