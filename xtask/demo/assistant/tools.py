"""Leak 2: an exit stack that is never closed.

The manager enters each connection into its exit stack, to close them all together at the end. A
manager that lives as long as the process has no end: its connections and their buffers pile up.
"""

import contextlib
import socket

BUFFER_BYTES = 32 * 1024


class Connection:
    """A connection to a tool server, which in the demo is the other end of a socket pair."""

    def __init__(self, tool):
        self.tool = tool
        self.buffer = bytes(BUFFER_BYTES)

    def __enter__(self):
        self.client, self.server = socket.socketpair()
        return self

    def __exit__(self, *exc_info):
        self.client.close()
        self.server.close()

    def call(self, message):
        """Sends a message through the socket pair and reads it back."""
        self.client.sendall(message.encode())
        return self.server.recv(len(message)).decode()


class ClientManager:
    """Keeps connections to tool servers open for as long as it is open itself."""

    def __init__(self):
        self._exit_stack = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def connect(self, tool):
        """Opens a connection that stays open until the manager is closed."""
        return self._exit_stack.enter_context(Connection(tool))

    def close(self):
        """Closes every connection."""
        self._exit_stack.close()
