"""What `streams.worker.companion` looks after in its tests: `python -m tests.support.companion_child WAY --report-to FD`."""

from __future__ import annotations

import asyncio
import signal
import sys

from streams.worker.companion import Supervisor


async def main(way: str, report_to: int) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    if way == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        loop.add_signal_handler(signal.SIGTERM, stopping.set)
    if way == "fails":
        return 74
    supervisor = Supervisor(report_to)
    supervisor.await_start()
    supervisor.end_with_it()
    # Told once a second: a test that looks seldom must not miss it.
    state: list[str | None] = [*(["is recovering"] * (5 if way == "slow" else 1)), None]
    telling = asyncio.create_task(
        supervisor.telling(lambda: state.pop(0) if len(state) > 1 else state[0], lambda: b"some_total 1.0\n")
    )
    await stopping.wait()
    telling.cancel()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1], int(sys.argv[3]))))
