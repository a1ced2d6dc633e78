"""The demo's live view: a few numbers and the last events on a terminal, plain lines elsewhere."""

from __future__ import annotations

import re
import threading
import time
import urllib.error
import urllib.request
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from streams.dev.watch import Watcher

_REFRESH_S = 0.25
_SETTLES_S = 1.0
_SHOWN_LINES = 12
_LAG = re.compile(rb"^reconciler_lag_records\{[^}]*\} ([0-9.e+]+)", re.MULTILINE)


class View:
    """Shows what a watcher sees, until it is left."""

    def __init__(self, console: Console, watcher: Watcher, worker_url: str) -> None:
        self._console = console
        self._watcher = watcher
        self._worker_url = worker_url
        self._phase = ""
        self._began = time.monotonic()
        self._stopping = threading.Event()
        self._live = Live(console=console, refresh_per_second=4, transient=False, get_renderable=self._draw)
        self._printed = 0
        self._thread = threading.Thread(target=self._print_lines, name="view", daemon=True)

    def phase(self, text: str) -> None:
        """Says what is going on now."""
        self._phase = text
        if not self._console.is_terminal:
            self._console.print(f"{time.monotonic() - self._began:5.1f} s  {text}", highlight=False)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        else:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()
        else:
            self._stopping.set()
            self._thread.join()

    def _print_lines(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stopping.wait(_REFRESH_S)
            lines = self._watcher.lines()
            # What happened just now may still be overtaken by what happened before it, in a topic that is read later.
            settled = len(lines) if is_last else sum(line.at < (time.time() - _SETTLES_S) * 1e6 for line in lines)
            for line in lines[self._printed : settled]:
                self._console.print(f"         {line}", highlight=False)
            self._printed = max(self._printed, settled)

    def _draw(self) -> Group:
        counts = self._watcher.counts
        numbers = Table.grid(padding=(0, 3))
        cells = []
        for label, value in (
            ("actions", str(counts["actions succeeded"])),
            ("lag", self._lag()),
            ("open drift", str(len(self._watcher.open_drift))),
            ("commands", str(counts["commands"])),
            ("applied", str(counts["outcomes applied"])),
            ("dead letters", str(counts["dead letters"])),
        ):
            cells.append(Text.assemble((f"{value}\n", "bold"), (label, "dim")))
        numbers.add_row(*cells)
        lines = [str(line) for line in self._watcher.lines()[-_SHOWN_LINES:]]
        events = Text("\n".join(lines) or "…", no_wrap=True, overflow="ellipsis")
        elapsed = f"{time.monotonic() - self._began:.0f} s"
        return Group(Panel(numbers, title=self._phase, subtitle=elapsed), Panel(events, title="what goes by"))

    def _lag(self) -> str:
        """Records that the worker hasn't folded yet, by its own metrics."""
        try:
            with urllib.request.urlopen(f"{self._worker_url}/metrics", timeout=0.2) as answer:
                return str(round(sum(float(value) for value in _LAG.findall(answer.read()))))
        except (urllib.error.URLError, OSError):
            return "?"
