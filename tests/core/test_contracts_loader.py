"""Contracts from YAML: all that is accepted, and all that is refused, with the place that is to blame."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.contracts import yaml_tree
from reconciler.contracts.errors import ContractError, Fault
from reconciler.contracts.loader import Source, contract_set, load_contracts, parse, parse_contract
from reconciler.contracts.model import (
    ApprovalRule,
    Audit,
    CompensationRule,
    Contract,
    CreateUndo,
    DeleteUndo,
    Existence,
    FieldRule,
    Forbid,
    Requesters,
    Resolver,
    Retry,
    Service,
    Timing,
    Undo,
)
from reconciler.values.errors import InputError
from reconciler.values.json_value import MAX_DEPTH
from reconciler.values.normalise import InstantTo, NumberWithin

FULL = """\
contract: crm/contact
version: 3
labels: {resource: contact, /phone: phone number}
fields:
  /phone: {drift: correct, conflict: expected_wins, normalise: [digits], confirm: 1}
  /tags:  {kind: set, conflict: merge}
  /lines: {kind: keyed, key: /sku, conflict: merge}
  /score: {kind: counter, conflict: merge}
  /prefs: {kind: map, conflict: merge}
  /total: {drift: adopt, normalise: [trim, {number: {tolerance: "0.01"}}]}
  /seen_at: {drift: ignore, conflict: latest_wins, normalise: [{instant: {precision: second}}]}
  /ssn:   {sensitive: true}
  /owner: {conflict: source_priority, sources: [user, erp-sync]}
  /id:    {immutable: true}
  /created_at: {generated: true}
  /*:     {drift: report}
resolvers:
  - {when: 'actual.owner_kind == "user"', take: actual}
conflict_scope: field
existence: {missing: correct, unexpected: report}
undo:
  until_s: 2592000
  observed_within_s: 5
  create: {by: archive, set: {/status: archived, /archived_by: null}}
  delete: {by: keep}
  dependants: cascade
  late_actions: reverse
  compensations: {send-invoice: {by: credit-note}}
  forbid: [{when: 'operations.exists(o, o.actor.kind == "auditor")', because: "An auditor's work stays."}]
requesters: {roles: [operator]}
approvals: [{when: 'resources > 100 || destructive > 0', roles: [data-steward], count: 2}]
references: {/account_id: crm/account}
audit: {on_reversal: archive}
timing: {settle_s: 10, in_flight_s: 60, sample_every_s: 0.5, pre_state_max_age_s: 0}
retry: {attempts: 7, first_s: 1, factor: 1.5, cap_s: 60}
fallback: compensate
service: {ack_within_s: 5, promises: [compare_and_set, deduplicates]}
"""


def faults(text: str) -> list[str]:
    with pytest.raises(ContractError) as refused:
        parse_contract(text, "c.yaml")
    return [str(fault) for fault in refused.value.faults]


def test_every_key_is_read_and_typed() -> None:
    assert parse_contract(FULL) == Contract(
        name="crm/contact",
        version=3,
        labels={"resource": "contact", "/phone": "phone number"},
        fields={
            "/phone": FieldRule(drift="correct", conflict="expected_wins", normalise=("digits",), confirm=1),
            "/tags": FieldRule(kind="set", conflict="merge"),
            "/lines": FieldRule(kind="keyed", key="/sku", conflict="merge"),
            "/score": FieldRule(kind="counter", conflict="merge"),
            "/prefs": FieldRule(kind="map", conflict="merge"),
            "/total": FieldRule(drift="adopt", normalise=("trim", NumberWithin(Decimal("0.01")))),
            "/seen_at": FieldRule(drift="ignore", conflict="latest_wins", normalise=(InstantTo("second"),)),
            "/ssn": FieldRule(sensitive=True),
            "/owner": FieldRule(conflict="source_priority", sources=("user", "erp-sync")),
            "/id": FieldRule(immutable=True),
            "/created_at": FieldRule(generated=True),
            "/*": FieldRule(drift="report"),
        },
        resolvers=(Resolver(when='actual.owner_kind == "user"', take="actual"),),
        conflict_scope="field",
        existence=Existence(missing="correct"),
        undo=Undo(
            until_s=2592000.0,
            observed_within_s=5.0,
            create=CreateUndo(by="archive", set={"/status": "archived", "/archived_by": None}),
            delete=DeleteUndo(by="keep"),
            dependants="cascade",
            late_actions="reverse",
            compensations={"send-invoice": CompensationRule(by="credit-note")},
            forbid=(
                Forbid(when='operations.exists(o, o.actor.kind == "auditor")', because="An auditor's work stays."),
            ),
        ),
        requesters=Requesters(roles=("operator",)),
        approvals=(ApprovalRule(when="resources > 100 || destructive > 0", roles=("data-steward",), count=2),),
        references={"/account_id": "crm/account"},
        audit=Audit(on_reversal="archive"),
        timing=Timing(settle_s=10.0, in_flight_s=60.0, sample_every_s=0.5, pre_state_max_age_s=0.0),
        retry=Retry(attempts=7, first_s=1.0, factor=1.5, cap_s=60.0),
        fallback="compensate",
        service=Service(ack_within_s=5.0, promises=("compare_and_set", "deduplicates")),
    )


def test_what_is_left_out_has_its_default() -> None:
    assert parse_contract("contract: '*'") == Contract(name="*")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("undo:", "«undoo:", "a contract has no key 'undoo'; did you mean undo?"),
        (
            "conflict_scope: field",
            "«conflictscope: field",
            "a contract has no key 'conflictscope'; did you mean conflict_scope",
        ),
        ("fallback: comp", "«x: comp", "a contract has no key 'x'; use approvals, audit, conflict_scope,"),
        (
            "drift: correct",
            "drift: «corect",
            "drift must be correct, adopt, report or ignore, not 'corect'; did you mean c",
        ),
        ("confirm: 1", "confirm: «3", "confirm must be 1 or 2, not 3"),
        ("confirm: 1", "confirm: «true", "confirm must be 1 or 2, not true"),
        ("sensitive: true", "sensitive: «yes", "sensitive must be true or false, not 'yes' (only true and"),
        ("immutable: true", "immutable: «on", "immutable must be true or false, not 'on' (only true and"),
        ("immutable: true", "immutable: «1", "immutable must be true or false, not 1"),
        ("version: 3", "version: «0", "version must be at least 1 and at most 2147483647, not 0"),
        ("version: 3", "version: «1.5", "version must be a whole number, not 1.5"),
        ("version: 3", "version: «~", "version must be a whole number, not nothing"),
        ("resource: contact", "resource: «7", "resource must be text, not 7; put it in quotes"),
        ("resource: contact", "resource: «''", "resource must not be empty"),
        ("resource: contact", "«phone: contact", "a key of labels must be `resource` or a path such as /phone"),
        ("[digits]", "«digits", "normalise must be a list, not 'digits'; write [a, b]"),
        ("[digits]", "[«digit]", "a member of normalise can't be 'digit'; did you mean digits?"),
        ("[digits]", "[{«trim: {}}]", "a member of normalise can't be 'trim' with options; trim has no options"),
        ("[digits]", "[{«nmber: {}}]", "a member of normalise can't be 'nmber' with options; did you mean number?"),
        ("[digits]", "[«{trim: {}, digits: {}}]", "a member of normalise can't be a mapping; use trim, casefold,"),
        ('tolerance: "0.01"', "tolerance: «-1", "tolerance must be at least 0"),
        ('tolerance: "0.01"', 'tolerance: «"1%"', 'tolerance must be a decimal such as "0.01"'),
        ('{tolerance: "0.01"}', "«{}", "number needs the key tolerance"),
        ("precision: second", "precision: «s", "precision must be day, hour, minute, second,"),
        ("key: /sku", "key: «sku", "key must be a path such as /address/city"),
        ("/tags: ", "«tags: ", "a key of fields must be a path such as /address/city"),
        ("/tags: ", "«/tags~2: ", "a key of fields must be a path"),
        (
            "/tags: ",
            "«/*/tags: ",
            "a key of fields must be a path such as /address/city (a JSON Pointer), with a * only as its last",
        ),
        ("{kind: set, conflict: merge}", "«set", "/tags must be a mapping with confirm, conflict,"),
        (
            "{kind: keyed, key: /sku,",
            "{«kind: keyed,",
            "/lines: a keyed list needs the key that tells its members apart",
        ),
        ("{kind: set, conflict", "{«conflict", "/tags: merge needs the kind of the value"),
        (
            "{conflict: source_priority, sources: [user, erp-sync]}",
            "{«conflict: source_priority}",
            "/owner: source_priority",
        ),
        ("sources: [user, erp-sync]", "sources: «[]", "sources must have from 1 to 100 members"),
        (
            "{generated: true}",
            "{«generated: true, drift: correct}",
            "/created_at: the target fills a generated field in itself",
        ),
        ("take: actual", "take: «mine", "take must be expected, actual, manual or pass, not 'mine'"),
        (
            "{when: 'actual.owner_kind == \"user\"', take: actual}",
            "«{when: 'true'}",
            "a member of resolvers needs the key take",
        ),
        ("actual.owner_kind", "actual.«ownerkind", "when: actual has no ownerkind; did you mean owner_kind?"),
        ('== "user"\'', '== "user" &&«\'', "when: the expression can't be read: Syntax error"),
        ("missing: correct", "missing: «adopt", "missing must be report or correct, not 'adopt'"),
        ("until_s: 2592000", "until_s: «-1", "until_s must be at least 0"),
        ("until_s: 2592000", "until_s: «.inf", ".inf is no number of JSON"),
        ("{by: archive, set: {/status: archived, /archived_by: null}}", "{«by: archive}", "create: archive needs set"),
        ("/archived_by: null", "«/status/a: 1", "/status/a lies below /status"),
        ("/archived_by: null", "«/id: 1", "/id is immutable, so archiving can't write it; take it out of set"),
        ("/archived_by: null", "«/created_at: 1", "/created_at is generated by the target, so archiving can't write"),
        (
            "take: actual}",
            "take: actual}\n  - {when: 'actual.owner_kind == \"user\"', «take: manual}",
            "resolver 1 asks the same and takes actual, so this one never decides; keep one of them",
        ),
        ("{by: keep}", "{by: «keeps}", "by must be recreate or keep, not 'keeps'; did you mean keep?"),
        ("{send-invoice: {by: credit-note}}", "{«a: {by: b}, b: {by: a}}", "a by b by a never ends"),
        ("{by: credit-note}", "{by: «''}", "by must not be empty"),
        ("{by: credit-note}", "«{}", "send-invoice needs the key by"),
        ("o.actor.kind", "o.«actr.kind", "when: operations have no actr; did you mean actor?"),
        ("'resources > 100 ||", "'«resources ||", "when: the expression can't give an answer: it combines"),
        ("resources > 100", "«resource > 100", "when: rules over a plan know no resource; did you mean resources?"),
        ("count: 2", "count: «0", "count must be at least 1"),
        ("count: 2", "count: «'2'", "count must be a whole number, not '2'"),
        ("crm/account", "«account", "/account_id must be system/type"),
        ("crm/account", "«crm/*", "/account_id must be system/type"),
        ("sample_every_s: 0.5", "sample_every_s: «0", "sample_every_s must be above 0"),
        ("settle_s: 10", "settle_s: «'10'", "settle_s must be a number, not '10'"),
        ("settle_s: 10", "settle_s: «1e30", "settle_s must be at least 0 and at most 3155760000"),
        ("contract: crm/contact", "contract: «contact", "contract must be system/type, system/* or *"),
        ("contract: crm/contact", "contract: «'*/contact'", "contract must be system/type, system/* or *"),
        ("contract: crm/contact", "«contract: crm/%2A", "'crm/%2A' is no name of a contract"),
        ("contract: crm/contact\n", "«", "a contract needs the key contract"),
    ],
)
def test_each_mistake_is_named_with_its_place(old: str, new: str, message: str) -> None:
    """« stands before what is to blame."""
    assert FULL.count(old) == 1
    marked = FULL.replace(old, new)
    before = marked[: marked.index("«")]
    place = f"c.yaml:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}: "
    found = faults(marked.replace("«", ""))
    assert any(line.startswith(place + message) for line in found), (place, found)


