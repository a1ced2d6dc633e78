"""A workflow on an event loop tells what its steps do, several at a time, and lets a target find the changes.

$ RECONCILER_BOOTSTRAP_SERVERS=127.0.0.1:9092 python examples/producer_async.py
"""

from __future__ import annotations

import asyncio
import os

from reconciler.sdk import AsyncProducer, KafkaSettings, ProducerSettings
from reconciler.targets.memory import MemoryTarget

CRM = MemoryTarget("crm")
"""The target system, reached by an adapter. Any of docs/targets.md can stand here."""


async def promote(producer: AsyncProducer, contact: str) -> None:
    """One step: the adapter is asked before and after, and what differs is what the step wrote."""
    resource = f"crm/contact/{contact}"
    async with producer.action(
        resource, run_id="run-8", step_id=f"promote-{contact}", observe=CRM, observe_after=True, require_before=True
    ):
        CRM.put(resource, {"name": f"Contact {contact}", "stage": "customer"})


async def main() -> None:
    contacts = [str(number) for number in range(5)]
    for contact in contacts:
        CRM.put(f"crm/contact/{contact}", {"name": f"Contact {contact}", "stage": "lead", "note": "to be dropped"})
    kafka = KafkaSettings(
        bootstrap_servers=os.environ["RECONCILER_BOOTSTRAP_SERVERS"],
        topic_prefix=os.environ.get("RECONCILER_TOPIC_PREFIX", ""),
    )
    async with AsyncProducer(ProducerSettings(kafka=kafka)) as producer:
        await asyncio.gather(*(promote(producer, contact) for contact in contacts))
    print(f"told: {len(contacts)} actions of run-8")


if __name__ == "__main__":
    asyncio.run(main())
