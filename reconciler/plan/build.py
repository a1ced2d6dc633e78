"""Building a plan: select, find what blocks and what stands on it until nothing changes, merge, order, ask for consent."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping, Sequence

import msgspec

from reconciler.command import corrective
from reconciler.contracts.cel import approvals_needed, forbidden
from reconciler.contracts.model import ApprovalRule, Contract
from reconciler.history.entry import Entry
from reconciler.history.resource import ResourceHistory
from reconciler.plan.blocking import blocked_alone, compensation_of, unknown_neighbours
from reconciler.plan.commands import undo_command
from reconciler.plan.dependants import Dependant, dependants, dependents_of, named, references_of
from reconciler.plan.estate import Estate
from reconciler.plan.model import (
    ApprovalNeeded,
    Blocked,
    FallbackCompensation,
    Kept,
    Plan,
    Planned,
    PlannedConflict,
    PlannedStep,
    PlanStatus,
    Unchanged,
)
from reconciler.plan.resolving import check_resolutions, may_be_masked, unmasked
from reconciler.plan.selection import selected
from reconciler.plan.story import Story, markdown
from reconciler.plan.telling import tell_plan
from reconciler.plan.undo import ResourceUndo, blind_entries, immutable_entries, kept_fields, undo_resource
from reconciler.plan.waves import layers, reachable
from reconciler.plan.wording import Wording, listed, moment, upper_first
from reconciler.records import Action, Actor, Approval, Command, Observation, Resolution, RollbackRequest
from reconciler.values.instant import SECOND, Instant, format_instant
from reconciler.values.json_value import Json, canonical
from reconciler.values.pointer import path_of, tokens_of

_MOST_NAMED = 5
"""So many records are named in a sentence."""


def build_plan(request: RollbackRequest, estate: Estate, observations: Sequence[Observation], now: Instant) -> Plan:
    """What the request would do. Pure: the same inputs give the same plan, byte for byte.

    Raises InputError where the request's selector is none.
    """
    return build(request, estate, observations, now).plan


def build(
    request: RollbackRequest,
    estate: Estate,
    observations: Sequence[Observation],
    now: Instant,
    selection: Sequence[str] | None = None,
) -> Planned:
    """The plan with all that is needed to carry it out. ``selection``: the operations that are meant, in the order of the
    log, where somebody else has found out what the request's selector means.

    Raises InputError where the request's selector or a decision is none.
    """
    if selection is None:
        selection = selected(estate, request.select)
    check_resolutions(request.resolutions)
    observed = {item.resource: item for item in observations}
    if request.plan_hash is not None and may_be_masked(request.resolutions, estate.contracts):
        undecided = msgspec.structs.replace(request, resolutions=[])
        shown = _settled(undecided, estate, observed, now, selection).planned().plan
        if shown.plan_hash == request.plan_hash:
            meant = unmasked(request.resolutions, shown.conflicts, estate.contracts)
            request = msgspec.structs.replace(request, resolutions=meant)
    return _settled(request, estate, observed, now, selection).planned()


def _settled(
    request: RollbackRequest,
    estate: Estate,
    observed: Mapping[str, Observation],
    now: Instant,
    selection: Sequence[str],
) -> _Planning:
    work = _Planning(request, estate, observed, now, selection)
    work.settle()
    return work


class _Planning:
    def __init__(
        self,
        request: RollbackRequest,
        estate: Estate,
        observed: Mapping[str, Observation],
        now: Instant,
        selection: Sequence[str],
    ) -> None:
        self._request = request
        self._estate = estate
        self._observed = observed
        self._now = now
        self._words = Wording(estate.contracts)
        self._resolutions: Sequence[Resolution] = request.resolutions
        self._blocked: dict[str, Blocked] = {}
        self._undos: dict[str, ResourceUndo] = {}
        # Writes whose pre-state nobody knows, by resource and number, and that a compensation makes good, as it does an effect.
        self._blind: set[tuple[str, int]] = set()
        self._notes: list[str] = []
        # The selection in the order of the log; what cascades joins it, as long as what it stands on is to be undone.
        self._selection = dict.fromkeys(selection)
        self._cascaded: dict[str, Dependant] = {}
        self._dependents = dependents_of(estate)
        # The graph: a vertex is a resource, or an effect on one; an edge leads to what must wait.
        self._commands_by_vertex: dict[str, Command] = {}
        self._layers: list[list[str]] = []
        self._after: dict[str, set[str]] = {}

    # -- which operations

    def settle(self) -> None:
        """Blocks and cascades until nothing changes. What is blocked stays so, and what cascaded is only taken out again when
        that on which it stands was blocked: so it ends."""
        for name in list(self._selection):
            self._judge_alone(name)
        while self._round():
            pass

    def _live(self) -> set[str]:
        return self._selection.keys() - self._blocked.keys()

    def _is_live(self, name: str) -> bool:
        return name in self._selection and name not in self._blocked

    def _block(self, blocked: Blocked) -> None:
        self._blocked.setdefault(blocked.operation_id, blocked)

    def _judge_alone(self, name: str) -> None:
        blocked = blocked_alone(self._estate, name, self._now)
        if blocked is not None:
            self._block(blocked)
            return
        for unknown in unknown_neighbours(self._estate, name):
            reason = (
                f"Beside it, {self._words.step(unknown)} began and nobody has said how it ended; find out, or wait."
            )
            self._block(Blocked(operation_id=name, rule="outcome_unknown", reason=reason))

    def _round(self) -> bool:
        before, blind = (list(self._selection), len(self._blocked)), len(self._blind)
        self._undos = self._undo_all()
        for undo in self._undos.values():
            self._judge_resource(undo)
        if (len(self._blocked), len(self._blind)) == (before[1], blind):
            self._judge_dependants()
        for name, item in list(self._cascaded.items()):
            if not self._is_live(item.operation_id):
                del self._cascaded[name], self._selection[name]
        if (list(self._selection), len(self._blocked)) != before:
            self._blind.clear()  # without what was blocked meanwhile, something may be known there
            return True
        return len(self._blind) != blind

    def _undo_all(self) -> dict[str, ResourceUndo]:
        operations: dict[str, set[str]] = {}
        for name in self._live():
            for action in self._estate.operations[name].actions:
                operations.setdefault(action.resource, set()).add(name)
        undos = {}
        for resource in sorted(operations):
            history = self._estate.histories[resource]
            numbers = {
                number
                for number in history.numbers_of(*operations[resource])
                if not self._is_made_good(history, history.entry(number))
            }
            if not numbers:
                continue
            known = self._undos.get(resource)
            if known is not None and known.numbers == numbers:
                undos[resource] = known
            else:
                undos[resource] = undo_resource(history, numbers, self._observed.get(resource), self._resolutions)
        return undos

    def _judge_resource(self, undo: ResourceUndo) -> None:
        resource = undo.history.resource
        if undo.is_needed and undo.merged is None:
            for number in sorted(undo.numbers):
                reason = (
                    f"Nobody knows what {self._words.record(resource)} holds now, so nobody can say what undoing this would"
                    " destroy; let it be looked at, and plan again."
                )
                self._block(_blocked(undo, number, "unobserved", reason))
        blind = blind_entries(undo)
        made_good = [
            entry
            for entry in blind
            if not entry.is_reversal and compensation_of(undo.history, entry.action) is not None
        ]
        if made_good:
            self._blind |= {(resource, entry.number) for entry in made_good}
            return  # without these it is another undo
        for entry in blind:
            reason = (
                f"Nobody recorded what {self._words.record(resource)} held before this step, so there is nothing to go back to;"
                " put it right by hand."
            )
            self._block(_blocked(undo, entry.number, "unknown_pre_state", reason))
        for path, entries in immutable_entries(undo).items():
            for entry in entries:
                reason = (
                    f"Undoing this would change {self._words.place(resource, path)}, which the rules for it say never changes;"
                    " put it right by hand, in the system itself."
                )
                self._block(_blocked(undo, entry.number, "immutable", reason))

    def _is_made_good(self, history: ResourceHistory, entry: Entry) -> bool:
        """Whether an entry is made good by a compensation, and no state is put back."""
        return (history.resource, entry.number) in self._blind or history.is_effect(entry)

    def _judge_dependants(self) -> None:
        self._judge_named()
        for item in dependants(self._estate, self._live(), self._undos, self._observed):
            self._judge_dependant(item)

    def _judge_named(self) -> None:
        """Judges who names an operation in `depends_on`, and again what a block or a cascade touches: along a chain of ten
        thousand in one go."""
        undone = {resource: undo.undone for resource, undo in self._undos.items() if not undo.is_kept}
        waiting = deque(sorted(self._live()))
        while waiting:
            name = waiting.popleft()
            for item in named(self._estate, self._dependents, name, undone):
                if not self._is_live(name):
                    break
                if item.by is None or self._is_live(item.by):
                    continue
                self._judge_dependant(item)
                if self._is_live(item.by):
                    waiting.append(item.by)
            if not self._is_live(name):
                needed = {other for action in self._estate.operations[name].actions for other in action.depends_on}
                waiting.extend(sorted(other for other in needed if self._is_live(other)))

    def _judge_dependant(self, item: Dependant) -> None:
        policy = self._dependants_policy(item.operation_id)
        if policy == "orphan":
            return
        if policy == "cascade" and item.by is not None and item.by not in self._blocked:
            if item.by not in self._selection:
                self._selection[item.by] = None
                self._cascaded[item.by] = item
                self._judge_alone(item.by)
        else:
            reason = f"It can't be undone alone: {item.sentence}. Undo that as well, or leave both as they are."
            self._block(Blocked(operation_id=item.operation_id, rule="dependants", reason=reason))

    def _dependants_policy(self, operation_id: str) -> str:
        """The strictest of the contracts of the operation's resources."""
        policies = {
            self._estate.histories[action.resource].contract.undo.dependants
            for action in self._estate.operations[operation_id].actions
        }
        return next(policy for policy in ("block", "cascade", "orphan") if policy in policies)

    # -- what is done about them

    def planned(self) -> Planned:
        """The plan and its steps, once nothing changes any more."""
        plan = self._plan()
        removals = sorted(
            resource for resource, undo in self._undos.items() if undo.merged is not None and undo.merged.removal
        )
        return Planned(
            plan=plan,
            steps=[] if plan.status == "rejected" else self._steps(),
            cascades=list(self._cascaded),
            removals=removals,
        )

    def _steps(self) -> list[PlannedStep]:
        """One step for each vertex. A layer that needs no command goes with the next one that does."""
        commands, layered, after = self._commands_by_vertex, self._layers, self._after
        operations = self._operations_by_vertex()
        held = {resource for resource, undo in self._undos.items() if undo.is_held}
        behind = reachable(held, after) - held
        undecided = {resource for resource, undo in self._undos.items() if undo.is_undecided} - held
        behind_undecided = reachable(undecided, after) - undecided
        with_commands = sum(any(vertex in commands for vertex in layer) for layer in layered)
        steps, wave = [], 1
        for layer in layered:
            for vertex in layer:
                resource, entry = operations[vertex][0]
                is_effect = self._is_made_good(resource, entry)
                numbers = [entry.number] if is_effect else sorted(self._undos[vertex].numbers)
                steps.append(
                    PlannedStep(
                        resource=resource.resource,
                        wave=min(wave, max(with_commands, 1)),
                        operations=list(dict.fromkeys(map(resource.owner_of, numbers))),
                        numbers=numbers,
                        action_id=entry.action.action_id if is_effect else None,
                        command=commands.get(vertex),
                        is_held=vertex in held,
                        is_behind=vertex in behind,
                        is_undecided=vertex in undecided,
                        is_behind_undecided=vertex in behind_undecided,
                        fallback=[] if is_effect else _fallback(resource, [item for _, item in operations[vertex]]),
                    )
                )
            wave += any(vertex in commands for vertex in layer)
        return steps

    def _operations_by_vertex(self) -> dict[str, list[tuple[ResourceHistory, Entry]]]:
        found: dict[str, list[tuple[ResourceHistory, Entry]]] = {}
        for name in self._selection:
            if name in self._blocked:
                continue
            for history, entry in self._estate.entries_of(name):
                is_effect = self._is_made_good(history, entry)
                vertex = _effect_vertex(history.resource, entry.number) if is_effect else history.resource
                found.setdefault(vertex, []).append((history, entry))
        return found

    def _plan(self) -> Plan:
        request = self._request
        if not self._selection:
            self._notes.append("Nothing is known that the request selects.")
        for name, item in self._cascaded.items():
            self._notes.append(
                f"{upper_first(self._words.step(name))} is undone as well, because of"
                f" {self._words.step(item.operation_id)}: {item.sentence}."
            )
        commands = self._commands_by_vertex = self._commands()
        waves, cycles = self._waves(commands)
        for cycle in cycles:
            self._notes.append(
                f"{listed([self._vertex(item) for item in cycle])} depend on each other in a circle: they are changed together,"
                " the latest change first."
            )
        self._note_waiting(commands)
        self._note_kept_resources()
        self._note_requesters(commands)
        self._note_missing_references(commands)
        self._note_unused_decisions()
        self._note_sources()
        context = self._context(commands)
        for contract in self._contracts(commands):
            reason = forbidden(contract, context, self._notes)
            if reason is not None:
                for name in sorted(self._live()):
                    self._block(Blocked(operation_id=name, rule="forbidden", reason=reason))
                break
        asked = [
            (contract.name, rule)
            for contract in self._contracts(commands)
            for rule in approvals_needed(contract, context, self._notes)
        ]
        is_forbidden = any(blocked.rule == "forbidden" for blocked in self._blocked.values())
        live = [name for name in self._selection if self._is_live(name)]
        content = Plan(
            rollback_id=request.rollback_id,
            status="executable",
            waves=[] if is_forbidden else waves,
            conflicts=self._conflicts(),
            kept=self._kept(),
            blocked=[self._blocked[name] for name in self._selection if name in self._blocked],
            unchanged=self._unchanged(),
            approvals_needed=[],
            operations=live,
            notes=list(self._notes),
            contracts={contract.name: contract.digest for contract in self._contracts(commands)},
        )
        plan_hash = hash_of(content)
        needed = self._missing(asked, plan_hash) if commands and not is_forbidden else []
        status: PlanStatus = "executable"
        if is_forbidden:
            status = "rejected"
        elif not commands:
            status = "nothing_to_do"
        elif needed:
            status = "needs_approval"
        plan = msgspec.structs.replace(content, status=status, approvals_needed=needed, plan_hash=plan_hash)
        told = tell_plan(plan, request, self._estate, self._archived(), len(self._cascaded))
        return msgspec.structs.replace(plan, story=markdown(told), story_parts=told)

    def _archived(self) -> set[str]:
        return {
            resource
            for resource, undo in self._undos.items()
            if undo.merged is not None and undo.merged.removal and undo.history.contract.undo.create.by == "archive"
        }

    def _reason(self) -> str:
        request = self._request
        return request.reason or f"Rollback {request.rollback_id}."

    def _commands(self) -> dict[str, Command]:
        """The commands by the vertices of the graph: a resource, or an effect's operation on one."""
        commands = {}
        for resource, undo in self._undos.items():
            command = undo_command(undo, self._request.rollback_id, self._reason())
            if command is not None:
                commands[resource] = command
        for name in sorted(self._live()):
            for history, entry in self._estate.entries_of(name):
                compensation = compensation_of(history, entry.action)
                if self._is_made_good(history, entry) and compensation is not None:
                    commands[_effect_vertex(history.resource, entry.number)] = corrective(
                        history.resource,
                        "compensate",
                        [],
                        reason=self._reason(),
                        contract=f"{history.contract.name}@{history.contract.version}",
                        rollback_id=self._request.rollback_id,
                        compensation=compensation,
                        compensated=entry.action.action_id,
                        audit=history.contract.audit.on_reversal,
                    )
        return commands

    def _waves(self, commands: Mapping[str, Command]) -> tuple[list[list[Command]], list[list[str]]]:
        after: dict[str, set[str]] = {}
        vertices_of, latest = self._vertices()
        self._order_effects(after)
        for name, vertices in vertices_of.items():
            for action in self._estate.operations[name].actions:
                for needed in action.depends_on:
                    for vertex in vertices:
                        after.setdefault(vertex, set()).update(
                            other for other in vertices_of.get(needed, ()) if other != vertex
                        )
        for resource, undo in self._undos.items():
            self._order_references(resource, undo, after)
        waves, cycles = layers(latest, after)
        self._after = after
        self._layers = [sorted(wave, key=lambda item: (_reverse(latest[item]), item)) for wave in waves]
        ordered = [[commands[vertex] for vertex in wave if vertex in commands] for wave in self._layers]
        return [wave for wave in ordered if wave], [
            cycle for cycle in cycles if any(item in commands for item in cycle)
        ]

    def _vertices(self) -> tuple[dict[str, set[str]], dict[str, tuple[int, int]]]:
        """By operation, what is done about it; and by vertex, the order of the latest operation."""
        vertices_of: dict[str, set[str]] = {}
        latest: dict[str, tuple[int, int]] = {}

        def join(name: str, vertex: str) -> None:
            order = self._estate.operations[name].order
            vertices_of.setdefault(name, set()).add(vertex)
            latest[vertex] = max(order, latest.get(vertex, order))

        for name in sorted(self._live()):
            for history, entry in self._estate.entries_of(name):
                if self._is_made_good(history, entry):
                    join(name, _effect_vertex(history.resource, entry.number))
                elif not self._undos[history.resource].is_kept:
                    join(name, history.resource)
        for resource, undo in self._undos.items():
            if not undo.is_kept:  # else nothing happens to it, so nothing waits for it
                # What the selection itself had undone before comes back, and is undone with the rest.
                for number in undo.numbers:
                    join(undo.history.owner_of(number), resource)
        return vertices_of, latest

    def _order_effects(self, after: dict[str, set[str]]) -> None:
        """Of an effect on a resource and the resource itself, what was done last is undone first."""
        for name in self._live():
            for history, entry in self._estate.entries_of(name):
                undo = self._undos.get(history.resource)
                if self._is_made_good(history, entry) and undo is not None:
                    vertex, resource = _effect_vertex(history.resource, entry.number), history.resource
                    is_last = entry.number > max(undo.numbers)
                    first, second = (vertex, resource) if is_last else (resource, vertex)
                    after.setdefault(first, set()).add(second)

    def _order_references(self, resource: str, undo: ResourceUndo, after: dict[str, set[str]]) -> None:
        """A resource that refers to another goes first, unless the other must be made before it can be referred to."""
        held_now = {key for _, key in references_of(self._estate, resource, {}, self._observed)}
        held_then = {key for _, key in references_of(self._estate, resource, self._undos, self._observed)}
        for key in held_now | held_then:
            other = self._undos.get(key)
            if other is None or key == resource:
                continue
            is_made = other.merged is not None and other.merged.creation
            if is_made and key in held_then:
                after.setdefault(key, set()).add(resource)
            elif not is_made:
                after.setdefault(resource, set()).add(key)

    # -- what is told

    def _contracts(self, commands: Mapping[str, Command]) -> list[Contract]:
        """The contracts that have a say: of all resources that the live operations touch."""
        resources = set(self._undos) | {command.resource for command in commands.values()}
        contracts = {}
        for resource in sorted(resources):
            contract = self._estate.histories[resource].contract
            contracts[contract.name, contract.digest] = contract
        return [contracts[key] for key in sorted(contracts)]

    def _context(self, commands: Mapping[str, Command]) -> dict[str, Json]:
        """What the contracts' rules over a plan can ask about."""
        operations = [
            {
                "operation_id": action.operation_id,
                "run_id": action.run_id,
                "step_id": action.step_id,
                "workflow_id": action.workflow_id,
                "actor": _person(action.actor),
                "occurred_at": format_instant(action.occurred_at),
                "resource": action.resource,
                "operation": action.operation,
                "age_s": (self._now - action.occurred_at) / SECOND,
            }
            for action in self._selected_actions()
        ]
        oldest = min((action.occurred_at for action in self._selected_actions()), default=self._now)
        age_s = (self._now - oldest) / SECOND
        return {
            "operations": operations,
            "resources": len({command.resource for command in commands.values()}),
            "destructive": sum(command.action in ("create", "delete") for command in commands.values()),
            "fields": sum(len(command.changes) for command in commands.values()),
            "actor": _person(self._request.requested_by),
            "age_s": age_s,
            "age": age_s,
        }

    def _selected_actions(self) -> list[Action]:
        return [
            action
            for name in self._selection
            if name in self._estate.operations
            for action in self._estate.operations[name].actions
        ]

    def _missing(self, asked: Sequence[tuple[str, ApprovalRule]], plan_hash: str) -> list[ApprovalNeeded]:
        """The consents that contracts ask for and the request doesn't carry."""
        missing = []
        for contract, rule in asked:
            given = {item.by.id for item in self._request.approvals if self._counts(item, rule.roles, plan_hash)}
            if len(given) < rule.count:
                missing.append(ApprovalNeeded(contract=contract, roles=list(rule.roles), count=rule.count - len(given)))
        return missing

    def _counts(self, approval: Approval, roles: Sequence[str], plan_hash: str) -> bool:
        requester = self._request.requested_by
        return (
            (requester is None or approval.by.id != requester.id)
            and approval.plan_hash in (None, plan_hash)
            and (not roles or bool(set(roles) & set(approval.roles)))
        )

    def _conflicts(self) -> list[PlannedConflict]:
        return [
            PlannedConflict(
                resource=resource,
                path=path_of(conflict.tokens),
                before=conflict.before,
                after=conflict.after,
                actual=conflict.actual,
                resolution=resolution,
                is_decided=conflict.tokens in undo.decided,
            )
            for resource, undo in self._undos.items()
            if undo.merged is not None
            for conflict, resolution in undo.merged.conflicts
        ]

    def _kept(self) -> list[Kept]:
        return [
            Kept(resource=resource, path=path, value=value, owner=owner)
            for resource, undo in self._undos.items()
            for path, value, owner in kept_fields(undo)
            if not self._is_live(owner)  # else it is made good
        ]

    def _unchanged(self) -> list[Unchanged]:
        return [
            Unchanged(resource=resource, path=path_of(tokens))
            for resource, undo in self._undos.items()
            if undo.merged is not None
            for tokens in undo.merged.unchanged
        ]

    def _note_waiting(self, commands: Mapping[str, Command]) -> None:
        """What stays as it is because something that goes before it waits for a decision."""
        undecided = [resource for resource, undo in self._undos.items() if undo.is_undecided]
        for resource in undecided:
            behind = reachable([resource], self._after).difference(undecided)
            waiting = sorted(vertex for vertex in behind if vertex in commands)
            if waiting:
                named = listed([self._vertex(vertex) for vertex in waiting[:_MOST_NAMED]], len(waiting))
                self._notes.append(
                    f"{upper_first(named)} must wait until somebody has decided about {self._words.record(resource)}: nothing is"
                    " changed there before."
                )

    def _note_kept_resources(self) -> None:
        for resource, undo in self._undos.items():
            self._notes += (note for note in undo.notes if note not in self._notes)
            if undo.merged is None or undo.is_held:
                continue
            if undo.kept == "made":
                self._notes.append(f"{self._words.record(resource)} stays: the rules for it keep what a workflow made.")
            elif undo.is_kept:
                self._notes.append(
                    f"{self._words.record(resource)} isn't made again: by the rules for it, what a workflow removed stays removed."
                )

    def _note_requesters(self, commands: Mapping[str, Command]) -> None:
        """Who may have the plan carried out, where the one who asked isn't known to be of them."""
        allowed = dict.fromkeys(contract.requesters.roles for contract in self._contracts(commands))
        for roles in allowed:
            if roles and not set(roles) & set(self._request.roles):
                self._notes.append(f"Only somebody with the role {' or '.join(roles)} may have this carried out.")

    def _note_missing_references(self, commands: Mapping[str, Command]) -> None:
        """What would refer, once the plan is done, to a resource that is known not to be there then."""
        for resource in commands:
            if resource not in self._undos:
                continue
            for path, key in references_of(self._estate, resource, self._undos, self._observed):
                seen, other = self._observed.get(key), self._undos.get(key)
                is_made = other is not None and other.merged is not None and other.merged.creation and key in commands
                if seen is not None and seen.exists is False and not is_made:
                    self._notes.append(
                        f"{self._words.record(resource)} will refer to {self._words.record(key)}"
                        f" ({self._words.field(resource, path)}), which won't be there."
                    )

    def _vertex(self, vertex: str) -> str:
        resource, is_effect, _ = vertex.partition(" effect ")
        return f"what was done to {self._words.record(resource)}" if is_effect else self._words.record(resource)

    def _note_unused_decisions(self) -> None:
        for item in self._resolutions:
            undo = self._undos.get(item.resource)
            if undo is None or tokens_of(item.path) not in undo.decided:
                self._notes.append(
                    f"The decision on {self._words.place(item.resource, item.path)} counts for nothing: nobody has to decide"
                    " there, or something else is there by now than the decision speaks of."
                )

    def _note_sources(self) -> None:
        for resource, undo in self._undos.items():
            for number in sorted(undo.numbers):
                entry = undo.history.entry(number)
                if entry.facts.observed_at is not None:
                    at = moment(entry.facts.observed_at)
                    self._notes.append(
                        f"What {self._words.record(resource)} held before {self._words.step(entry.operation_id)} is known from"
                        f" when it was looked at on {at}."
                    )


