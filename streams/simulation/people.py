"""Who acts in a simulation: workflows that change targets and report it, and people who change them and tell nobody."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Final, Literal

from reconciler.json_form import complete_action
from reconciler.machines.head import Head
from reconciler.records import Action, Actor, Command, Compensation, Decision
from reconciler.values.json_value import ABSENT, Absent, Json
from reconciler.values.pointer import Tokens, tokens_of, value_at
from reconciler.values.resource_key import parse_resource_key
from reconciler.wire.codec import Codec
from reconciler.wire.topics import TopicNames
from streams.simulation.broker import Broker
from streams.simulation.chance import Chance, Faults
from streams.simulation.estate import PLAIN_FIELDS, Estate
from streams.simulation.schedule import Schedule
from streams.simulation.targets import PERSON, WORKFLOW, SimTarget, Writer
from streams.simulation.trace import Trace
from streams.store.producer import Outgoing

PERSON_ACTOR: Final = Actor(id="ana@example.com", kind="user")
_Ending = Literal["succeeded", "failed", "silent", "retried"]
_ENDINGS: Final[tuple[_Ending, ...]] = ("succeeded",) * 12 + ("failed", "silent", "retried", "retried")


class Hands:
    """What workflows and people need to reach the estate."""

    def __init__(
        self,
        *,
        schedule: Schedule,
        faults: Faults,
        trace: Trace,
        broker: Broker,
        codec: Codec,
        topics: TopicNames,
        estate: Estate,
        targets: Mapping[str, SimTarget],
        head_of: Callable[[str], Head | None],
    ) -> None:
        self.schedule = schedule
        self.faults = faults
        self.trace = trace
        self.broker = broker
        self.codec = codec
        self.topics = topics
        self.estate = estate
        self.targets = targets
        self.head_of = head_of
        self.reported: list[Action] = []
        """Every action that a producer was given, in the order of sending."""
        self.decided: list[Decision] = []
        self._values = 0

    def target(self, resource: str) -> SimTarget:
        """The target that holds a resource."""
        return self.targets[parse_resource_key(resource).system]

    def new_value(self, of: str) -> str:
        """A value that nobody has written before."""
        self._values += 1
        return f"{of}{self._values}"

    def report(self, action: Action, who: str) -> None:
        """Gives an action to a workflow's producer."""
        self.reported.append(action)
        value = self.codec.encode(self.topics.actions, action)
        self.broker.send(who, Outgoing(self.topics.actions, action.resource.encode(), value))


