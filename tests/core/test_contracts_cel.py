"""What the rules of a contract decide, also when they can't; and that no rule takes without end."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import cel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.contracts.cel import Facts, approvals_needed, forbidden, resolve
from reconciler.contracts.effort import sizes_of, work
from reconciler.contracts.expressions import (
    MAX_CONFLICT_WORK,
    MAX_WORK,
    Compiled,
    EvaluationError,
    compile_expression,
    evaluate,
    faults_of,
)
from reconciler.contracts.model import ApprovalRule, Contract, Forbid, Resolver, Undo
from reconciler.contracts.tokens import shape_of, variables
from reconciler.contracts.vocabulary import CONFLICT, FUNCTIONS, PLAN


def operation(number: int, kind: str = "user", **other: Any) -> dict[str, Any]:
    return {
        "operation_id": f"run-7/step-{number}",
        "run_id": "run-7",
        "step_id": f"step-{number}",
        "workflow_id": "intake",
        "actor": {"id": "ana", "kind": kind},
        "occurred_at": "2026-05-03T10:00:00Z",
        "resource": f"crm/contact/{number}",
        "operation": "update",
        "age_s": float(number),
        **other,
    }


def plan(operations: list[dict[str, Any]] | None = None, **other: Any) -> dict[str, Any]:
    operations = [operation(1), operation(2)] if operations is None else operations
    return {
        "operations": operations,
        "resources": len(operations),
        "destructive": 0,
        "fields": 2,
        "actor": {"id": "ben", "kind": "user"},
        "age_s": 2.0,
        "age": 2.0,
        **other,
    }


def conflict(actual: dict[str, Any] | None = None, **other: Any) -> dict[str, Any]:
    before = {"value": "2", "owner": "intake", "owner_kind": "workflow"}
    after = {"value": "1", "owner": "intake", "owner_kind": "workflow", "written_at": "2026-05-03T10:00:00Z"}
    there = {"value": "3", "owner": "ana", "owner_kind": "user", "modified_at": "2026-05-03T11:00:00Z", "exists": True}
    return {
        "path": "/phone",
        "before": before,
        "after": after,
        "expected": after,
        "actual": there if actual is None else actual,
        **other,
    }


def contract(*resolvers: tuple[str, Any], forbid: str | None = None, approve: str | None = None) -> Contract:
    return Contract(
        name="crm/contact",
        resolvers=tuple(Resolver(when=when, take=take) for when, take in resolvers),
        undo=Undo(forbid=() if forbid is None else (Forbid(when=forbid, because="It stays."),)),
        approvals=() if approve is None else (ApprovalRule(when=approve, count=2),),
    )


# -- what rules decide


def test_the_first_resolver_that_answers_decides() -> None:
    rules = contract(('path == "/fax"', "expected"), ('actual.owner_kind == "user"', "actual"), ("true", "manual"))
    assert resolve(rules, conflict()) == "actual"
    assert resolve(rules, conflict(path="/fax")) == "expected"
    assert resolve(rules, conflict({"owner_kind": "service", "exists": True})) == "manual"


def test_without_an_answer_there_is_none() -> None:
    assert resolve(contract(), conflict()) is None
    assert resolve(contract(("false", "actual")), conflict()) is None


def test_pass_leaves_it_to_the_next() -> None:
    assert resolve(contract(("true", "pass"), ("true", "expected")), conflict()) == "expected"
    assert resolve(contract(("true", "pass")), conflict()) is None


def test_a_resolver_that_asks_for_what_is_not_there_does_not_answer_and_says_so() -> None:
    rules = contract(('actual.owner_kind == "user"', "actual"), ("true", "expected"))
    notes: list[str] = []
    assert resolve(rules, conflict({"exists": False}), notes) == "expected"
    assert resolve(rules, conflict({"exists": False}), notes) == "expected"
    assert notes == [
        'The resolver `actual.owner_kind == "user"` of the contract crm/contact gave no answer: '
        + "it asks for a member that is not there; test for it with has()."
    ]


def test_what_is_absent_can_be_tested_for() -> None:
    rules = contract(("!has(actual.value)", "expected"), ("actual.value == null", "manual"), ("true", "actual"))
    assert resolve(rules, conflict({"exists": True})) == "expected"
    assert resolve(rules, conflict({"exists": True, "value": None})) == "manual"
    assert resolve(rules, conflict({"exists": True, "value": {}})) == "actual"


@pytest.mark.parametrize(
    ("when", "is_true"),
    [
        ("timestamp(actual.modified_at) > timestamp(expected.written_at)", True),
        ("timestamp(actual.modified_at) - timestamp(after.written_at) > duration('2h')", False),
        ("expected.value == after.value && before.value == '2'", True),
        ("path.startsWith('/ph') && path.matches('^/phone$')", True),
        ("actual.value in ['3', '4']", True),
        ("size(actual.value) == 1", True),
        ('matches(path, "^/ph")', True),
        ('!matches(path, "^/fax$")', True),
        ("matches(path + '/x', r'/x$') && true", True),
        ('matches(matches(path, "x") ? "a" : "b", "^b$")', True),
        ('["a", "b"].exists(t, matches(t, "b"))', True),
        ('matches(["a", "/b"].filter(t, matches(t, "/"))[0], "^b")', False),
        ('matches(path == "/phone" ? path : actual.owner, "^/phone$")', True),
    ],
)
def test_what_resolvers_can_say(when: str, is_true: bool) -> None:
    assert not list(faults_of(when, CONFLICT))
    assert resolve(contract((when, "actual")), conflict()) == ("actual" if is_true else None)


@pytest.mark.parametrize(
    ("when", "is_true"),
    [
        ('operations.exists(o, o.actor.kind == "auditor")', False),
        ("operations.all(o, o.run_id == 'run-7')", True),
        ("resources > 100 || destructive > 0", False),
        ("resources >= 2 && fields == 2", True),
        ("actor.id == 'ben'", True),
        ("age_s > 1 && age < 3", True),
        ("operations.filter(o, o.age_s > 1.5).size() == 1", True),
        ("operations.map(o, o.actor.id).all(a, a == 'ana')", True),
        ("operations.exists_one(o, o.step_id.endsWith('-2'))", True),
        ("operations.exists(o, timestamp(o.occurred_at) < timestamp('2026-01-01T00:00:00Z'))", False),
        ("operations.exists(o, actor.id == o.actor.id)", False),
    ],
)
def test_what_rules_over_a_plan_can_say(when: str, is_true: bool) -> None:
    assert not list(faults_of(when, PLAN))
    assert forbidden(contract(forbid=when), plan()) == ("It stays." if is_true else None)
    assert len(approvals_needed(contract(approve=when), plan())) == is_true


def test_approvals_without_a_condition_are_always_needed() -> None:
    rule = ApprovalRule(roles=("steward",))
    assert approvals_needed(Contract(name="a/b", approvals=(rule,)), plan()) == (rule,)


def test_a_rule_that_gives_no_answer_is_the_stricter_one() -> None:
    failing = "operations[5].age_s > 1.0"
    assert not list(faults_of(failing, PLAN))
    notes: list[str] = []
    reason = forbidden(contract(forbid=failing), plan(), notes)
    assert reason is not None and "gave no answer: it asks for a list member that is not there" in reason
    assert reason.endswith("It says: It stays.")
    assert len(approvals_needed(contract(approve=failing), plan(), notes)) == 1
    assert ["so it rejects" in notes[0], "so approval is needed" in notes[1]] == [True, True]


def test_the_facts_are_converted_once_for_many_rules() -> None:
    facts = Facts(plan([operation(number) for number in range(1_000)]))
    rules = contract(forbid='operations.exists(o, o.actor.kind == "auditor")')
    assert forbidden(rules, facts) is None
    started = time.process_time()
    for _ in range(5):
        forbidden(rules, facts)
    again = time.process_time() - started
    started = time.process_time()
    for _ in range(5):
        forbidden(rules, plan([operation(number) for number in range(1_000)]))
    assert again < time.process_time() - started


def test_no_value_of_a_field_gets_into_a_reason() -> None:
    secret = "078-05-1120"
    for when in (
        "int(actual.value) > 1",
        "actual.value[0] == 1",
        "{'a': 1}[actual.value] == 1",
        "actual.value + 1 == 2",
    ):
        notes: list[str] = []
        resolve(contract((when, "actual")), conflict({"value": secret, "exists": True}), notes)
        assert len(notes) == 1
        assert secret not in notes[0]


# -- bounds


def test_a_rule_over_each_of_ten_thousand_operations_is_within_bounds() -> None:
    facts = Facts(plan([operation(number) for number in range(10_000)]))
    assert not evaluate(
        'operations.exists(o, o.actor.kind == "auditor" && o.age_s > 3600.0 && o.operation != "create")', facts
    )


@pytest.mark.parametrize(
    "when",
    [
        "operations.all(a, operations.all(b, a.run_id == b.run_id))",
        "operations.filter(o, o.age_s > 1.0).size() > 1",
        r"operations.exists(o, o.run_id.matches('\\w+@\\w+'))",
        "operations.all(o, operations == operations)",
        "operations.exists(o, o in operations && [operations, operations] == [operations])",
        "operations.all(o, {'a': operations}.size() == 1)",
        "operations.all(o, !(o in operations))",
        "[operations].all(l, operations.all(o, l == operations))",
        "[{'run_id': operations}].all(m, operations.all(o, m.run_id == operations))",
        "operations.all(o, true) && [operations].all(o, operations.all(p, o == operations))",
        "operations.exists(o, o.run_id.matches('a{1,30}b{1,3}'))",
    ],
)
def test_what_would_take_too_long_gives_no_answer_at_once(when: str) -> None:
    assert not list(faults_of(when, PLAN))
    facts = Facts(plan([operation(number) for number in range(10_000)]))
    facts.context(["operations"])
    started = time.process_time()
    with pytest.raises(EvaluationError, match="would take too long"):
        evaluate(when, facts)
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    "when",
    [
        "operations.map(o, o.run_id + o.run_id).size() > 1",
        "operations.map(o, [o, o]).size() > 1",
        "operations.map(o, {'a': o}).size() > 1",
        "operations.map(o, operations.map(p, p.age_s + 1.0).size()).size() > 1",
        "operations.exists(o, o.run_id.matches(o.step_id))",
        "operations.map(o, operations).exists(l, l.exists(p, false))",
        "+".join(["operations"] * 100) + " == []",
        "path" * 501,
    ],
)
def test_what_could_grow_without_bound_is_refused_at_once(when: str) -> None:
    assert list(faults_of(when, PLAN))


def test_growth_by_one_stage_after_the_other_is_seen() -> None:
    """Each stage multiplies what the values of the one before held: with five operations, 600 million after nine."""
    stages = "operations.map(a, operations)" + ".map(b, operations.map(c, b))" * 8 + ".size() > 1"
    facts = Facts(plan([operation(number) for number in range(5)]))
    with pytest.raises(EvaluationError, match="would take too long"):
        evaluate(stages, facts)


@pytest.mark.parametrize(
    ("when", "count"),
    [
        ("operations.filter(o, o.age_s > 1.0).size() > 1", 500),
        ("operations.filter(o, o.age_s > 1.0).all(o, o.run_id == 'run-7')", 500),
        ("operations.map(o, o.run_id).size() > 1", 1_300),
        ("operations.map(o, o.actor.id).all(a, a == actor.id)", 1_300),
        ("operations.map(o, size(o.run_id)).size() > 1", 1_300),
        ("operations.all(a, operations.all(b, a.run_id == b.run_id))", 350),
        ("operations.exists(o, o.actor == actor)", 10_000),
        ("operations.exists(o, o == operations[0])", 10_000),
        ("operations.exists(o, o.actor.kind in ['auditor', 'lawyer'])", 10_000),
        ("operations == operations && operations.size() > 1", 10_000),
    ],
)
def test_the_bound_on_work_is_no_tighter_than_it_need_be_and_holds_for_what_is_measured(when: str, count: int) -> None:
    """What is allowed takes no longer than some times what the bound says, in microseconds."""
    facts = Facts(plan([operation(number) for number in range(count)]))
    compiled = compile_expression(when)
    assert isinstance(compiled, Compiled)
    bound = work(compiled.shape, facts.sizes(compiled.names))
    assert bound <= MAX_WORK
    started = time.process_time()
    evaluate(when, facts)
    assert time.process_time() - started < 0.1 + 5 * bound / 1_000_000


def test_a_rule_over_one_conflict_may_work_less_than_one_over_a_plan() -> None:
    rules = contract(("actual.value.all(x, x in before.value)", "actual"))
    for length, answer in ((100, "actual"), (400, None)):
        notes: list[str] = []
        value = [f"tag-{number}" for number in range(length)]
        assert resolve(rules, conflict({"value": value}, before={"value": value}), notes) == answer
        assert bool(notes) == (answer is None)
    assert MAX_CONFLICT_WORK < MAX_WORK


def test_the_sizes_of_a_value_are_those_of_all_that_stands_in_it() -> None:
    sizes = sizes_of("v", {"a": [1, "x" * 640, [2, 3]], "b": {}, "c": None})
    assert (sizes.members, sizes.nodes, sizes.text) == (3, 19, 640)
    assert sizes.containers == {"v": 19, "a": 16, "b": 1}
    assert sizes.elements == {"v": 16, "a": 11, "b": 0}
    assert sizes_of("v", 1).nodes == 1


# -- what is found out when a contract is loaded


@pytest.mark.parametrize(
    ("when", "place", "message"),
    [
        ("resources >", (1, 12), "the expression can't be read: Syntax error: mismatched input the end"),
        ("true &&\n  (resources", (2, 13), "the expression can't be read"),
        ("true &&\n  resorces > 1", (2, 3), "rules over a plan know no resorces; did you mean resources?"),
        ("operations.exists(o, o.actr.kind == 'x')", (1, 24), "operations have no actr; did you mean actor?"),
        ("actor.knd == 'x'", (1, 7), "actor has no knd; did you mean kind?"),
        (
            "operations.exists(o, o.actor.knd == 'x')",
            (1, 1),
            "the expression can't give an answer: it asks for a member",
        ),
        ("resources.count > 1", (1, 11), "resources has no count"),
        ("sizze(operations) > 1", (1, 1), "rules have no function sizze; did you mean size?"),
        ("operations.all(i, o, true)", (1, 19), "rules over a plan know no o"),
        ("operations.exists(actor, true)", (1, 19), "the name actor already means something here"),
        ("operations.all(o, true) && o.age_s > 1.0", (1, 28), "rules over a plan know no o"),
        ("resources", (1, 1), "the expression can't give an answer: its result is neither true nor false"),
        ("age_s / 60 > 1", (1, 1), "the expression can't give an answer: it combines values of types"),
        ("actor.id.matches('(')", (1, 1), "the expression can't give an answer: it calls a function with what"),
        ("actor.id.matches(actor.kind)", (1, 10), "the expression matches against something else than one text"),
        ("Thing{a: 1} == 1", (1, 1), "the expression is written in a way that can't be checked"),
        ("actual.value == 1", (1, 1), "rules over a plan know no actual"),
        ("'" + "x" * 2_000 + "' == ''", (1, 1), "the expression is longer than 2000 characters"),
    ],
)
def test_each_mistake_in_an_expression_is_named(when: str, place: tuple[int, int], message: str) -> None:
    first = next(faults_of(when, PLAN))
    assert (first.line, first.column) == place
    assert first.message.startswith(message)


def test_what_depends_on_values_is_not_refused() -> None:
    for when in (
        "actual.value > 5",
        "actual.value",
        "actual.value.name == 'x'",
        "actual.value[0] == 1",
        "size(before.value) > 1",
    ):
        assert not list(faults_of(when, CONFLICT)), when
    assert list(faults_of("actual.value + 1", CONFLICT))


@pytest.mark.parametrize(
    ("when", "value"),
    [
        ('actual.value.k == "v"', {"k": "v"}),
        ('actual.value.address.city == "Bonn"', {"address": {"city": "Bonn"}}),
        ('actual.value["k"] == "v"', {"k": "v"}),
        ('actual["value"]["k"] == "v"', {"k": "v"}),
        ("size(actual.value.tags) == 0", {"tags": []}),
        ('actual.value[0].k == "v"', [{"k": "v"}]),
        ("actual.value[2] == 3", [1, 2, 3]),
        ("actual.value[actual.value.at].is_last", {"at": "b", "b": {"is_last": True}}),
        ('actual.value.k.startsWith("x")', {"k": "xy"}),
        ('actual.value.k.matches("^x") && matches(actual.value.k, "y$")', {"k": "xy"}),
        ("actual.value.matches == 1", {"matches": 1}),
        ("!actual.value.k", {"k": False}),
        ("actual.value.k", {"k": True}),
        ("-actual.value.k == 1", {"k": -1}),
        ("10 / (actual.value.k / 3) > 1", {"k": 6}),
        ("int(actual.value.k) > 1 && double(actual.value.j) < 2.0", {"k": "2", "j": "1.5"}),
        ("timestamp(actual.value) > timestamp(expected.written_at)", "2027-01-01T00:00:00Z"),
        ('timestamp(actual.value.d + "T00:00:00Z").getFullYear() == 2027', {"d": "2027-01-01"}),
        ('duration(actual.value.d) > duration("1h")', {"d": "2h"}),
        ("actual.value.items.exists(i, i.qty > 1)", {"items": [{"qty": 2}]}),
        ('actual.value.all(i, i.k in ["a", "b"])', [{"k": "a"}]),
        ("actual.value.items.filter(i, i.qty > 1)[0].price > 2.5", {"items": [{"qty": 2, "price": 3.0}]}),
        ("actual.value.items.map(i, i.price)[0] == 2", {"items": [{"price": 2}]}),
        ("(has(actual.value.a) ? actual.value.a : actual.value.b).c == 1", {"b": {"c": 1}}),
        ("has(actual.value.k.j) && actual.value.k.j > 1", {"k": {"j": 2}}),
        ('{"a": 1, "b": 2}[actual.value.k] == 2', {"k": "b"}),
        ('{"a": actual.value.k}.a.endsWith("v") && [actual.value.k][0].size() == 1', {"k": "v"}),
        ('[actual].exists(s, s.value.k == "v")', {"k": "v"}),
        ('(actual.value.tags + ["x"])[1] == "x" && "y" in actual.value.tags', {"tags": ["y"]}),
        ('path in {"/phone": 1} ? {"/phone": 1}[path] == actual.value.k : actual.value.j > 2', {"k": 1}),
    ],
)
def test_a_rule_may_look_inside_a_value(when: str, value: Any) -> None:
    assert not list(faults_of(when, CONFLICT))
    assert resolve(contract((when, "actual")), conflict({"value": value, "written_at": "", "exists": True})) == "actual"


@pytest.mark.parametrize("side", ["expected", "before", "after"])
def test_a_rule_may_look_inside_the_value_of_each_side(side: str) -> None:
    when = f'{side}.value.address.city == "Bonn"'
    assert not list(faults_of(when, CONFLICT))
    there = {side: {"value": {"address": {"city": "Bonn"}}}}
    assert resolve(contract((when, "actual")), conflict(**there)) == "actual"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"j": "v"}, "it asks for a member that is not there; test for it with has()"),
        ("text", "it combines values of types that don't go together"),
        ([{"k": "v"}], "it combines values of types that don't go together"),
        (None, "it combines values of types that don't go together"),
    ],
)
def test_a_value_that_is_not_what_a_rule_looks_into_is_left_to_the_next(value: Any, reason: str) -> None:
    notes: list[str] = []
    rules = contract(('actual.value.k == "v"', "actual"), ("true", "manual"))
    assert resolve(rules, conflict({"value": value, "exists": True}), notes) == "manual"
    assert notes == [f'The resolver `actual.value.k == "v"` of the contract crm/contact gave no answer: {reason}.']


_TYPES = "it combines values of types that don't go together"
_CALL = "it calls a function with what that can't take"
_BOOL = "its result is neither true nor false"


@pytest.mark.parametrize(
    ("when", "reason"),
    [
        ("actual.owner_kind + 1", _TYPES),
        ("path + 1 == 2", _TYPES),
        ("path", _BOOL),
        ("actual.value", None),
        ("size(actual.value)", _BOOL),
        ("actual.value == 1 ? 'a' : 'b'", _BOOL),
        ("[actual, expected].map(s, s.value)", _BOOL),
    ],
)
def test_what_no_value_makes_answer_is_refused(when: str, reason: str | None) -> None:
    wanted = [] if reason is None else [f"the expression can't give an answer: {reason}"]
    assert [fault.message for fault in faults_of(when, CONFLICT)] == wanted


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("actual.value.k == nme", "rules over a conflict know no nme"),
        ("actual.valu.k == 1", "actual has no valu; did you mean value?"),
        ("actual.value.k.foo()", "rules have no function foo"),
    ],
)
def test_a_misspelt_name_is_found_beside_what_is_in_a_value(when: str, message: str) -> None:
    assert [fault.message.startswith(message) for fault in faults_of(when, CONFLICT)] == [True]


@pytest.mark.parametrize(
    "when",
    [
        'actual.value.k.matches("(a{1,1000}){1,1000}")',
        'matches(actual.value.k, "(a{1,1000}){1,1000}")',
        'actual.value.k == "v" && path.matches("(a{1,1000}){1,1000}")',
        "actual.value.k.all(a, a.k.all(b, b.k.all(c, c.k.all(d, a == b && c == d && a.k == d.k))))",
        "actual.value.k.all(a, " + "[a, a].all(b, " * 10 + "true" + ")" * 11,
    ],
)
def test_looking_inside_a_value_is_no_way_around_the_bound_on_work(when: str) -> None:
    started = time.process_time()
    assert "would take too long" in next(faults_of(when, CONFLICT)).message
    assert time.process_time() - started < 1


def test_the_bound_on_work_holds_for_the_real_value() -> None:
    when = "actual.value.tags.all(x, x in before.value.tags)"
    assert not list(faults_of(when, CONFLICT))
    for length, answer in ((100, "actual"), (400, None)):
        value = {"tags": [f"tag-{number}" for number in range(length)]}
        notes: list[str] = []
        assert resolve(contract((when, "actual")), conflict({"value": value}, before={"value": value}), notes) == answer
        assert ["would take too long" in note for note in notes] == ([] if answer else [True])


# -- the two forms of `matches`


@pytest.mark.parametrize(
    ("when", "place", "message"),
    [
        ("matches(path, actual.owner)", 1, "the expression matches against something else than one text in quotes"),
        ("matches(path, 'a' + 'b')", 1, "the expression matches against something else than one text in quotes"),
        ("matches(path, 'a', 'b')", 1, "the expression matches against something else than one text in quotes"),
        ("matches(path)", 1, "the expression matches against something else than one text in quotes"),
        ("matches('a')", 1, f"the expression can't give an answer: {_CALL}"),
        ("matches(path, '(')", 1, f"the expression can't give an answer: {_CALL}"),
        ("matches(1, 'a')", 1, f"the expression can't give an answer: {_CALL}"),
        ("matches(path, 'a') && pth == ''", 23, "rules over a conflict know no pth; did you mean path?"),
    ],
)
def test_the_global_form_is_checked_like_the_method(when: str, place: int, message: str) -> None:
    found = [(fault.column, fault.message) for fault in faults_of(when, CONFLICT)]
    assert found == [(place, message)]


def test_both_forms_of_matches_are_the_same_work() -> None:
    values = Facts(conflict())
    bounds = []
    for when in ("(path).matches('a{1,30}b{1,3}')", "matches(path, 'a{1,30}b{1,3}')"):
        compiled = compile_expression(when)
        assert isinstance(compiled, Compiled)
        bounds.append(work(compiled.shape, values.sizes(compiled.names)))
    assert bounds[0] == bounds[1] > 1_000


def test_every_function_that_rules_have_is_one_of_the_engine() -> None:
    at = "timestamp('2026-05-03T10:20:30Z')"
    rules = [
        "int('1') == 1 && uint('1') == 1u && double('1.5') == 1.5 && string(1) == '1' && size('ab') == 2",
        "'abc'.contains('b') && 'abc'.startsWith('a') && 'abc'.endsWith('c') && 'abc'.matches('b')",
        "duration('1h') > duration('59m') && has(actor.id)",
        f"{at}.getFullYear() == 2026 && {at}.getMonth() == 4 && {at}.getDate() == 3 && {at}.getDayOfMonth() == 2",
        f"{at}.getHours() == 10 && {at}.getMinutes() == 20 && {at}.getSeconds() == 30 && {at}.getMilliseconds() == 0",
        f"{at}.getDayOfWeek() == 0 && {at}.getDayOfYear() == 122",
    ]
    for when in rules:
        assert not list(faults_of(when, PLAN)), when
        assert evaluate(when, Facts(plan())), when
    assert {token.text for when in rules for token in shape_of(when).called} == FUNCTIONS


def test_a_point_after_a_number_is_part_of_it_only_before_digits() -> None:
    assert [token.text for token in shape_of("1.all(x, 2.5 > 1e3)").tokens][:4] == ["1", ".", "all", "("]
    assert "2.5" in [token.text for token in shape_of("1.all(x, 2.5 > 1e3)").tokens]


# -- expressions of all kinds

_names = st.sampled_from(["operations", "resources", "actor", "actor.id", "age_s", "o", "o.age_s", "path", "fields"])
_literals = st.sampled_from(
    [
        "1",
        "2.5",
        "0x1F",
        "1u",
        "true",
        "null",
        "'a'",
        '"a"',
        r"r'\'",
        "'''a'b'''",
        r"'\''",
        'r"""\\"""',
        "[]",
        "{}",
        "b'a'",
    ]
)
_operators = st.sampled_from(["+", "-", "*", "/", "%", "==", "!=", "<", ">=", "&&", "||", "in"])


def _grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    macros = st.sampled_from(["all", "exists", "exists_one", "filter", "map"])
    functions = st.sampled_from(
        [
            "size({})",
            "has(actor.id)",
            "string({})",
            "({}).contains('a')",
            "({}).matches('a')",
            "matches({}, 'a{{1,9}}')",
            "-({})",
        ]
    )
    return st.one_of(
        st.builds("({} {} {})".format, inner, _operators, inner),
        st.builds("({} ? {} : {})".format, inner, inner, inner),
        st.builds("[{}, {}]".format, inner, inner),
        st.builds("{{{}: {}}}".format, inner, inner),
        st.builds("operations.{}(o, {})".format, macros, inner),
        st.builds("({}).{}(p, {}) // not 'this".format, inner, macros, inner).map(lambda text: f"{text}\n"),
        st.builds("{}[{}]".format, _names, inner),
        st.builds(lambda function, text: function.format(text), functions, inner),
        st.builds("!({})".format, inner),
    )


expressions = st.recursive(_names | _literals, _grown, max_leaves=8)


@given(expressions)
def test_the_tokens_give_the_variables_that_the_engine_sees(expression: str) -> None:
    program = cel.compile(expression)
    shape = shape_of(expression)
    bound = {token.text for token in shape.tokens if token.is_bound}
    free = {token.text for token in variables(shape)}
    assert free <= set(program.variables()) <= free | bound
    assert shape.is_rewritten or "".join(expression.split()).startswith(shape.tokens[0].text)


@given(expressions, st.integers(0, 3))
def test_every_expression_gives_true_or_false_or_no_answer(expression: str, count: int) -> None:
    try:
        answer = evaluate(expression, Facts(plan([operation(number) for number in range(count)])))
    except EvaluationError as error:
        answer = bool(error)
    assert isinstance(answer, bool)
    assert all(fault.message for fault in faults_of(expression, PLAN))


_forty = Facts(plan([operation(number) for number in range(40)]))


@given(expressions)
def test_no_expression_takes_longer_than_its_bound(expression: str) -> None:
    compiled = compile_expression(expression)
    if not isinstance(compiled, Compiled) or not set(compiled.names) <= PLAN.members.keys():
        return
    bound = work(compiled.shape, _forty.sizes(compiled.names))
    if bound <= MAX_WORK:
        started = time.process_time()
        with contextlib.suppress(EvaluationError):
            evaluate(expression, _forty)
        assert time.process_time() - started < 0.1 + 5 * bound / 1_000_000


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_is_an_expression_or_has_a_fault(text: str) -> None:
    compiled = compile_expression(text)
    assert isinstance(compiled, Compiled) or (compiled.message and compiled.line >= 1)
