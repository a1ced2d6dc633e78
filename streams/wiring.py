"""Putting a worker together: the resource machine under the contracts that are configured, and the services inside."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.contracts.loader import load_contracts
from reconciler.contracts.model import ContractSet
from reconciler.machines.head import Head
from reconciler.machines.resource import ResourceMachine, sampling_needs
from reconciler.machines.sampling import SamplingNeeds
from reconciler.targets.config import load_targets
from reconciler.wire.codec import Codec
from reconciler.wire.topics import TopicNames
from streams.sampler.service import Sampler
from streams.sampler.settings import load_sampler_settings
from streams.settings import Settings
from streams.worker_services import WorkerService


def contracts_of(settings: Settings) -> ContractSet:
    """The contracts of the configured folder; without one the safe default holds for all. Raises ContractError."""
    return ContractSet() if settings.contracts_dir is None else load_contracts(settings.contracts_dir)


def machine_of(contracts: ContractSet) -> ResourceMachine:
    """The resource machine."""
    return ResourceMachine(contracts)


def services_of(settings: Settings, contracts: ContractSet, codec: Codec) -> Sequence[WorkerService]:
    """The services inside the worker: the sampler, where targets are configured. Raises InputError for a targets file that
    can't be used."""
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
