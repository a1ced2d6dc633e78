"""Plays the reconciler: sends one command, and prints what became of it.

    $ python examples/send_command.py RESOURCE PATH VALUE EXPECTED
    $ python examples/send_command.py crm/contact/42 /phone '"2"' '"3"'

Values are JSON. With SIGNING_KEY (base64) in the environment the command is signed.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import time
import uuid

from confluent_kafka import Consumer, Producer, TopicPartition

from reconciler.json_form import to_json
from reconciler.sdk import SIGNATURE_HEADER, Change, Command, HmacSigner, KafkaSettings, Outcome
from reconciler.values.resource_key import parse_resource_key
from reconciler.wire.codec import Codec
from reconciler.wire.topics import TopicNames

WAIT_S = 60


def main() -> None:
    resource, path, value, expected = sys.argv[1:]
    kafka = KafkaSettings(
        bootstrap_servers=os.environ["RECONCILER_BOOTSTRAP_SERVERS"],
        topic_prefix=os.environ.get("RECONCILER_TOPIC_PREFIX", ""),
    )
    names, codec = TopicNames(kafka.topic_prefix), Codec.packaged()
    change = Change(path=path, op="set", value=json.loads(value), expect=json.loads(expected))
    command = Command(command_id=uuid.uuid4().hex, resource=resource, action="patch", changes=[change])
    topic = names.reversal(parse_resource_key(resource).system)
    payload = codec.encode(topic, command)
    key = os.environ.get("SIGNING_KEY")
    headers = {} if key is None else {SIGNATURE_HEADER: HmacSigner("example", base64.b64decode(key)).sign(payload)}

    outcomes = Consumer(kafka.consumer(f"send-command-{command.command_id}", session_timeout_s=10))
    partitions = outcomes.list_topics(names.outcomes, timeout=10).topics[names.outcomes].partitions
    outcomes.assign([TopicPartition(names.outcomes, partition, 0) for partition in partitions])
    producer = Producer(kafka.producer())
    producer.produce(topic, payload, resource, headers=list(headers.items()))
    producer.flush(30)

    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        message = outcomes.poll(0.5)
        if message is None or message.error() is not None:
            continue
        outcome = codec.decode(message.value())
        if isinstance(outcome, Outcome) and outcome.command_id == command.command_id:
            outcomes.close()
            print(json.dumps(to_json(outcome)))
            return
    sys.exit(f"no outcome within {WAIT_S} s: does anybody consume {topic}?")


if __name__ == "__main__":
    main()