def test_a_compensating_contract_needs_compensations() -> None:
    assert faults("contract: a/b\nfallback: compensate") == [
        "c.yaml:2:1: a contract: compensate needs undo.compensations, which name what makes good a step"
    ]


def test_all_faults_are_found_at_once_and_the_first_is_the_message() -> None:
    text = "contract: crm/contact\nversion: x\nfields:\n  /a: {drift: no, kind: list}\n"
    with pytest.raises(ContractError) as refused:
        parse_contract(text, "c.yaml")
    assert [(fault.line, fault.column) for fault in refused.value.faults] == [(2, 10), (4, 15), (4, 25)]
    assert str(refused.value).endswith("not 'x' (and 2 more: run `reconciler contracts lint`)")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "c.yaml: is empty"),
        ("# nothing\n", "c.yaml: is empty"),
        ("[]", "c.yaml:1:1: a contract must be a mapping"),
        ("contract: a/b\ncontract: a/c", "c.yaml:2:1: the key 'contract' stands twice here; it is also in line 1"),
        ("contract: a/b\nfields: {/a: {}, /a: {}}", "c.yaml:2:18: the key '/a' stands twice"),
        ("contract: a/b\n---\ncontract: a/c", "c.yaml:2:1: holds a second document"),
        ("contract: a/b\nfields:\n\t/a: {}", "c.yaml:3:1: a tab stands where"),
        ("contract: [a/b", "c.yaml:1:15: is no YAML"),
        ("contract: 'a/b", "c.yaml:1:15: is no YAML"),
        ("contract: a/b\nversion: !!int '3'", "c.yaml:2:10: the tag tag:yaml.org,2002:int is not allowed"),
        ("contract: !!python/name:os.system a", "c.yaml:1:11: the tag tag:yaml.org,2002:python/name:os.system"),
        ("%YAML 1.1\n---\ncontract: a/b", "c.yaml:2:1: asks for another YAML than 1.2"),
        ("contract: a/b\n1: 2", "c.yaml:2:1: a key must be text; put it in quotes"),
        ("? {a: b}\n: c", "c.yaml:1:3: a key must be text"),
        ("contract: *", "c.yaml:1:12: is no YAML: * begins an alias here; put text that begins with it in quotes"),
        ("contract: &", "c.yaml:1:12: is no YAML: & begins an anchor here"),
        (
            "contract: a/b\nresolvers:\n- take: actual\n  when: !has(a)",
            "c.yaml:4:9: the tag !has(a) is not allowed; put text",
        ),
        ("contract: a/b\nresolvers:\n- {take: actual, when: !has(a)}", "c.yaml:3:31: is no YAML: ! begins a tag here"),
        ("contract: *name", "c.yaml:1:11: the alias *name names nothing that is complete before it"),
        ("contract: a/b\nlabels: &l {resource: *l}", "c.yaml:2:23: the alias *l names nothing"),
        ("contract: a/b\x07", "c.yaml: is no YAML: unacceptable character"),
        ("contract: a/b\nundo: {create: {by: archive, set: {/zip: 012}}}", "c.yaml:2:42: 012 begins with a zero"),
        (
            f"contract: a/b\nundo: {{create: {{set: {{/a: {2**64}}}}}}}",
            "c.yaml:2:27: the integer 18446744073709551616 is",
        ),
        ("contract: a/b\nundo: {create: {set: {/a: 1e999}}}", "c.yaml:2:27: 1e999 is too large"),
        (f"contract: a/b\nundo: {{create: {{set: {{/a: {'9' * 99}}}}}}}", "c.yaml:2:27: the number 99999999"),
        ("contract: a/b\nlabels:\n  <<: {resource: x}", "c.yaml:3:3: a key of labels must be"),
        ("contract: " + "[" * 5_000, "c.yaml:1:118: is nested more than 108 levels deep"),
        ("contract: a/b #" + " " * yaml_tree.MAX_BYTES, "c.yaml: is larger than 262144 bytes"),
    ],
)
def test_each_trap_of_yaml_is_refused(text: str, fault: str) -> None:
    assert faults(text)[0].startswith(fault)


