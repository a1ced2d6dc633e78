"""The SDK: how workflows tell what they do (`Producer`), and how services take the reconciler's corrections (`ReversalConsumer`).

docs/sdk.md leads through both; examples/ has a program for each. The errors:

    ReconcilerError
    ├── InputError                    an argument that can't be used: what, where, and the remedy
    └── SdkError
        ├── ClosedError               the producer or consumer was closed before
        ├── FencedError               the run was rolled back: the action must not begin
        ├── ObservationError          a resource that had to be observed could not be
        ├── DeliveryError             events that neither the brokers nor the disk took; it holds them
        │   └── SpoolError            the spool can't be used
        │       └── SpoolFullError    the spool has reached its bound
        └── HandlerError              base of what a handler raises to say what became of a command
            ├── TransientError        it may work later
            ├── PermanentError        it will never work
            └── ConflictError         the target holds something else than the command expects
"""

from reconciler.records import Action, Actor, Change, Command, Compensation, Observation, Outcome
from reconciler.sdk.consumer.applying import AsyncHandler, Handler, HandlerResult
from reconciler.sdk.consumer.consumers import AsyncReversalConsumer, ReversalConsumer
from reconciler.sdk.consumer.dedup import DedupStore, MemoryDedup, RedisDedup, SqlDedup
from reconciler.sdk.consumer.engine import Health
from reconciler.sdk.consumer.settings import ConsumerMetrics, ConsumerSettings, Entitlement
from reconciler.sdk.errors import (
    ClosedError,
    ConflictError,
    DeliveryError,
    FencedError,
    HandlerError,
    ObservationError,
    PermanentError,
    SdkError,
    SpoolError,
    SpoolFullError,
    TransientError,
)
from reconciler.sdk.fences import AsyncFence, AsyncRedisFence, Fence, RedisFence
from reconciler.sdk.kafka import KafkaSettings
from reconciler.sdk.producer.asynchronous import AsyncProducer
from reconciler.sdk.producer.open_action import ActionDetails, OpenAction
from reconciler.sdk.producer.outgoing import ProducerSettings
from reconciler.sdk.producer.pre_state import AsyncObserve, Observe
from reconciler.sdk.producer.sync import Producer
from reconciler.sdk.signing import SIGNATURE_HEADER, HmacSigner, HmacVerifier, Signer, Verifier
from reconciler.sdk.spool import Message
from reconciler.values.errors import InputError, ReconcilerError
from reconciler.values.json_value import ABSENT, Absent
from reconciler.values.resource_key import resource_key

__all__ = [
    "ABSENT",
    "SIGNATURE_HEADER",
    "Absent",
    "Action",
    "ActionDetails",
    "Actor",
    "AsyncFence",
    "AsyncHandler",
    "AsyncObserve",
    "AsyncProducer",
    "AsyncRedisFence",
    "AsyncReversalConsumer",
    "Change",
    "ClosedError",
    "Command",
    "Compensation",
    "ConflictError",
    "ConsumerMetrics",
    "ConsumerSettings",
    "DedupStore",
    "DeliveryError",
    "Entitlement",
    "Fence",
    "FencedError",
    "Handler",
    "HandlerError",
    "HandlerResult",
    "Health",
    "HmacSigner",
    "HmacVerifier",
    "InputError",
    "KafkaSettings",
    "MemoryDedup",
    "Message",
    "Observation",
    "ObservationError",
    "Observe",
    "OpenAction",
    "Outcome",
    "PermanentError",
    "Producer",
    "ProducerSettings",
    "ReconcilerError",
    "RedisDedup",
    "RedisFence",
    "ReversalConsumer",
    "SdkError",
    "Signer",
    "SpoolError",
    "SpoolFullError",
    "SqlDedup",
    "TransientError",
    "Verifier",
    "resource_key",
]
