"""A consumer over an adapter: what `reconciler serve` does, inside a program of your own. Ctrl-C ends it.

$ RECONCILER_BOOTSTRAP_SERVERS=127.0.0.1:9092 python examples/consumer_target.py
$ RECONCILER_BOOTSTRAP_SERVERS=127.0.0.1:9092 python examples/send_command.py crm/contact/42 /phone '"2"' '"3"'
"""

from __future__ import annotations

import asyncio
import base64
import os

from reconciler.sdk import AsyncReversalConsumer, ConsumerSettings, HmacVerifier, KafkaSettings, Verifier
from reconciler.targets.memory import MemoryTarget


def verifier() -> Verifier | None:
    """With a key, commands that aren't signed with it are rejected."""
    key = os.environ.get("SIGNING_KEY")
    return None if key is None else HmacVerifier({"example": base64.b64decode(key)})


async def main() -> None:
    # Any adapter of docs/targets.md that recognises repeated commands can stand here.
    target = MemoryTarget("crm")
    target.put("crm/contact/42", {"phone": "3", "name": "Ana"})
    settings = ConsumerSettings(
        kafka=KafkaSettings(
            bootstrap_servers=os.environ["RECONCILER_BOOTSTRAP_SERVERS"],
            topic_prefix=os.environ.get("RECONCILER_TOPIC_PREFIX", ""),
        ),
        system="crm",
    )
    consumer = AsyncReversalConsumer(settings, target, verifier=verifier())
    print("carrying out commands for crm; Ctrl-C ends it", flush=True)
    await consumer.run(stop_on_signals=True)
    print(f"ended in order; the contact holds {target.fields('crm/contact/42')}")


if __name__ == "__main__":
    asyncio.run(main())
