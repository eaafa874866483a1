"""Serves pretended requests: two routes that keep a little through one function, and one that does not.

Waits for a line, serves SECONDS, and prints `served SLOW FAST` each time a line comes: how many
requests the two leaking routes have had. Ends with its input.
"""
import select
import sys
import time

KEPT_BYTES = 600
kept = []


def keep():
    kept.append(bytearray(KEPT_BYTES))


def slow_route():
    keep()


def fast_route():
    keep()


def clean_route():
    return [bytearray(KEPT_BYTES) for _ in range(20)]


def serve():
    slow = fast = 0
    while True:
        for number in range(4):
            if number == 0:
                slow_route()
                slow += 1
            else:
                fast_route()
                fast += 1
            clean_route()
        time.sleep(0.002)
        if select.select([sys.stdin], [], [], 0)[0]:
            if not sys.stdin.readline():
                return
            print("served %d %d" % (slow, fast), flush=True)


print("ready", flush=True)
sys.stdin.readline()
serve()
