"""Leak 3: agents without cleanup.

An agent subscribes to events when it is made. Without `close` the subscription keeps it alive, and
with it the context that it works on.
"""

from array import array

CONTEXT_TOKENS = 6 * 1024
CONTEXT_PARTS = 2

_subscribers = []


class Agent:
    """Answers one message, with a context of its own."""

    def __init__(self, subscribers=_subscribers):
        self.subscribers = subscribers
        self.context = [array("q", [0]) * CONTEXT_TOKENS for _ in range(CONTEXT_PARTS)]
        subscribers.append(self.on_event)

    def run(self, message):
        """Answers a message."""
        self.context[0][: len(message)] = array("q", map(ord, message))
        return message[::-1]

    def on_event(self, event):
        """Would react to events from elsewhere."""

    def close(self):
        """Unsubscribes; after this nothing holds the agent."""
        self.subscribers.remove(self.on_event)