class Run:
    """One run of a workflow: some steps, one after the other."""

    def __init__(self, hands: Hands, number: int, chance: Chance) -> None:
        self.run_id = f"run-{number}"
        self._hands = hands
        self._chance = chance
        self._actor = Actor(id=f"flow-{1 + number % 2}", kind="workflow")
        self._done: list[str] = []
        instant = hands.schedule.now
        for step in range(1, 2 + chance.below(4)):
            instant += chance.duration(1, 180)
            hands.schedule.at(instant, lambda step=step: self._begin(step))  # type: ignore[misc]

    def _begin(self, step: int) -> None:
        chance, hands = self._chance, self._hands
        resource = chance.pick(hands.estate.resources)
        ending = chance.pick(_ENDINGS)
        if chance.hits(0.7):
            begun = self._action(resource, step, stage="initiated", operation="update")
            hands.trace.add(self.run_id, "begins step {} on {}", step, resource)
            hands.report(begun, self.run_id)
        hands.schedule.after(chance.duration(0.1, 20), lambda: self._finish(resource, step, ending, 1))

    def _finish(self, resource: str, step: int, ending: _Ending, attempt: int) -> None:
        hands = self._hands
        if ending == "silent":
            hands.trace.add(self.run_id, "is never heard of again in step {}", step)
            return
        if ending == "failed":
            hands.trace.add(self.run_id, "fails in step {}", step)
            hands.report(self._action(resource, step, stage="failed", operation="update"), self.run_id)
            return
        action = self._write(resource, step, attempt)
        told = f"{action.operation} {resource} set {action.set} unset {action.unset} before {action.before}"
        hands.trace.add(self.run_id, "step {}: {}", step, told)
        hands.report(action, self.run_id)
        self._done.append(action.operation_id)
        if ending == "retried":
            wait = self._chance.duration(1, 60)
            hands.schedule.after(wait, lambda: self._finish(resource, step, "succeeded", attempt + 1))

    def _action(self, resource: str, step: int, **fields: object) -> Action:
        given: dict[str, object] = {
            "run_id": self.run_id,
            "step_id": f"step-{step}",
            "sequence": step,
            "workflow_id": self._actor.id,
            "actor": self._actor,
            "occurred_at": self._hands.schedule.now,
            "resource": resource,
        }
        return complete_action(Action(**(given | fields)))  # type: ignore[arg-type]

    def _write(self, resource: str, step: int, attempt: int) -> Action:
        """Changes the target, and says what it did and what was there before."""
        chance, hands = self._chance, self._hands
        target = hands.target(resource)
        there = target.fields(resource)
        name = f"{self.run_id}/{step}/{attempt}"
        depends_on = [self._done[-1]] if self._done and chance.hits(0.3) else []
        common = {"stage": "succeeded", "action_id": name, "depends_on": depends_on}
        throw = chance.below(20)
        if throw == 0:
            compensation = Compensation(name="apologise", arguments={"of": name}) if chance.hits(0.7) else None
            return self._action(resource, step, operation="effect", compensation=compensation, **common)
        writer = Writer(WORKFLOW, name)
        if isinstance(there, Absent):
            fields: dict[str, Json] = {"id": hands.new_value("id")}
            fields |= {name: self._value() for name in ("phone", "email", "stage") if chance.hits(0.7)}
            target.put(resource, fields, writer)
            made = {f"/{name}": value for name, value in fields.items()}
            return self._action(resource, step, operation="create", set=made, **common)
        if throw == 1:
            target.put(resource, ABSENT, writer)
            return self._action(resource, step, operation="delete", before={"": there}, **common)
        set_, unset = self._changes(there)
        before: dict[str, Json] | None = {
            path: value for path in [*set_, *unset] if (value := value_at(there, tokens_of(path))) is not ABSENT
        }
        telling = chance.below(10)
        if telling == 0:
            before = None
        elif telling == 1:
            before = {"": there}
        target.put(resource, written(there, set_, unset), writer)
        return self._action(resource, step, operation="update", set=set_, unset=unset, before=before, **common)

    def _value(self) -> Json:
        return self._hands.new_value("w")

    def _changes(self, there: dict[str, Json]) -> tuple[dict[str, Json], list[str]]:
        chance = self._chance
        set_: dict[str, Json] = {}
        unset: list[str] = []
        for path in chance.some(PLAIN_FIELDS, 3):
            if type(value_at(there, tokens_of(path)[:-1])) is not dict:
                set_["/address"] = {"city": self._value()}
            elif chance.hits(0.12) and value_at(there, tokens_of(path)) is not ABSENT:
                unset.append(path)
            elif not path.startswith("/address") or "/address" not in set_:
                set_[path] = self._value()
        tags, score = there.get("tags"), there.get("score")
        if isinstance(tags, list) and chance.hits(0.3):
            set_["/tags"] = [*tags, self._value()]
        if isinstance(score, int) and chance.hits(0.3):
            set_["/score"] = score + 1 + chance.below(5)
        if "/address" in set_:
            set_ = {path: value for path, value in set_.items() if not path.startswith("/address/")}
            unset = [path for path in unset if not path.startswith("/address/")]
        return set_, unset


def written(there: dict[str, Json], set_: Mapping[str, Json], unset: list[str]) -> dict[str, Json]:
    """A resource's fields after a write."""
    fields = copy.deepcopy(there)
    for path in sorted({*set_, *unset}):
        _put(fields, tokens_of(path), set_.get(path, ABSENT))
    return fields


def _put(fields: dict[str, Json], tokens: Tokens, value: Json | Absent) -> None:
    for token in tokens[:-1]:
        below = fields.get(token)
        if not isinstance(below, dict):
            below = fields[token] = {}
        fields = below
    if value is ABSENT:
        fields.pop(tokens[-1], None)
    else:
        fields[tokens[-1]] = copy.deepcopy(value)


