"""A workflow in plain Python tells what its steps do.

$ RECONCILER_BOOTSTRAP_SERVERS=127.0.0.1:9092 python examples/producer_sync.py
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from reconciler.sdk import ABSENT, Absent, Actor, FencedError, KafkaSettings, Producer, ProducerSettings, RedisFence

CRM: dict[str, dict[str, object]] = {"42": {"phone": "1", "fax": "9", "name": "Ana"}}
"""The target system: here a dict, elsewhere an API."""


def observe(resource: str) -> dict[str, object] | Absent:
    """What the CRM holds now; ABSENT says that the contact isn't there."""
    return CRM.get(resource.rpartition("/")[2], ABSENT)


def run_workflow(producer: Producer) -> None:
    actor = Actor(id="ana@example.com", kind="user")

    # What stood there before is asked of `observe`; what was written is said.
    with producer.action(
        "crm/contact/42",
        run_id="run-7",
        step_id="update-contact",
        observe=observe,
        actor=actor,
        rule="Qualify hot leads",
    ) as update:
        CRM["42"]["phone"] = "2"
        del CRM["42"]["fax"]
        update.set("/phone", "2")
        update.unset("/fax")

    # A create has nothing before it. Later steps name what they build on.
    with producer.action(
        "crm/contact/43", "create", run_id="run-7", step_id="copy", depends_on=[update.operation_id], actor=actor
    ) as create:
        CRM["43"] = {"name": "Bo", "phone": "5"}
        create.after(CRM["43"])

    # A step that raises has failed, and is told as that.
    try:
        with producer.action("crm/contact/44", "delete", run_id="run-7", step_id="clean-up", observe=observe):
            del CRM["44"]
    except KeyError:
        print("the step clean-up failed, as its event says")


def main() -> None:
    settings = ProducerSettings(
        kafka=KafkaSettings(
            bootstrap_servers=os.environ["RECONCILER_BOOTSTRAP_SERVERS"],
            topic_prefix=os.environ.get("RECONCILER_TOPIC_PREFIX", ""),
        ),
        # Where events wait while the brokers are away. A service keeps it on a disk that outlives it.
        spool_folder=Path(tempfile.gettempdir()) / f"reconciler-spool-{os.getpid()}",
    )
    redis_url = os.environ.get("RECONCILER_REDIS_URL")
    fence = None if redis_url is None else RedisFence(redis_url)
    with Producer(settings, fence=fence) as producer:
        try:
            run_workflow(producer)
        except FencedError as error:
            sys.exit(str(error))
    print("told: 3 actions of run-7")


if __name__ == "__main__":
    main()
