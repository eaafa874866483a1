"""A WSGI application that keeps 100 kB a request to /keep, and whoever sends it requests by HTTPS.

https_app.py PORT COUNT sends so many, every fourth to /keep, each on a connection of its own, and ends.
"""

import http.client
import ssl
import sys

KEPT = []


def application(environ, start_response):
    if environ["PATH_INFO"].startswith("/keep"):
        KEPT.append(bytearray(100_000))
    body = b"hello"
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def load(port, count):
    context = ssl._create_unverified_context()
    for number in range(count):
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=20)
        connection.request("GET", f"/keep/{number}" if number % 4 == 0 else "/plain")
        assert connection.getresponse().read() == b"hello"
        connection.close()


if __name__ == "__main__":
    load(int(sys.argv[1]), int(sys.argv[2]))
