"""The peer: a Faust agent as its tutorial has it, which sets one table key an event. Run by `benchmarks.stream`."""

from __future__ import annotations

import json
import os
import sys
import time

import faust

bootstrap, topic, group, expected, data_dir, partitions = sys.argv[1:7]
app = faust.App(
    group,
    broker=f"kafka://{bootstrap}",
    store="memory://",
    datadir=data_dir,
    topic_partitions=int(partitions),
    topic_disable_leader=True,
    web_enabled=False,
    value_serializer="raw",
)
counts = app.Table("counts", default=int, partitions=int(partitions))
actions = app.topic(topic, key_type=bytes, value_type=bytes, value_serializer="raw", key_serializer="raw")
first: list[tuple[float, float]] = []
seen = [0]


@app.agent(actions)
async def count(stream: faust.Stream[bytes]) -> None:
    async for key, _value in stream.items():  # noqa: PERF102  a stream is no dict
        if not first:
            first.append((time.perf_counter(), time.process_time()))
        counts[key] += 1
        seen[0] += 1
        if seen[0] == int(expected):
            seconds, cpu_s = time.perf_counter() - first[0][0], time.process_time() - first[0][1]
            sys.__stdout__.write(json.dumps({"records": seen[0], "seconds": seconds, "cpu_s": cpu_s}) + "\n")  # type: ignore[union-attr]
            sys.__stdout__.flush()  # type: ignore[union-attr]
            os._exit(0)


if __name__ == "__main__":
    sys.argv[1:] = ["worker", "-l", "error", "--without-web"]
    app.main()
