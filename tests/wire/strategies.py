"""Random records: every kind that travels, with the values at which formats usually break."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from reconciler import records
from reconciler.json_form import complete_action
from reconciler.records import Record
from reconciler.values.json_value import ABSENT, MAX_INTEGER, MIN_INTEGER, canonical
from reconciler.values.pointer import path_of
from reconciler.values.resource_key import resource_key
from reconciler.wire import changelog

LONGS = st.integers(-(2**63), 2**63 - 1)
INTS = st.integers(-(2**31), 2**31 - 1)
TEXTS = st.text(max_size=12)
WORDS = st.text(min_size=1, max_size=12)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(MIN_INTEGER, MAX_INTEGER),
    st.sampled_from([0, 1, -1, 2**53, 2**53 + 1, MAX_INTEGER, MIN_INTEGER]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, 5e-324, 1.7976931348623157e308]),
    TEXTS,
    st.sampled_from(["", "\x00", "\U0001f9ea", "é", "null", "~", "/", "9" * 40]),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
) | st.sampled_from([{}, [], [[]], [{}], {"": {}}, {"": None}])
OBJECTS = st.dictionaries(TEXTS, JSON, max_size=4)
PATHS = st.lists(TEXTS, max_size=4).map(lambda tokens: path_of(tuple(tokens)))
PATH_VALUES = st.tuples(
    st.dictionaries(PATHS.filter(bool), JSON, max_size=4), st.just({}) | st.fixed_dictionaries({"": OBJECTS})
).map(
    lambda parts: {**parts[0], **parts[1]}  # the path '' is the resource itself, which is an object
)
RESOURCES = st.builds(resource_key, *(st.text("abcXYZ09 /%~é\U0001f9ea.", min_size=1, max_size=6) for _ in range(3)))

ACTORS = st.builds(records.Actor, id=TEXTS, kind=TEXTS)
COMPENSATIONS = st.builds(records.Compensation, name=TEXTS, arguments=OBJECTS)
SECONDS = st.integers(0, 10**12).map(lambda micros: micros / 10**6)


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def maybe_absent(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.just(ABSENT) | strategy


TRACE = optional(st.just("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01") | TEXTS)
CONTRACTS = optional(TEXTS)


@st.composite
def actions(draw: st.DrawFn) -> records.Action:
    set_ = draw(PATH_VALUES)
    unset = [path for path in draw(st.lists(PATHS, max_size=3, unique=True)) if path not in set_]
    return complete_action(
        records.Action(
            stage=draw(st.sampled_from(["initiated", "succeeded", "failed", "reversed"])),
            run_id=draw(WORDS),
            step_id=draw(WORDS),
            occurred_at=draw(LONGS),
            resource=draw(RESOURCES),
            operation=draw(st.sampled_from(["create", "update", "delete", "effect"])),
            operation_id=draw(TEXTS),
            action_id=draw(TEXTS),
            before=draw(optional(PATH_VALUES)),
            set=set_,
            unset=unset,
            workflow_id=draw(TEXTS),
            workflow_version=draw(TEXTS),
            sequence=draw(LONGS),
            actor=draw(optional(ACTORS)),
            rule=draw(TEXTS | st.text(min_size=60, max_size=200)),
            depends_on=draw(st.lists(TEXTS, max_size=3)),
            compensation=draw(optional(COMPENSATIONS)),
            version_before=draw(optional(TEXTS)),
            version_after=draw(optional(TEXTS)),
            traceparent=draw(TRACE),
            origin=draw(optional(TEXTS)),
        )
    )


def full_action() -> records.Action:
    """An action with something in every field."""
    return records.Action(
        stage="succeeded",
        run_id="run-7",
        step_id="update",
        occurred_at=1_780_272_000_000_000,
        resource="crm/contact/42",
        operation="update",
        operation_id="run-7/update",
        action_id="5f",
        before={"/phone": "1", "/fax": 9.5},
        set={"/phone": None},
        unset=["/fax"],
        workflow_id="lead-intake",
        workflow_version="12",
        sequence=3,
        actor=records.Actor(id="ana@example.com", kind="user"),
        rule="Qualify hot leads",
        depends_on=["run-7/create"],
        compensation=records.Compensation(name="credit-note", arguments={"amount": 5}),
        version_before="v6",
        version_after="v7",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        origin="c4",
    )


OBSERVATIONS = st.builds(
    records.Observation,
    resource=RESOURCES,
    exists=st.none() | st.booleans(),
    fields=OBJECTS,
    version=optional(TEXTS),
    observed_at=optional(LONGS),
    modified_at=optional(LONGS),
    modified_by=optional(ACTORS),
    reason=optional(TEXTS),
)
CHANGES = st.builds(
    records.Change,
    path=PATHS,
    op=st.sampled_from(["set", "unset", "increment", "add", "remove"]),
    value=maybe_absent(JSON),
    expect=maybe_absent(JSON),
)
COMMANDS = st.builds(
    records.Command,
    command_id=TEXTS,
    resource=RESOURCES,
    action=st.sampled_from(["patch", "create", "delete", "compensate"]),
    changes=st.lists(CHANGES, max_size=3),
    expect_exists=st.booleans(),
    expect_version=optional(TEXTS),
    compensation=optional(COMPENSATIONS),
    reason=TEXTS,
    rollback_id=optional(TEXTS),
    drift_id=optional(TEXTS),
    contract=CONTRACTS,
    epoch=LONGS,
    attempt=INTS,
    issued_at=optional(LONGS),
    expires_at=optional(LONGS),
    traceparent=TRACE,
    origin=optional(TEXTS),
)
OUTCOMES = st.builds(
    records.Outcome,
    command_id=TEXTS,
    resource=RESOURCES,
    status=st.sampled_from(["applied", "already_applied", "conflict", "transient", "permanent", "rejected"]),
    occurred_at=LONGS,
    observed=optional(OBSERVATIONS),
    error=optional(TEXTS),
    retry_after_s=optional(SECONDS),
    traceparent=TRACE,
)
DRIFT_EVENTS = st.builds(
    records.DriftEvent,
    drift_id=TEXTS,
    resource=RESOURCES,
    status=st.sampled_from(["opened", "changed", "closed", "held"]),
    verdict=st.sampled_from(["in_sync", "drifted", "missing", "unexpected", "unknown", "settling"]),
    changes=st.lists(
        st.builds(
            records.FieldDrift,
            path=PATHS,
            policy=st.sampled_from(["correct", "adopt", "report", "ignore"]),
            expected=maybe_absent(JSON),
            actual=maybe_absent(JSON),
        ),
        max_size=3,
    ),
    occurred_at=LONGS,
    observed_at=optional(LONGS),
    command_id=optional(TEXTS),
    reason=TEXTS,
    contract=CONTRACTS,
)
SELECTORS = st.builds(
    records.Selector,
    run_id=optional(TEXTS),
    after_step=optional(TEXTS),
    operations=optional(st.lists(TEXTS, max_size=3)),
    workflow_id=optional(TEXTS),
    actor=optional(TEXTS),
    system=optional(TEXTS),
    resource=optional(TEXTS),
    from_at=optional(LONGS),
    to_at=optional(LONGS),
)
APPROVALS = st.builds(
    records.Approval,
    by=ACTORS,
    roles=st.lists(TEXTS, max_size=2),
    plan_hash=optional(TEXTS),
    approved_at=optional(LONGS),
)
MODES = st.sampled_from(["plan", "execute"])
RESOLUTIONS = st.builds(
    records.Resolution,
    resource=RESOURCES,
    path=PATHS,
    take=st.sampled_from(["keep", "force", "value"]),
    value=maybe_absent(JSON),
    seen=maybe_absent(JSON),
)
ROLLBACK_REQUESTS = st.builds(
    records.RollbackRequest,
    rollback_id=TEXTS,
    verb=st.sampled_from(["request", "approve", "cancel", "resume", "resolve"]),
    request_id=TEXTS,
    select=optional(SELECTORS),
    reason=TEXTS,
    requested_by=optional(ACTORS),
    roles=st.lists(TEXTS, max_size=2),
    mode=MODES,
    approvals=st.lists(APPROVALS, max_size=2),
    resolutions=st.lists(RESOLUTIONS, max_size=2),
    plan_hash=optional(TEXTS),
    requested_at=optional(LONGS),
    traceparent=TRACE,
)
ROLLBACK_EVENTS = st.builds(
    records.RollbackEvent,
    event_id=TEXTS,
    rollback_id=TEXTS,
    status=st.sampled_from(["gathering", "executable", "halted", "partial", "cancelled"]),
    occurred_at=LONGS,
    sequence=LONGS,
    mode=MODES,
    select=optional(SELECTORS),
    reason=TEXTS,
    requested_by=optional(ACTORS),
    story=TEXTS,
    plan_hash=optional(TEXTS),
    plan=optional(OBJECTS),
    contracts=st.lists(TEXTS, max_size=2),
    approvals=st.lists(APPROVALS, max_size=2),
    approvals_needed=INTS,
    wave=optional(INTS),
    waves=INTS,
    counts=st.dictionaries(TEXTS, LONGS, max_size=3),
    error=optional(TEXTS),
    traceparent=TRACE,
)
ALERTS = st.builds(
    records.Alert,
    alert_id=TEXTS,
    subject=TEXTS,
    kind=TEXTS,
    message=TEXTS,
    occurred_at=LONGS,
    severity=st.sampled_from(["warning", "critical"]),
)
TIMERS = st.builds(records.Timer, resource=RESOURCES | WORDS, due_at=LONGS)
UNDO_STEPS = st.builds(
    records.UndoStep,
    step_id=TEXTS,
    rollback_id=TEXTS,
    resource=RESOURCES,
    verb=st.sampled_from(["undo", "compensate", "withdraw"]),
    operations=st.lists(TEXTS, max_size=3),
    numbers=st.lists(LONGS, max_size=3),
    planned=st.lists(CHANGES, max_size=2),
    planned_action=optional(st.sampled_from(["patch", "create", "delete", "compensate"])),
    action_id=optional(TEXTS),
    compensation=optional(COMPENSATIONS),
    resolutions=st.lists(RESOLUTIONS, max_size=2),
    wave=INTS,
    contract=CONTRACTS,
    requested_by=optional(ACTORS),
    reason=TEXTS,
    occurred_at=LONGS,
    traceparent=TRACE,
)
STEP_REPORTS = st.builds(
    records.StepReport,
    report_id=TEXTS,
    rollback_id=TEXTS,
    step_id=TEXTS,
    resource=RESOURCES,
    status=st.sampled_from(
        [
            "sent",
            "retrying",
            "applied",
            "unchanged",
            "verified",
            "contradicted",
            "conflict",
            "outdated",
            "failed",
            "withdrawn",
        ]
    ),
    changes=st.lists(CHANGES, max_size=2),
    conflicts=st.lists(
        st.builds(
            records.StepConflict,
            path=PATHS,
            before=maybe_absent(JSON),
            after=maybe_absent(JSON),
            actual=maybe_absent(JSON),
        ),
        max_size=2,
    ),
    command_id=optional(TEXTS),
    attempt=INTS,
    is_timeout=st.booleans(),
    error=optional(TEXTS),
    occurred_at=LONGS,
    traceparent=TRACE,
)
GATHER_QUERIES = st.builds(
    records.GatherQuery,
    rollback_id=TEXTS,
    round=INTS,
    partition=INTS,
    select=optional(SELECTORS),
    operations=st.lists(TEXTS, max_size=3),
    depended_on=st.lists(TEXTS, max_size=3),
    referenced=st.lists(RESOURCES, max_size=3),
    resources=st.lists(RESOURCES, max_size=3),
    standing=st.booleans(),
    occurred_at=LONGS,
)
DOSSIERS = st.builds(
    records.Dossier,
    resource=RESOURCES,
    base=optional(TEXTS),
    collapsed=LONGS,
    entries=st.lists(TEXTS, max_size=3),
    in_flight=st.dictionaries(TEXTS, LONGS, max_size=2),
    observation=optional(OBSERVATIONS),
    is_held=st.booleans(),
    partition=INTS,
    offsets=st.dictionaries(TEXTS, LONGS, max_size=2),
)
GATHERED = st.builds(
    records.Gathered,
    rollback_id=TEXTS,
    round=INTS,
    partition=INTS,
    part=INTS,
    parts=INTS,
    complete_up_to=LONGS,
    matched=st.lists(TEXTS, max_size=3),
    dossiers=st.lists(DOSSIERS, max_size=2),
    is_late=st.booleans(),
    occurred_at=LONGS,
)
DECISIONS = st.builds(
    records.Decision,
    decision_id=TEXTS,
    resource=RESOURCES,
    verb=st.sampled_from(["hold", "release", "adopt", "expected"]),
    path=optional(PATHS),
    version_seen=optional(TEXTS),
    decided_by=ACTORS,
    reason=TEXTS,
    occurred_at=LONGS,
)
EXPECTED_HEADS = st.builds(
    changelog.ExpectedHead,
    table=TEXTS,
    resource=RESOURCES | WORDS,
    machine_version=INTS,
    epoch=LONGS,
    sources=st.lists(
        st.builds(changelog.SourceOffset, topic=TEXTS, partition=INTS, offset=LONGS),
        max_size=3,
    ),
    state=JSON.map(canonical),
)
HISTORY_ENTRIES = st.builds(
    changelog.HistoryEntry,
    table=TEXTS,
    resource=RESOURCES | TEXTS,
    entry_id=TEXTS,
    machine_version=INTS,
    epoch=LONGS,
    entry=JSON.map(canonical),
)

BY_SCHEMA: dict[str, st.SearchStrategy[Record]] = {
    "action": actions(),
    "observation": OBSERVATIONS,
    "command": COMMANDS,
    "outcome": OUTCOMES,
    "drift_event": DRIFT_EVENTS,
    "rollback_request": ROLLBACK_REQUESTS,
    "rollback_event": ROLLBACK_EVENTS,
    "alert": ALERTS,
    "expected_head": EXPECTED_HEADS,
    "history_entry": HISTORY_ENTRIES,
    "timer": TIMERS,
    "undo_step": UNDO_STEPS,
    "decision": DECISIONS,
    "step_report": STEP_REPORTS,
    "gather_query": GATHER_QUERIES,
    "gathered": GATHERED,
}
RECORDS = st.one_of(*BY_SCHEMA.values())
