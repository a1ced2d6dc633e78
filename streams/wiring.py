"""Putting a worker together: the machines under the contracts that are configured, and the services inside."""

from __future__ import annotations

from collections.abc import Sequence
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
from streams.runner.pipeline import Pipeline, resource_pipeline, rollback_pipeline
from streams.sampler.service import Sampler
from streams.sampler.settings import load_sampler_settings
from streams.settings import Settings
from streams.worker_services import WorkerService


def contracts_of(settings: Settings) -> ContractSet:
    """The contracts of the configured folder; without one the safe default holds for all. Raises ContractError."""
    return ContractSet() if settings.contracts_dir is None else load_contracts(settings.contracts_dir)


RESOURCES: Final = "resources"
ROLLBACKS: Final = "rollbacks"
"""The pipelines, by the names of their tables."""


def pipeline_of(name: str, settings: Settings, contracts: ContractSet) -> Pipeline:
    """A pipeline with its machine."""
    topics = TopicNames(settings.topic_prefix)
    if name == RESOURCES:
        return resource_pipeline(ResourceMachine(contracts), topics)
    return rollback_pipeline(RollbackMachine(contracts, settings.partitions), topics)


def settings_of(name: str, settings: Settings) -> Settings:
    """The settings of a pipeline's process: that of rollbacks has a consumer group and local state of its own."""
    if name == RESOURCES:
        return settings
    return settings.model_copy(
        update={
            "application_id": f"{settings.application_id}-{name}",
            "data_dir": settings.data_dir / name,
        }
    )


def services_of(name: str, settings: Settings, contracts: ContractSet, codec: Codec) -> Sequence[WorkerService]:
    """The services inside a pipeline's process. Raises InputError for a targets file that can't be used."""
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
    )
    return (sampler,)
