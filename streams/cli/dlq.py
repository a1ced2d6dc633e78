"""`reconciler dlq`: the records that could not be used, why, and driving them again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
import msgspec

from reconciler.json_form import to_json
from reconciler.values.errors import InputError
from reconciler.values.instant import format_instant
from reconciler.wire.codec import Codec
from reconciler.wire.errors import DecodeError
from streams.cli.output import as_json, print_json_lines, print_table
from streams.codec import codec_of
from streams.dead_letters import DeadLetter, chosen, read_dead_letters, redrive
from streams.settings import Settings, load_settings

F = TypeVar("F", bound=Callable[..., Any])

_SHOWN_CHARACTERS = 80
_SHOWN_BYTES = 64

_bootstrap = click.option("--bootstrap-servers", help="Kafka brokers, host:port, separated by commas.")


def _which(command: F) -> F:
    """The options that choose among the dead letters."""
    options = [
        click.option("--topic", help="Only those found in this topic."),
        click.option("--exception", help="Only those with this exception, such as UnknownSchemaError."),
        click.option("--key", help="Only those with this key."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def dlq() -> None:
    """See the records that could not be used, and drive them again once the cause is mended.

    A dead letter is called by its place among them, PARTITION/OFFSET.
    """


@dlq.command("list")
@_which
@click.option("--all", "with_redriven", is_flag=True, help="Also those that were driven again.")
@click.option("--limit", type=click.IntRange(1), help="The latest so many.")
@_bootstrap
@as_json
def list_letters(
    bootstrap_servers: str | None, with_redriven: bool, limit: int | None, is_json: bool, **which: str | None
) -> None:
    """Every dead letter that wasn't driven again, the oldest first."""
    found = [
        letter for letter in _matching(_settings(bootstrap_servers), which) if with_redriven or not letter.redriven
    ]
    shown = found if limit is None else found[-limit:]
    if is_json:
        print_json_lines(_row(letter) for letter in shown)
        return
    rows = [
        (
            letter.letter_id,
            format_instant(letter.record.timestamp_ms * 1_000)[:19],
            letter.topic,
            _key_text(letter.record.key),
            letter.attempt,
            _cut(f"{letter.exception}: {letter.message}"),
        )
        for letter in shown
    ]
    print_table(("ID", "SINCE", "TOPIC", "KEY", "ATTEMPT", "WHY"), rows)
    reasons = ", ".join(
        f"{count} {name}" for name, count in Counter(letter.exception for letter in found).most_common()
    )
    click.echo(f"{_count(found)}{f': {reasons}' if found else ''}.", err=True)


@dlq.command("show")
@click.argument("letter_id")
@_bootstrap
@as_json
def show_letter(letter_id: str, bootstrap_servers: str | None, is_json: bool) -> None:
    """All of one dead letter: where it was found, its headers, and its bytes, as a record where they can be read by now."""
    settings = _settings(bootstrap_servers)
    (letter,) = chosen(read_dead_letters(settings), [letter_id])
    row = {**_row(letter), "headers": _header_texts(letter), **_content(letter, codec_of(settings))}
    if is_json:
        print_json_lines([row])
        return
    for name, value in row.items():
        if isinstance(value, dict):
            click.echo(f"{name}:")
            for inner, text in value.items():
                click.echo(f"  {inner}: {_text(text)}")
        else:
            click.echo(f"{name}: {_text(value)}")


@dlq.command("redrive")
@click.argument("letter_ids", nargs=-1)
@_which
@click.option("--all", "is_all", is_flag=True, help="All that match and weren't driven again.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@_bootstrap
@as_json
def redrive_letters(
    letter_ids: tuple[str, ...],
    is_all: bool,
    dry_run: bool,
    bootstrap_servers: str | None,
    is_json: bool,
    **which: str | None,
) -> None:
    """Send dead letters back to the topics where they were found, as they were.

    What is a record of the past is recognised: an action that was folded already is not folded twice.
    """
    settings = _settings(bootstrap_servers)
    letters = _to_redrive(settings, letter_ids, is_all, which)
    done: Sequence[DeadLetter] = letters if dry_run else list(redrive(settings, letters))
    if is_json:
        print_json_lines({**_row(letter), "redriven": not dry_run} for letter in done)
    else:
        print_table(("ID", "TO", "KEY"), [(each.letter_id, each.topic, _key_text(each.record.key)) for each in done])
    said = "would be sent" if dry_run else "sent again; `reconciler dlq list` shows those that come back"
    click.echo(f"{_count(done)} {said}.", err=True)


def _to_redrive(
    settings: Settings, letter_ids: tuple[str, ...], is_all: bool, which: dict[str, str | None]
) -> list[DeadLetter]:
    narrowed = any(value is not None for value in which.values())
    if letter_ids and (is_all or narrowed):
        raise InputError("name dead letters by their ids, or choose them by --all and what narrows it; not both")
    if letter_ids:
        return chosen(read_dead_letters(settings), letter_ids)
    if not is_all:
        raise InputError(
            "say which: ids as `reconciler dlq list` shows them, or --all, with --topic, --exception or --key if not all"
        )
    return [letter for letter in _matching(settings, which) if not letter.redriven]


def _settings(bootstrap_servers: str | None) -> Settings:
    return load_settings(**({} if bootstrap_servers is None else {"bootstrap_servers": bootstrap_servers}))


def _matching(settings: Settings, which: dict[str, str | None]) -> list[DeadLetter]:
    return [
        letter
        for letter in read_dead_letters(settings)
        if which["topic"] in (None, letter.topic)
        and which["exception"] in (None, letter.exception)
        and which["key"] in (None, _key_text(letter.record.key))
    ]


def _row(letter: DeadLetter) -> dict[str, Any]:
    value = letter.value
    return {
        "id": letter.letter_id,
        "since_at": format_instant(letter.record.timestamp_ms * 1_000),
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "key": None if letter.record.key is None else _key_text(letter.record.key),
        "exception": letter.exception,
        "message": letter.message,
        "attempt": letter.attempt,
        "bytes": None if value is None else len(value),
        "redriven": letter.redriven,
    }


def _header_texts(letter: DeadLetter) -> dict[str, str]:
    return {name: (value or b"").decode(errors="replace") for name, value in letter.record.headers}


def _content(letter: DeadLetter, codec: Codec) -> dict[str, Any]:
    """The value: as a record where it is one by now, else its first bytes, and what is wrong with them."""
    value = letter.value
    if value is None:
        return {"value": None}
    try:
        record = codec.decode(value)
    except DecodeError as error:
        return {"first_bytes": value[:_SHOWN_BYTES].hex(" "), "unreadable": str(error)}
    return {"kind": type(record).__name__, "record": to_json(record)}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _key_text(key: bytes | None) -> str:
    return "(null)" if key is None else key.decode(errors="backslashreplace")


def _count(letters: Sequence[DeadLetter]) -> str:
    return "1 dead letter" if len(letters) == 1 else f"{len(letters)} dead letters"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
