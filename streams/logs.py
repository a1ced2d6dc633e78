"""Logging of the running system: to standard error, as text or as one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

# Their own chatter about rebalances says nothing that we don't say.
_QUIET = ("faust", "mode", "aiokafka", "asyncio")
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_TEXT_OF_ONE = "%(asctime)s %(levelname)s [{process}] %(name)s: %(message)s"


class JsonFormatter(logging.Formatter):
    """One object a line. `process` names the one that speaks, where several have one log."""

    def __init__(self, process: str | None = None) -> None:
        super().__init__()
        self._more = {} if process is None else {"process": process}

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **self._more,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logging(level: str, form: str, process: str | None = None) -> None:
    """Sets up the root logger; to be called once, by a command. `process` stands in every line."""
    handler = logging.StreamHandler(sys.stderr)
    text = _TEXT if process is None else _TEXT_OF_ONE.format(process=process)
    handler.setFormatter(JsonFormatter(process) if form == "json" else logging.Formatter(text))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    if level != "DEBUG":
        for name in _QUIET:
            logging.getLogger(name).setLevel(logging.ERROR)