def _person(actor: Actor | None) -> dict[str, Json]:
    return {"id": "", "kind": ""} if actor is None else {"id": actor.id, "kind": actor.kind}


def hash_of(plan: Plan) -> str:
    """The digest (BLAKE2b, 32 bytes, hex) of all that a plan would do and of what it would leave undone."""
    content = msgspec.structs.replace(
        plan, status="executable", approvals_needed=[], plan_hash="", story="", story_parts=Story()
    )
    return hashlib.blake2b(canonical(msgspec.to_builtins(content)), digest_size=32).hexdigest()


def _blocked(undo: ResourceUndo, number: int, rule: str, reason: str) -> Blocked:
    return Blocked(operation_id=undo.history.owner_of(number), rule=rule, reason=reason)  # type: ignore[arg-type]


def _fallback(history: ResourceHistory, entries: Sequence[Entry]) -> list[FallbackCompensation]:
    """What makes a resource's undone actions good, should its undo be refused and the contract want that."""
    if history.contract.fallback != "compensate":
        return []
    found = ((entry, compensation_of(history, entry.action)) for entry in entries)
    return [
        FallbackCompensation(
            action_id=entry.action.action_id, operation_id=entry.operation_id, compensation=compensation
        )
        for entry, compensation in found
        if compensation is not None
    ]


def _effect_vertex(resource: str, number: int) -> str:
    return f"{resource} effect {number}"


def _reverse(order: tuple[int, int]) -> tuple[int, int]:
    return -order[0], -order[1]