def test_an_alias_bomb_is_refused_before_it_goes_off() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    (fault,) = faults("\n".join(lines))
    assert fault.startswith("c.yaml:5:") and "more than 20000 values, aliases written out" in fault


def test_an_alias_stands_for_what_it_names() -> None:
    contract = parse_contract("contract: a/b\nfields: {/a: &rule {drift: correct}, /b: *rule}")
    assert contract.fields["/a"] == contract.fields["/b"] == FieldRule(drift="correct")


def test_text_is_yaml_1_2() -> None:
    contract = parse_contract(
        "contract: a/b\nundo: {create: {by: archive, set: {/a: no, /b: 0o17, /c: 2026-05-03, /d: ~, /e: 1_000, /f: 0x1F}}}"
    )
    assert contract.undo.create.set == {"/a": "no", "/b": 15, "/c": "2026-05-03", "/d": None, "/e": "1_000", "/f": 31}


def test_an_expression_over_several_lines_names_its_own_line() -> None:
    text = "contract: a/b\napprovals:\n  - when: |\n      resources > 1\n      || resorces > 2\n"
    assert faults(text) == [
        "c.yaml:3:11: when: rules over a plan know no resorces; did you mean resources? (line 2, column 4 of the expression)"
    ]


def test_a_value_may_be_as_deep_as_any() -> None:
    def text(levels: int) -> str:
        return f"contract: a/b\nundo: {{create: {{by: archive, set: {{/a: {'[' * levels}{']' * levels}}}}}}}"

    assert parse_contract(text(MAX_DEPTH)).undo.create.set
    assert "is nested more than 100 levels deep" in faults(text(MAX_DEPTH + 1))[0]