def edit(hands: Hands, chance: Chance) -> None:
    """A person changes something in a target, and tells nobody."""
    resource = chance.pick(hands.estate.resources)
    there = hands.target(resource).fields(resource)
    if isinstance(there, Absent):
        if chance.hits(0.4):
            value = hands.new_value("p")
            hands.target(resource).put(resource, {"id": value, "phone": value, "memo": value}, Writer(PERSON, value))
            hands.trace.add("person", "makes {} with {}", resource, value)
    elif chance.hits(0.08):
        hands.target(resource).put(resource, ABSENT, Writer(PERSON, hands.new_value("p")))
        hands.trace.add("person", "takes {} away", resource)
    else:
        path = chance.pick((*PLAIN_FIELDS, "/phone", "/email", "/memo", "/tags", "/score"))
        overwrite(hands, resource, path, is_clearing=chance.hits(0.15))


def overwrite(hands: Hands, resource: str, path: str, *, is_clearing: bool = False) -> None:
    """A person writes a value of his own into a field, or clears it, if the record is there."""
    target = hands.target(resource)
    there = target.fields(resource)
    if isinstance(there, Absent):
        return
    value: Json = hands.new_value("p")
    who = str(value)
    if type(value_at(there, tokens_of(path)[:-1])) is not dict:
        path = "/memo"
    if path == "/tags":
        tags = there.get("tags")
        value = [*(tags if isinstance(tags, list) else ()), value]
    if path == "/score":
        score = there.get("score")
        value = 100 + (score if isinstance(score, int) else 0)
    fields = written(there, {} if is_clearing else {path: value}, [path] if is_clearing else [])
    target.put(resource, fields, Writer(PERSON, who))
    hands.trace.add("person", "{} {} of {}", "clears" if is_clearing else f"writes {value} into", path, resource)


def insist(hands: Hands, chance: Chance) -> None:
    """Somebody, or something, writes the same field again and again."""
    resource, path = chance.pick(hands.estate.resources), chance.pick(PLAIN_FIELDS[:4])
    wait = 0
    for _ in range(3 + chance.below(4)):
        wait += chance.duration(20, 400)
        hands.schedule.after(wait, lambda: overwrite(hands, resource, path))


class Rival:
    """Somebody who writes into a field at the very moment in which a command for it is on its way."""

    def __init__(self, hands: Hands, systems: tuple[str, ...]) -> None:
        self._hands = hands
        for system in systems:
            topic = hands.topics.reversal(system)
            hands.broker.listen(topic, lambda partition, topic=topic: self._on_command(topic, partition))  # type: ignore[misc]

    def _on_command(self, topic: str, partition: int) -> None:
        hands = self._hands
        chance = hands.faults.strike("edit-in-between")
        if chance is None:
            return
        command = hands.codec.decode(hands.broker.log(topic, partition).records[-1].value)
        assert isinstance(command, Command)
        if command.changes:
            path = chance.pick(command.changes).path or "/phone"
            hands.schedule.after(chance.duration(0, 1), lambda: overwrite(hands, command.resource, path))


def decide_drift(hands: Hands, chance: Chance) -> None:
    """A person looks at a record's drift or hold, and decides."""
    resource = chance.pick(hands.estate.resources)
    head = hands.head_of(resource)
    if head is None:
        return
    verb: Literal["hold", "release", "adopt", "expected"]
    path: str | None = None
    if head.hold is not None and chance.hits(0.6):
        verb = "release"
    elif head.drift is not None:
        verb = chance.pick(("adopt", "expected", "release"))
        if chance.hits(0.5):
            path = chance.pick(head.drift.changes).path
    elif chance.hits(0.1):
        verb = "hold"
    else:
        return
    wait = chance.duration(0.5, 30)
    seen = None if head.drift is None else head.drift.version
    decision = Decision(
        decision_id=hands.new_value("decision"),
        resource=resource,
        verb=verb,
        path=path,
        version_seen=seen,
        decided_by=PERSON_ACTOR,
        occurred_at=hands.schedule.now + wait,
    )
    hands.schedule.after(wait, lambda: _send_decision(hands, decision))


def _send_decision(hands: Hands, decision: Decision) -> None:
    hands.decided.append(decision)
    hands.trace.add("person", "decides {} on {} {}", decision.verb, decision.resource, decision.path or "")
    value = hands.codec.encode(hands.topics.decisions, decision)
    hands.broker.send("person", Outgoing(hands.topics.decisions, decision.resource.encode(), value))
