"""The settings of the running system: environment variables with the prefix RECONCILER_, each documented where it is declared.

`RECONCILER_BOOTSTRAP_SERVERS=kafka:9092 reconciler worker` is all that a worker needs on a cluster without security. What
a secret holds is never printed: `SecretStr` masks it in every message and log.
"""

from __future__ import annotations

import difflib
import os
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from reconciler.values.errors import InputError

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

_PREFIX = "RECONCILER_"
_NEARLY = 0.9


class Settings(BaseSettings):
    """Every setting, with its default. Durations end in `_s` or `_ms`, as everywhere."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="forbid", frozen=True)

    # -- where things are
    bootstrap_servers: str = Field("127.0.0.1:9092", description="Kafka brokers, host:port, separated by commas.")
    topic_prefix: str = Field(
        "", description="Put before every topic's name, so that several estates can share a cluster."
    )
    partitions: int = Field(12, ge=1, le=10_000, description="Partitions of every topic that is keyed by resource.")
    registry_url: str | None = Field(None, description="Schema registry; without one the packaged schema ids are used.")
    redis_url: str | None = Field(
        None, description="Redis for shared rate budgets; losing it costs speed, not correctness."
    )
    data_dir: Path = Field(
        Path("data"), description="Local state: RocksDB, locks. May be lost; it is rebuilt from Kafka."
    )
    contracts_dir: Path | None = Field(
        None, description="Folder of contracts; without one the safe default holds for all."
    )
    targets_file: Path | None = Field(None, description="YAML file of the target systems that the sampler reads.")

    # -- who we are
    application_id: str = Field(
        "reconciler", min_length=1, description="Kafka consumer group, and prefix of the transactional ids."
    )
    instance_id: str | None = Field(
        None,
        min_length=1,
        description="Static membership: a name that is this worker's alone and stays the same over restarts, such as the "
        "pod's. A restart within the session time-out then moves no partition.",
    )

    processes: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Processes of one worker that fold, each on a core of its own. Without a number: one a processor that it "
        "may use, but at most 4, and at most one a partition.",
    )

    # -- how the table is kept
    store: Literal["rocksdb", "memory"] = Field(
        "rocksdb", description="Where heads and history live besides the changelog."
    )
    fence: Literal["transactional", "none"] = Field(
        "transactional",
        description="`transactional` puts a fence before a worker that was overtaken. `none` is for the embedded broker, which "
        "has no fence; on a real cluster it risks stale writes.",
    )
    cache_max_bytes: int = Field(
        8 << 20,
        ge=0,
        description="Heads kept decoded in memory, for each partition, by what they take in the changelog; decoded they take about "
        "six times that.",
    )
    store_max_age_s: float = Field(
        12 * 3600.0,
        gt=0,
        description="A local store that was last written longer ago is rebuilt; keep it below the changelogs' "
        "delete.retention.ms (24 h by default), after which a deletion could be missed.",
    )

    # -- batches
    batch_max_records: int = Field(
        10_000,
        ge=1,
        description="Records of one topic's partition that are folded in one go, where so many wait: what they have in common is "
        "written once, and meanwhile, for a quarter of a second, the process does nothing else.",
    )
    batch_max_bytes: int = Field(
        16 << 20,
        ge=1_024,
        description="How much a batch writes, and how much of one topic's partition it reads, each at most: a batch ends with the "
        "record that reaches it.",
    )
    fetch_max_bytes: int = Field(
        2 << 20,
        ge=1_024,
        description="How much of one topic's partition is fetched in one go; a single record may be larger.",
    )
    fetch_max_wait_ms: int = Field(20, ge=1, description="How long a broker holds a fetch when there is nothing new.")
    session_timeout_s: float = Field(30.0, gt=0, description="A worker that is silent for longer loses its partitions.")
    heartbeat_interval_s: float = Field(3.0, gt=0, description="How often a worker says that it lives.")
    rebalance_timeout_s: float = Field(60.0, gt=0, description="How long a rebalance waits for the slowest member.")
    commit_interval_s: float = Field(1.0, gt=0, description="How often finished work is committed.")
    delivery_timeout_s: float = Field(
        30.0, ge=1, description="How long a batch waits for the brokers' acknowledgements; then the worker exits."
    )
    dead_letter_max_bytes: int = Field(
        2_000_000, ge=1_000, description="Raw bytes beyond this are cut in a dead letter, which says so in a header."
    )
    timer_interval_s: float = Field(0.25, gt=0, description="How often the ticker looks for what has come due.")

    # -- when to give up, so that the supervisor restarts the worker
    commit_max_age_s: float = Field(
        60.0, gt=0, description="Finished work older than this and not committed ends the worker."
    )
    progress_max_age_s: float = Field(
        120.0, gt=0, description="A partition with waiting records and no progress ends it too."
    )
    rebalance_max_age_s: float = Field(
        600.0, gt=0, description="So does a rebalance, with its recovery, that takes longer."
    )
    loop_max_age_s: float = Field(30.0, gt=0, description="So does an event loop that doesn't turn for this long.")
    recovery_stall_s: float = Field(
        60.0,
        gt=0,
        description="A recovery without progress for this long is begun anew from the changelog's start; the "
        "second time the worker exits.",
    )
    restart_window_s: float = Field(
        600.0, gt=0, description="Exits after an error within this window slow the next start."
    )
    restart_max_delay_s: float = Field(60.0, ge=0, description="The longest wait before such a start.")

    # -- looking in
    http_host: str = Field("127.0.0.1", description="Address of /live, /ready and /metrics.")
    http_port: int = Field(8080, ge=0, le=65_535, description="Their port; 0 takes any free one.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged.")
    log_format: Literal["text", "json"] = Field("text", description="`json` writes one object a line.")

    # -- security
    security_protocol: SecurityProtocol = Field("PLAINTEXT", description="As in Kafka's own clients.")
    ssl_ca_file: Path | None = Field(None, description="Authorities to trust, PEM; without one those of the system.")
    ssl_certificate_file: Path | None = Field(None, description="Our certificate, PEM, where brokers ask for one.")
    ssl_key_file: Path | None = Field(None, description="Its key, PEM.")
    ssl_key_password: SecretStr | None = Field(None, description="The key's password.")
    sasl_mechanism: SaslMechanism | None = Field(None, description="How to log in, with the two SASL protocols.")
    sasl_username: str | None = Field(None, description="Who logs in.")
    sasl_password: SecretStr | None = Field(None, description="The password.")

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.uses_sasl and not (self.sasl_mechanism and self.sasl_username and self.sasl_password):
            raise ValueError(
                f"security_protocol is {self.security_protocol}, so sasl_mechanism, sasl_username and sasl_password are needed"
            )
        if (self.ssl_certificate_file is None) != (self.ssl_key_file is None):
            raise ValueError("ssl_certificate_file and ssl_key_file go together; give both or neither")
        if self.processes is not None and self.processes > self.partitions:
            raise ValueError(
                f"processes is {self.processes}, but there are only {self.partitions} partitions to share; each folds at least one"
            )
        if self.heartbeat_interval_s * 3 > self.session_timeout_s:
            raise ValueError("heartbeat_interval_s must be at most a third of session_timeout_s")
        return self

    @property
    def uses_ssl(self) -> bool:
        return self.security_protocol in ("SSL", "SASL_SSL")

    @property
    def uses_sasl(self) -> bool:
        return self.security_protocol in ("SASL_PLAINTEXT", "SASL_SSL")

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context for clients in Python, None without TLS. Raises InputError for files that can't be used."""
        if not self.uses_ssl:
            return None
        try:
            context = ssl.create_default_context(cafile=None if self.ssl_ca_file is None else str(self.ssl_ca_file))
            if self.ssl_certificate_file is not None and self.ssl_key_file is not None:
                password = None if self.ssl_key_password is None else self.ssl_key_password.get_secret_value()
                context.load_cert_chain(self.ssl_certificate_file, self.ssl_key_file, password)
        except (OSError, ssl.SSLError) as error:
            raise InputError(
                f"the TLS files can't be used ({error}); check RECONCILER_SSL_CA_FILE, _CERTIFICATE_FILE and _KEY_FILE"
            ) from None
        return context

    def client_config(self) -> dict[str, Any]:
        """What every librdkafka client needs to reach the brokers."""
        config: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
        }
        if self.uses_ssl:
            for name, path in (
                ("ssl.ca.location", self.ssl_ca_file),
                ("ssl.certificate.location", self.ssl_certificate_file),
                ("ssl.key.location", self.ssl_key_file),
            ):
                if path is not None:
                    config[name] = str(path)
            if self.ssl_key_password is not None:
                config["ssl.key.password"] = self.ssl_key_password.get_secret_value()
        if self.uses_sasl and self.sasl_password is not None:
            config["sasl.mechanism"] = self.sasl_mechanism
            config["sasl.username"] = self.sasl_username
            config["sasl.password"] = self.sasl_password.get_secret_value()
        return config


def load_settings(**overrides: Any) -> Settings:
    """The settings of the environment, with what is given here on top. Raises InputError in one sentence."""
    _refuse_misspelt(os.environ)
    try:
        return Settings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        where = f"the setting {_PREFIX}{place.upper()}" if place else "the settings"
        raise InputError(f"{where} can't be used: {message[:1].lower() + message[1:]}") from None


def _refuse_misspelt(environment: Iterable[str]) -> None:
    """Raises InputError for a name that is nearly one of ours: it would silently not be heeded. Other parts have names too."""
    known = sorted(_PREFIX + name.upper() for name in Settings.model_fields)
    for name in sorted(environment):
        if name.startswith(_PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, 1, _NEARLY)
            if near:
                raise InputError(f"there is no setting {name}; did you mean {near[0]}?")