# -- several files


def test_a_circle_of_immutable_references_is_refused() -> None:
    def text(here: str, there: str, rule: str = "{immutable: true}") -> str:
        return f"contract: crm/{here}\nfields: {{/ref: {rule}}}\nreferences: {{/ref: crm/{there}}}"

    circle = [Source("a.yaml", text("a", "b")), Source("b.yaml", text("b", "c")), Source("c.yaml", text("c", "a"))]
    with pytest.raises(
        ContractError, match=r"a\.yaml:3:14: crm/a refers to crm/b refers to crm/c refers to crm/a, all by"
    ):
        contract_set(circle)
    usable = [
        [*circle[:2], Source("c.yaml", text("c", "a", "{}"))],  # one of them can be cut for a while
        circle[:2],
        [Source("a.yaml", text("a", "a"))],  # its resources are ordered one by one
    ]
    assert [len(contract_set(sources).contracts) for sources in usable] == [3, 2, 1]


def test_two_files_for_one_type_are_refused() -> None:
    sources = [Source("a.yaml", "contract: crm/a"), Source("b.yaml", "version: 1\ncontract: crm/%61")]
    with pytest.raises(ContractError, match=r"b\.yaml:2:1: another contract is for crm/%61 as well"):
        contract_set(sources)


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text("contract: crm/b", encoding="utf-8")
    (tmp_path / "a.yaml").write_bytes("\ufeffcontract: crm/a".encode())
    (tmp_path / "notes.txt").write_text("contract: [", encoding="utf-8")
    (tmp_path / ".a.yaml.swp").write_text("contract: [", encoding="utf-8")
    (tmp_path / ".hidden.yaml").write_text("contract: [", encoding="utf-8")
    (tmp_path / "below.yaml").mkdir()
    assert [contract.name for contract in load_contracts(tmp_path).contracts] == ["crm/a", "crm/b"]


