"""One process an identity: a lock on the data folder, and a look at the group for our instance id.

With static membership the brokers let the newest process of an instance id take the partitions of the one before. If
two are started by mistake, they take them from each other for ever.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import time
from pathlib import Path
from typing import IO

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConsumerGroupDescription

from reconciler.values.errors import InputError
from streams.settings import Settings
from streams.worker.topics_check import BrokersUnreachable

logger = logging.getLogger(__name__)

_LOCK_NAME = "worker.lock"
_REQUEST_TIMEOUT_S = 10.0
_ASK_AGAIN_S = 1.0
_TRY_AGAIN_S = 0.1
_GRACE_S = 5.0
_NO_SUCH_GROUP = frozenset({KafkaError._UNSUPPORTED_FEATURE, KafkaError.GROUP_ID_NOT_FOUND})
_COORDINATOR_MOVES = frozenset(
    {KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS}
)


def lock_data_dir(data_dir: Path, wait_s: float = 0.0) -> IO[str]:
    """Holds the folder until the process ends, however it ends. Raises InputError when another process has it, and doesn't
    end within `wait_s`."""
    deadline = time.monotonic() + wait_s
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / _LOCK_NAME).open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(f"the folder {data_dir} can't be used ({error.strerror}); set RECONCILER_DATA_DIR") from None
    while not _is_locked(lock):
        if time.monotonic() < deadline:
            time.sleep(_TRY_AGAIN_S)
            continue
        lock.close()
        raise InputError(
            f"another worker is running with the data folder {data_dir}; give each its own RECONCILER_DATA_DIR and "
            "RECONCILER_INSTANCE_ID"
        )
    return lock


def _is_locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def client_id(settings: Settings) -> str:
    """Names this process to the brokers, so that `refuse_second_instance` can tell who a member is."""
    return f"{settings.instance_id or settings.application_id}@{socket.gethostname()}#{os.getpid()}"


def refuse_second_instance(settings: Settings) -> None:
    """Raises InputError when another living process is a member of the group under our instance id.

    A member on this host lives if its process does. One on another host may be what a crash left behind: it is waited for
    until its session must have ended. The embedded broker can't be asked; there the lock on the folder must do.
    """
    if settings.instance_id is None:
        return
    admin = AdminClient(settings.client_config())
    deadline = time.monotonic() + settings.session_timeout_s + _GRACE_S
    told = False
    while (member := _member(admin, settings)) is not None:
        host, pid = _who(member)
        if host == socket.gethostname() and pid is not None and not _lives(pid):
            return
        if (host == socket.gethostname() and pid is not None) or time.monotonic() > deadline:
            raise InputError(
                f"the instance id {settings.instance_id!r} is in use by {member}; end that worker, or give this one another "
                "RECONCILER_INSTANCE_ID"
            )
        if not told:
            logger.warning("waiting for the session of %s to end: it has our instance id", member)
            told = True
        time.sleep(_ASK_AGAIN_S)


def _member(admin: AdminClient, settings: Settings) -> str | None:
    """The client id of the member under our instance id. Raises BrokersUnreachable."""
    group = _group(admin, settings.application_id)
    for member in () if group is None else group.members:
        if member.group_instance_id == settings.instance_id:
            return str(member.client_id)
    return None


def _group(admin: AdminClient, group_id: str) -> ConsumerGroupDescription | None:
    deadline = time.monotonic() + _REQUEST_TIMEOUT_S
    while True:
        try:
            futures = admin.describe_consumer_groups([group_id], request_timeout=_REQUEST_TIMEOUT_S)
            description: ConsumerGroupDescription = futures[group_id].result()
            return description
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if reason.code() in _NO_SUCH_GROUP:
                return None
            if reason.code() not in _COORDINATOR_MOVES or time.monotonic() > deadline:
                raise BrokersUnreachable(f"the brokers don't describe the group {group_id!r}: {reason.str()}") from None
        time.sleep(_ASK_AGAIN_S / 4)


def _who(member: str) -> tuple[str, int | None]:
    host, _, pid = member.rpartition("@")[2].rpartition("#")
    return host, int(pid) if pid.isdigit() else None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
