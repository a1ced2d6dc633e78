"""Faust's table, its manager and its recovery, as this worker needs them.

The table is a real `app.Table`: Faust's assignor and rebalances know it. But its values are written by batches and its
changelog is read in bulk, because Faust's own ways write the store before the brokers have the changelog (#158), stall on
compacted or empty changelogs (#176, #597), and apply stray records to another table.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any, cast

import faust
from aiokafka.errors import IllegalStateError
from faust.stores.base import Store
from faust.tables.manager import TableManager
from faust.tables.recovery import RebalanceAgain, Recovery, ServiceStopped
from mode import Service

from streams.exits import ExitCode, end_process
from streams.store.changelog import RecoveryAborted
from streams.store.producer import Fenced
from streams.worker.engine import Engine

logger = logging.getLogger(__name__)


class EngineStore(Store[str, object]):
    """The table's data: decoded states of the partitions that are owned. Reading only; batches are what writes."""

    logger = logging.getLogger("faust.worker")

    @property
    def engine(self) -> Engine:
        return cast(WorkerApp, self.app).engine

    def _state(self, resource: str) -> object | None:
        return self.engine.head(self.engine.partition_of(resource), resource)

    def __getitem__(self, resource: str) -> object:
        state = self._state(resource)
        if state is None:
            raise KeyError(resource)
        return state

    def __contains__(self, resource: object) -> bool:
        return isinstance(resource, str) and self._state(resource) is not None

    def __iter__(self) -> Any:
        return (
            resource for partition in sorted(self.engine.partitions) for resource, _ in self.engine.heads(partition)
        )

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __setitem__(self, resource: str, state: object) -> None:
        raise TypeError("the table is written by batches alone; send an event instead")

    def __delitem__(self, resource: str) -> None:
        raise TypeError("the table is written by batches alone; send an event instead")

    def persisted_offset(self, tp: Any) -> int | None:
        return None

    def apply_changelog_batch(self, batch: Any, to_key: Any, to_value: Any) -> None:
        end_process(ExitCode.RECOVERY, "Faust's own recovery ran; this release of Faust is not the one that was tried")

    def reset_state(self) -> None: ...

    async def backup_partition(self, *arguments: Any, **options: Any) -> None: ...

    def restore_backup(self, *arguments: Any, **options: Any) -> None: ...


class WorkerApp(faust.App):
    """The app, with the engine that its table and recovery need."""

    logger = logging.getLogger("faust.worker")

    engine: Engine

    async def _on_partitions_revoked(self, revoked: Any) -> None:
        await super()._on_partitions_revoked(revoked)
        await self.engine.takeover_ended()


class EngineTable(faust.Table[str, object]):
    """The table of a `WorkerApp`."""

    logger = logging.getLogger("faust.worker")

    def _changelog_topic_name(self) -> str:
        return cast(WorkerApp, self.app).engine.pipeline.heads

    def _new_store(self) -> Any:
        return EngineStore("engine://", self.app, self, table_name=self.name, loop=self.loop)

    # Faust would send a changelog record a set; there are no sets.
    def on_key_set(self, key: Any, value: Any) -> None: ...

    def on_key_get(self, key: Any) -> None: ...


class EngineRecovery(Recovery):
    """Tells the engine what is assigned, and lets the streams go on when it is ready."""

    logger = logging.getLogger("faust.worker")

    _wanted: frozenset[int] = frozenset()
    _current: int = -1

    @property
    def engine(self) -> Engine:
        return cast(WorkerApp, self.app).engine

    def on_partitions_revoked(self, revoked: Any) -> None:
        self._current = -1  # ends a takeover that is under way
        self.engine.suspend()

    async def on_rebalance(self, assigned: Any, revoked: Any, newly_assigned: Any, generation_id: int = 0) -> None:
        if generation_id != self.app.consumer_generation_id:
            return  # another rebalance is already on its way
        self._wanted = self._partitions(assigned)
        self._current = self._generation_id = generation_id
        self.signal_recovery_start.set()

    def _is_current(self, generation: int) -> bool:
        return self._current == generation

    def _partitions(self, assigned: Any) -> frozenset[int]:
        by_topic: dict[str, set[int]] = {topic: set() for topic in self.engine.pipeline.input_topics}
        for place in assigned:
            if place.topic in by_topic:
                by_topic[place.topic].add(place.partition)
        partitions = {frozenset(numbers) for numbers in by_topic.values()}
        if len(partitions) != 1:
            end_process(
                ExitCode.RECOVERY,
                "the group assigned other partitions of one input topic than of another; all must have one partition count",
            )
        return partitions.pop()

    @Service.task
    async def _restart_recovery(self) -> None:
        while not self.should_stop:
            if await self.wait_for_stopped(self.signal_recovery_start):  # type: ignore[arg-type]
                return
            self.signal_recovery_start.clear()
            generation, partitions = self._generation_id, self._wanted
            try:
                self.app.in_recovery = True
                await self.engine.recover(partitions, generation, partial(self._is_current, generation))
                self.app.in_recovery = False
                if self._current != generation:
                    continue
                self.engine.resume()
                await self._wait(self._resume_streams(generation))
            except (RebalanceAgain, RecoveryAborted, IllegalStateError):
                logger.info("the recovery of generation %d was ended by another rebalance", generation)
            except ServiceStopped:
                return
            except Fenced as error:
                end_process(ExitCode.FENCED, f"while taking over: {error}")
            except Exception as error:  # noqa: BLE001 - a table that isn't whole must not be worked on
                end_process(ExitCode.RECOVERY, f"the table could not be recovered: {error}", error)

    @Service.task
    async def _slurp_changelogs(self) -> None:
        """No changelog record reaches this worker through Faust."""

    @Service.task
    async def _publish_stats(self) -> None:
        """Faust's figures are of its own recovery."""

    async def on_stop(self) -> None:
        self._current = -1


class EngineTableManager(TableManager):
    """The manager of a `WorkerApp`."""

    logger = logging.getLogger("faust.worker")

    async def on_start(self) -> None:
        # Faust sleeps for a second here.
        await asyncio.sleep(0)
        if not self.should_stop:
            await self._update_channels()
            await self.recovery.start()

    @property
    def recovery(self) -> EngineRecovery:
        if self._recovery is None:
            self._recovery = EngineRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return cast(EngineRecovery, self._recovery)

    async def _update_channels(self) -> None:
        # Faust subscribes the changelog here: aiokafka would fetch it for nothing.
        self._tables_finalized.set()
        for table in self.values():
            await table.maybe_start()
        self._tables_registered.set()
