"""Real services as session fixtures: started when the first test asks for one, ended by pid with the session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from streams.embedded.broker import EmbeddedBroker
from streams.embedded.redis import EmbeddedRedis
from tests.support import maven
from tests.support.kafka import KafkaBroker
from tests.support.postgresql import PostgresqlServer
from tests.support.redis_server import RedisServer
from tests.support.registry import SchemaRegistry

# What is fetched for a test that takes this fixture, or whose module starts servers of this class itself.
_FETCHED: Final = {"kafka": KafkaBroker, "registry": SchemaRegistry}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetches what the tests to be run will need."""
    maven.fetch_ahead(
        [name for name, kind in _FETCHED.items() if any(_uses(item, name, kind) for item in session.items)]
    )


def _uses(item: pytest.Item, name: str, kind: type) -> bool:
    module = item.getparent(pytest.Module)
    return name in getattr(item, "fixturenames", ()) or (module is not None and kind in vars(module.obj).values())


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaBroker]:
    """A real Apache Kafka. Shared by all tests: use topics and groups with names of your own; a test that stops it starts
    it again, or better, takes a KafkaBroker for itself."""
    with KafkaBroker() as broker:
        yield broker


@pytest.fixture(scope="session")
def registry() -> Iterator[SchemaRegistry]:
    """A real schema registry. Shared by all tests: use subjects with names of your own."""
    with SchemaRegistry() as server:
        yield server


@pytest.fixture(scope="session")
def _redis_process() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_server(_redis_process: RedisServer) -> RedisServer:
    """A real Redis server, emptied before the test."""
    _redis_process.flush()
    return _redis_process


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """A real PostgreSQL cluster."""
    with PostgresqlServer() as server:
        yield server


@pytest.fixture
def postgresql_dsn(postgresql: PostgresqlServer) -> Iterator[str]:
    """The DSN of an empty database, made for this test and taken away after it (each is a thousand files)."""
    dsn = postgresql.new_database()
    yield dsn
    postgresql.drop_database(dsn)


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[EmbeddedBroker]:
    """librdkafka's mock cluster in this process. Shared by all tests: use topics and groups with names of your own."""
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def embedded_redis() -> Iterator[EmbeddedRedis]:
    """fakeredis over TCP, empty, made for this test."""
    with EmbeddedRedis() as server:
        yield server
