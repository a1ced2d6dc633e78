"""What is wrong with a command line is one sentence, whatever the command."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from streams.cli.main import cli, main


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("fold", "--actions is missing; see `reconciler fold --help`"),
        ("fold --actionz A", "there is no option --actionz; did you mean --actions?"),
        ("fold --foo A", "there is no option --foo; see `reconciler fold --help`"),
        ("fold --actions", "option '--actions' requires an argument; write it behind the option"),
        ("fold --actions A x", "got unexpected extra argument (x); see `reconciler fold --help`"),
        ("fold --actions .", "--actions can't be used: file '.' is a directory; see `reconciler fold --help`"),
        ("foldd", "no such command 'foldd'; did you mean fold?"),
        ("undo", "no such command 'undo'; see `reconciler --help`"),
        ("--foo", "there is no option --foo; see `reconciler --help`"),
        ("topics crete", "no such command 'crete'; did you mean create?"),
        ("topics list --json=1", "option '--json' does not take a value; take the value out"),
        ("topics list --partitions x", "--partitions can't be used: 'x' is not a valid integer"),
        ("worker --only x", "--only can't be used: 'x' is not one of 'resources', 'rollbacks'; see `reconciler worker"),
        ("actions send", "FILE is missing; see `reconciler actions send --help`"),
        ("contracts explain --contracts .", "RESOURCE is missing; see"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(
    line: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    assert said.err.startswith(f"reconciler: {says}")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("line", [[], ["contracts"]])
def test_a_group_without_a_command_shows_its_help(line: list[str]) -> None:
    result = CliRunner().invoke(cli, line)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Commands:" in result.stderr
