"""Putting a worker together: the machines under the contracts that are configured, and the services inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from reconciler.contracts.loader import load_contracts
from reconciler.contracts.model import ContractSet
from reconciler.machines.head import Head
from reconciler.machines.resource import ResourceMachine, sampling_needs
from reconciler.machines.rollback import RollbackMachine
from reconciler.machines.sampling import SamplingNeeds
from reconciler.targets.config import load_targets
from reconciler.wire.codec import Codec
from reconciler.wire.topics import TopicNames
from streams.fence_keeper import FenceKeeper
from streams.gatherer.service import UNSEEN_QUIET_S, Gatherer
from streams.processes import name_of, processes_of
from streams.runner.pipeline import Pipeline, resource_pipeline, rollback_pipeline
from streams.sampler.service import Sampler
from streams.sampler.settings import load_sampler_settings
from streams.sampler.slots import SharedSlots, Slots, own_slots
from streams.settings import Settings
from streams.worker_services import WorkerService


def contracts_of(settings: Settings) -> ContractSet:
    """The contracts of the configured folder; without one the safe default holds for all. Raises ContractError."""
    return ContractSet() if settings.contracts_dir is None else load_contracts(settings.contracts_dir)


RESOURCES: Final = "resources"
ROLLBACKS: Final = "rollbacks"
"""The pipelines, by the names of their tables."""
_SLOTS: Final = "slots"


def pipeline_of(name: str, settings: Settings, contracts: ContractSet) -> Pipeline:
    """A pipeline with its machine."""
    topics = TopicNames(settings.topic_prefix)
    if name == RESOURCES:
        return resource_pipeline(ResourceMachine(contracts), topics)
    return rollback_pipeline(RollbackMachine(contracts, settings.partitions), topics)


def settings_of(name: str, settings: Settings, process: int = 1) -> Settings:
    """The settings of a pipeline's process: that of rollbacks has a consumer group and local state of its own.

    Of several processes that fold resources, the first has what a single one would have, so that its local state stands when
    their number changes. The others have theirs beside it: RocksDB wants one owner, and so does a static membership.
    """
    if name == RESOURCES and process == 1:
        return settings
    if name == RESOURCES:
        own = name_of(name, process)
        instance_id = None if settings.instance_id is None else f"{settings.instance_id}.{own}"
        return settings.model_copy(update={"data_dir": settings.data_dir / own, "instance_id": instance_id})
    return settings.model_copy(
        update={
            "application_id": f"{settings.application_id}-{name}",
            "data_dir": settings.data_dir / name,
        }
    )


def services_of(name: str, settings: Settings, contracts: ContractSet, codec: Codec) -> Sequence[WorkerService]:
    """The services inside a pipeline's process. `settings` are the worker's, which its processes have in common.

    Raises InputError for a targets file that can't be used.
    """
    topics = TopicNames(settings.topic_prefix)
    if name == RESOURCES:
        # Where nothing is sampled there is no observation to wait for.
        quiet_s = 0.0 if settings.targets_file is None else UNSEEN_QUIET_S
        gatherer = Gatherer(topics=topics, codec=codec, contracts=contracts, unseen_quiet_s=quiet_s)
        return (gatherer, *_samplers(settings, contracts, codec))
    return () if settings.redis_url is None else (FenceKeeper(settings.redis_url),)


def _samplers(settings: Settings, contracts: ContractSet, codec: Codec) -> Sequence[WorkerService]:
    """The sampler, where targets are configured."""
    targets_file = settings.targets_file
    if targets_file is None:
        return ()
    load_targets(targets_file)  # a fault in the file is told now, not by a service in the background
    topic = TopicNames(settings.topic_prefix).observations

    def needs_of(state: object) -> SamplingNeeds:
        assert isinstance(state, Head)
        return sampling_needs(state, contracts)

    sampler = Sampler(
        open_targets=lambda: load_targets(targets_file),
        needs_of=needs_of,
        timing_of=lambda resource: contracts.for_resource(resource).timing,
        topic=topic,
        encode=lambda observation: codec.encode(topic, observation),
        settings=load_sampler_settings(),
        slots_of=_slots_of(settings),
    )
    return (sampler,)


def _slots_of(settings: Settings) -> Callable[[str, int], Slots]:
    """What bounds the reads under way: of this process where it is alone, else of all of the worker."""
    return own_slots if processes_of(settings) == 1 else partial(SharedSlots, settings.data_dir / _SLOTS)
