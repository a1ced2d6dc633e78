"""The spool: what it took is there after any crash, in order and byte for byte, or somebody is told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.sdk.errors import SpoolError, SpoolFullError
from reconciler.sdk.spool import Message, Spool

messages = st.builds(
    Message,
    st.sampled_from(["workflow.actions", "other"]),
    st.none() | st.binary(max_size=20),
    st.none() | st.binary(max_size=300),
    st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=10)), max_size=2).map(tuple),
)


def message(number: int, size: int = 50) -> Message:
    return Message(
        "workflow.actions", f"crm/contact/{number}".encode(), bytes([number % 256]) * size, (("n", b"%d" % number),)
    )


def held(folder: Path) -> list[Message]:
    spool = Spool(folder)
    try:
        return [entry.message for entry in spool.oldest(1_000_000)]
    finally:
        spool.close()


@settings(
    max_examples=40, suppress_health_check=[*settings().suppress_health_check, HealthCheck.function_scoped_fixture]
)
@given(written=st.lists(messages, max_size=12), done=st.integers(0, 12), segment=st.integers(100, 800))
def test_what_was_written_is_there_after_opening_anew(
    tmp_path: Path, written: list[Message], done: int, segment: int
) -> None:
    folder = tmp_path / "spool"
    shutil.rmtree(folder, ignore_errors=True)
    spool = Spool(folder, segment_bytes=segment)
    for each in written:
        spool.append(each)
    spool.advance(spool.oldest(done))
    expected = written[done:]
    assert spool.count == len(expected)
    assert [entry.message for entry in spool.oldest(100)] == expected
    spool.close()
    assert held(folder) == expected


@settings(
    max_examples=150, suppress_health_check=[*settings().suppress_health_check, HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_crash_in_the_middle_of_a_write_costs_only_what_was_not_promised(tmp_path: Path, data: st.DataObject) -> None:
    """The last segment is cut at every possible byte, and may end in zeros, as after a power failure."""
    folder = tmp_path / "spool"
    shutil.rmtree(folder, ignore_errors=True)
    spool = Spool(folder)
    ends = []
    for number in range(3):
        spool.append(message(number))
        ends.append(spool.size_bytes)
    spool.close()
    (file,) = folder.glob("*.spool")
    size = file.stat().st_size
    cut = data.draw(st.integers(0, size))
    zeros = data.draw(st.sampled_from([0, 1, 40, 5_000]))
    content = file.read_bytes()[:cut] + bytes(zeros)
    file.write_bytes(content)
    whole = [message(number) for number, end in enumerate(ends) if end <= cut]
    spool = Spool(folder)
    assert [entry.message for entry in spool.oldest(10)] == whole
    spool.append(message(9))
    assert [entry.message for entry in spool.oldest(10)] == [*whole, message(9)]
    spool.close()
    assert held(folder) == [*whole, message(9)]


@settings(
    max_examples=100, suppress_health_check=[*settings().suppress_health_check, HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damage_before_other_events_is_never_passed_over(tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "spool"
    shutil.rmtree(folder, ignore_errors=True)
    spool = Spool(folder)
    spool.append(message(0))
    before_last = spool.size_bytes
    spool.append(message(1))
    spool.close()
    (file,) = folder.glob("*.spool")
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, before_last - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    with pytest.raises(SpoolError, match=r"damaged|no spool"):
        Spool(folder)
    file.write_bytes(b"")  # the lock is free again, and whoever gives up the events can go on
    assert held(folder) == []


def test_a_missing_segment_is_noticed(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=100)
    for number in range(6):
        spool.append(message(number))
    spool.advance(spool.oldest(1))
    spool.close()
    segments = sorted(tmp_path.glob("*.spool"))
    assert len(segments) > 3
    segments[1].unlink()
    with pytest.raises(SpoolError, match="missing"):
        Spool(tmp_path)


def test_a_segment_shorter_than_what_was_sent_of_it_is_noticed(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(message(1))
    spool.append(message(2))
    spool.advance(spool.oldest(1))
    spool.close()
    (file,) = tmp_path.glob("*.spool")
    os.truncate(file, 60)
    with pytest.raises(SpoolError, match="damaged"):
        Spool(tmp_path)


def test_a_damaged_position_says_what_to_do(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(message(1))
    spool.append(message(2))
    spool.advance(spool.oldest(1))
    spool.close()
    (tmp_path / "position").write_bytes(b"\0\0")
    with pytest.raises(SpoolError, match="delete it"):
        Spool(tmp_path)
    (tmp_path / "position").unlink()
    assert held(tmp_path) == [message(1), message(2)]


def test_sent_segments_go_from_the_disk(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=200)
    for number in range(20):
        spool.append(message(number))
    full = spool.size_bytes
    spool.advance(spool.oldest(10))
    assert spool.size_bytes < full
    spool.advance(spool.oldest(10))
    assert (spool.count, spool.size_bytes) == (0, 0)
    spool.append(message(99))
    spool.close()
    assert held(tmp_path) == [message(99)]


def test_a_full_spool_refuses_but_keeps_room_for_ends(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=8_000)
    taken = 0
    with pytest.raises(SpoolFullError, match="full") as caught:  # noqa: PT012 — somewhere in here
        while True:
            spool.append(message(taken))
            taken += 1
    assert caught.value.undelivered == (message(taken),)
    spool.append(message(taken), closing=True)
    with pytest.raises(SpoolFullError):  # noqa: PT012 — somewhere in here
        for _ in range(10):
            spool.append(message(0), closing=True)
    assert spool.size_bytes <= 8_000
    spool.advance(spool.oldest(taken // 2))
    spool.append(message(0))
    spool.close()


def test_two_at_a_time_are_refused(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with pytest.raises(SpoolError, match="another process"):
        Spool(tmp_path)
    spool.close()
    assert held(tmp_path) == []


def test_a_failed_write_leaves_the_spool_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full in the middle of a frame: the next frame must not stand behind half a one."""
    spool = Spool(tmp_path)
    spool.append(message(1))
    real = os.fsync

    def fails(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(SpoolError, match="No space left"):
        spool.append(message(2))
    monkeypatch.setattr(os, "fsync", real)
    assert [entry.message for entry in spool.oldest(9)] == [message(1)]
    spool.append(message(3))
    spool.close()
    assert held(tmp_path) == [message(1), message(3)]


def test_what_is_set_aside_is_kept_in_a_file(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(message(1))
    spool.append(message(2))
    path = spool.set_aside(spool.oldest(1)[0], "too large")
    assert (message(1).value or b"?") in path.read_bytes()
    assert [entry.message for entry in spool.oldest(9)] == [message(2)]
    spool.close()


def test_what_a_killed_process_was_promised_is_there(tmp_path: Path) -> None:
    """A process is killed while it writes as fast as it can: every event whose append returned is in the spool."""
    program = (
        "import sys; from pathlib import Path; from reconciler.sdk.spool import Message, Spool\n"
        f"spool = Spool(Path({str(tmp_path)!r}), segment_bytes=2_000)\n"
        "for number in range(10**9):\n"
        "    spool.append(Message('t', b'k', b'%d' % number))\n"
        "    sys.stdout.write(f'{number}\\n'); sys.stdout.flush()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    promised = [int(process.stdout.readline()) for _ in range(200)]
    process.kill()
    promised += [int(line) for line in process.stdout.read().split(b"\n")[:-1]]
    process.wait()
    values = [each.value for each in held(tmp_path)]
    assert values[: len(promised)] == [b"%d" % number for number in promised]
    assert len(values) - len(promised) in (0, 1)