def test_an_empty_folder_has_no_contracts_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    assert load_contracts(tmp_path).contracts == ()
    with pytest.raises(InputError, match="is no folder"):
        load_contracts(tmp_path / "missing")


def test_a_file_that_cannot_be_read_is_an_error_and_never_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"a\.yaml can't be read"):
        load_contracts(tmp_path)
    (tmp_path / "a.yaml").unlink()
    (tmp_path / "a.yaml").write_bytes(b"contract: crm/\xff")
    with pytest.raises(InputError, match="is not UTF-8"):
        load_contracts(tmp_path)
    (tmp_path / "a.yaml").write_bytes(b"contract: crm/a #" + "é".encode() * yaml_tree.MAX_BYTES)
    with pytest.raises(ContractError, match="is larger than"):
        load_contracts(tmp_path)


def test_faults_of_all_files_are_found_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("contract: crm", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("contract: crm/b\nversion: x", encoding="utf-8")
    with pytest.raises(ContractError) as refused:
        load_contracts(tmp_path)
    assert [(Path(fault.file).name, fault.line) for fault in refused.value.faults] == [("a.yaml", 1), ("b.yaml", 2)]


# -- anything at all


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_any_text_is_a_contract_or_a_contract_error(text: str) -> None:
    _parse_or_refuse(text)


@given(
    st.integers(0, len(FULL)),
    st.integers(0, 30),
    st.sampled_from(["", "\t", "]", "{", ":", "- ", "'", '"', "&a ", "*a", "\n", "|", "é"]),
)
def test_a_damaged_contract_is_a_contract_or_a_contract_error(start: int, gone: int, put: str) -> None:
    _parse_or_refuse(FULL[:start] + put + FULL[start + gone :])


def _parse_or_refuse(text: str) -> None:
    found: list[Fault] = []
    loaded = parse(Source("c.yaml", text), found)
    assert (loaded is None) == bool(found)
    lines = len(text.splitlines()) + 1
    assert all(fault.message and 0 <= fault.line <= lines for fault in found)
