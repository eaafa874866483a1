"""Leak 1: sessions that never expire.

There is a method that drops old sessions, and it is right. Nobody calls it.
"""

import secrets
import time
from dataclasses import dataclass, field

MAX_AGE_SECONDS = 1800
HISTORY_BYTES = 48 * 1024

_sessions = {}


@dataclass
class Session:
    """What is kept about a user between requests."""

    user: str
    key: str = field(default_factory=lambda: secrets.token_hex(16))
    opened: float = field(default_factory=time.monotonic)
    history: bytearray = field(default_factory=lambda: bytearray(HISTORY_BYTES))


def open_session(user):
    """Opens a session, and keeps it."""
    session = Session(user)
    _sessions[session.key] = session
    return session


def temporary_session(user):
    """Makes a session that ends with whoever uses it."""
    return Session(user)


def close_session(key):
    """Forgets a session."""
    _sessions.pop(key, None)


def expire_sessions():
    """Forgets the sessions that are too old: the cleanup that was never scheduled."""
    limit = time.monotonic() - MAX_AGE_SECONDS
    for key in [key for key, session in _sessions.items() if session.opened < limit]:
        close_session(key)
