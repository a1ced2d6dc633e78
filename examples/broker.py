"""A broker to try the examples on, for who has no Kafka at hand: everything in memory, gone when you press Ctrl-C.

$ python examples/broker.py
export RECONCILER_BOOTSTRAP_SERVERS=127.0.0.1:41234
"""

from __future__ import annotations

import signal

from reconciler.wire.topics import TopicNames
from streams.embedded.broker import EmbeddedBroker

ENDING = {signal.SIGINT, signal.SIGTERM}


def main() -> None:
    # Before any thread begins, so that the signals wait for `sigwait`, whichever thread they reach.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    with EmbeddedBroker() as broker:
        broker.create_topics(spec.name for spec in TopicNames().specs(systems=("crm",)))
        print(f"export RECONCILER_BOOTSTRAP_SERVERS={broker.bootstrap}", flush=True)
        signal.sigwait(ENDING)


if __name__ == "__main__":
    main()
