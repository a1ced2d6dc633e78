"""What is wrong with a command line, in the one sentence that every error of this product is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import click

from reconciler.values.errors import InputError
from reconciler.values.words import either, near

_NO_COMMAND = re.compile(r"No such command '(.*)'\.")


@contextmanager
def usage_in_a_sentence() -> Iterator[None]:
    """Raises InputError for what click says of a command line in four lines. A group without a command still shows its help."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        raise InputError(_sentence(error)) from None


def _sentence(error: click.UsageError) -> str:
    fault, remedy = _fault(error)
    # Of an option without its value click doesn't know whose option it is.
    help_at = "" if error.ctx is None else f"see `{error.ctx.command_path} --help`"
    return "; ".join(filter(None, (fault, remedy or help_at)))


def _fault(error: click.UsageError) -> tuple[str, str]:
    """What is wrong, and what to do, where that is more than to look into the help."""
    match error:
        case click.NoSuchOption():
            options = sorted(error.possibilities or ())
            return f"there is no option {error.option_name}", f"did you mean {either(options)}?" if options else ""
        case click.MissingParameter(param=click.Parameter() as parameter):
            choices = _plain(parameter.type.get_missing_message(parameter, error.ctx) or "")
            return f"{_hint(parameter, error.ctx)} is missing", f"add it, and {choices}" if choices else ""
        case click.BadParameter(param=click.Parameter() as parameter):
            return f"{_hint(parameter, error.ctx)} can't be used: {_plain(error.message)}", ""
        case click.BadOptionUsage():
            needs = "requires" in error.message
            return _plain(error.message), "write it behind the option" if needs else "take the value out"
        case _:
            return _plain(error.format_message()), _near_command(error)


def _hint(parameter: click.Parameter, ctx: click.Context | None) -> str:
    """The name of an option or argument, as people write it."""
    hint = parameter.get_error_hint(ctx)  # type: ignore[arg-type]  # click itself gives it None
    return hint.replace("'", "").replace(" / ", " or ")


def _near_command(error: click.UsageError) -> str:
    """A hint at the command that is meant."""
    found = _NO_COMMAND.fullmatch(error.format_message())
    if found is None or error.ctx is None or not isinstance(error.ctx.command, click.Group):
        return ""
    return near(found[1], error.ctx.command.list_commands(error.ctx))


def _plain(text: str) -> str:
    """Click's text as a part of a sentence: one line, without its capital and its full stop."""
    line = " ".join(text.split()).rstrip(".")
    return line[:1].lower() + line[1:]
