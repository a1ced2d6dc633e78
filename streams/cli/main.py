"""The `reconciler` command: a table of commands, each imported when it is called, and one place where errors become sentences.

Standard output carries results alone; everything else goes to standard error. Exit codes: 0 done, 1 the work failed,
2 the input can't be used, 3 a plan was rejected.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from reconciler.values.errors import ReconcilerError
from streams.cli.standard_output import OutputError, guard_standard_output
from streams.cli.usage import usage_in_a_sentence

EXIT_FAILED = 1
EXIT_INPUT_ERROR = 2

# name -> (module, attribute, what it does): so that `fold` need not import Faust, and `--help` nothing at all
_COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": ("streams.cli.dev", "demo", "Watch drift put right and a run undone, on an embedded system."),
    "dev": ("streams.cli.dev", "dev", "Run the whole system here, without Docker or Java."),
    "worker": ("streams.cli.worker", "worker", "Run a worker: fold, detect and correct until SIGTERM."),
    "serve": ("streams.cli.serve", "serve", "Carry out the commands for a system that has no service of its own."),
    "topics": ("streams.cli.topics", "topics", "Make, verify and list the topics."),
    "schemas": ("streams.cli.schemas", "schemas", "List, check and register the Avro schemas."),
    "contracts": ("streams.cli.contracts", "contracts", "Validate, describe and explain the contracts."),
    "drift": ("streams.cli.drift", "drift", "See what has drifted, and decide what is left to people."),
    "holds": ("streams.cli.drift", "holds", "See, place and release holds on corrections."),
    "actions": ("streams.cli.actions", "actions", "Send actions from a file, and watch them go by."),
    "rollback": ("streams.cli.rollback", "rollback", "Undo runs, steps or a time window across systems."),
    "ledger": ("streams.cli.ledger", "ledger", "The record of what was done: shown, checked, and as a file."),
    "dlq": ("streams.cli.dlq", "dlq", "See the records that could not be used, and drive them again."),
    "doctor": ("streams.cli.doctor", "doctor", "Check that everything the settings name is there and as it must be."),
    "simulate": ("streams.cli.simulate", "simulate", "Try the whole system under faults, by seed."),
    "fold": ("streams.cli.offline", "fold", "Fold actions into expected state, from files alone."),
    "diff": ("streams.cli.offline", "diff", "Compare expected with actual state, from files alone."),
    "plan": ("streams.cli.offline", "plan", "Plan a rollback, from files alone."),
    "apply": ("streams.cli.offline", "apply", "Apply a plan to actual state, from files alone."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, and for all of which a wrong command line is an InputError."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        with usage_in_a_sentence():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with usage_in_a_sentence():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, what) for name, (_, _, what) in _COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="reconciler")
def cli() -> None:
    """Undo and drift alarm for no-code automation."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    guard_standard_output()
    try:
        cli.main(args=None if arguments is None else list(arguments), prog_name="reconciler")
    except OutputError as error:
        click.echo(f"reconciler: {error}", err=True)
        sys.exit(EXIT_FAILED)
    except ReconcilerError as error:
        click.echo(f"reconciler: {error}", err=True)
        sys.exit(EXIT_INPUT_ERROR)


if __name__ == "__main__":
    main()
