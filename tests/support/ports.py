"""Free loopback ports for servers that can't choose one themselves."""

from __future__ import annotations

import random
import socket

# Below Linux's ephemeral range (32768 and up, see /proc/sys/net/ipv4/ip_local_port_range): a port that the kernel hands
# out for an outgoing connection can then never be taken between our check and the server's bind.
_FIRST_PORT = 15_000
_LAST_PORT = 32_000
_ATTEMPTS = 200


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on at the moment. Raises RuntimeError if none is found."""
    chooser = random.SystemRandom()
    for _ in range(_ATTEMPTS):
        port = chooser.randint(_FIRST_PORT, _LAST_PORT)
        if _can_bind(port):
            return port
    raise RuntimeError(f"no free port between {_FIRST_PORT} and {_LAST_PORT} was found in {_ATTEMPTS} attempts")


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
