"""Printing results: for people by default, as JSON Lines for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
import msgspec

as_json = click.option("--json", "is_json", is_flag=True, help="One JSON object a line.")


def print_json_lines(rows: Iterable[Mapping[str, Any]]) -> None:
    """Each row as one JSON object a line."""
    for row in rows:
        click.echo(msgspec.json.encode(row).decode())


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows in columns that line up, the last one ragged."""
    texts = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(header))]
    for row in texts:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())
