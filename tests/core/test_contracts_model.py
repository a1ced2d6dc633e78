"""Which rule and which contract hold, and when two contracts are one."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.contracts.loader import parse_contract
from reconciler.contracts.model import DEFAULT_CONTRACT, Contract, ContractSet, FieldRule
from reconciler.values.errors import InputError
from reconciler.values.normalise import NumberWithin

EXACT, WILD, DEEP, DEEP_WILD = (FieldRule(sources=(name,)) for name in ("exact", "wild", "deep", "deep wild"))


def _contract(**rules: FieldRule) -> Contract:
    return Contract(name="crm/contact", fields=rules)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/a", "/a"),
        ("/a/b", "/a/b"),
        ("/a/x", "/a/*"),  # for what is below, /a/* beats /a
        ("/a/x/y", "/a/*"),
        ("/a/b/c", "/a/b"),  # a field's rule covers its subtree, and is longer than /a/*
        ("/c", "/*"),
        ("/c/d", "/c/*"),
        ("/c/d/e/f", "/c/*"),
        ("/ab", "/*"),  # not below /a
        ("/a~1b", "/*"),  # one name, not below /a
        ("/", "/*"),
        ("/a/", "/a/*"),
        ("", None),  # /* is for what is below the resource, not for the resource
    ],
)
def test_the_longest_matching_path_wins(path: str, place: str | None) -> None:
    contract = _contract(**{"/a": EXACT, "/a/*": WILD, "/a/b": DEEP, "/c/*": DEEP_WILD, "/*": FieldRule()})
    assert contract.rule_and_place(path)[0] == place
    assert contract.rule(path) == (FieldRule() if place is None else contract.fields[place])


def test_a_field_rule_covers_what_is_inside_the_field() -> None:
    contract = _contract(**{"/address": FieldRule(drift="correct", sensitive=True), "": FieldRule(drift="adopt")})
    assert contract.rule("/address/city/name").drift == "correct"
    assert contract.rule("/address/city").sensitive
    assert contract.rule("/phone").drift == "adopt"
    assert contract.rule("").drift == "adopt"


def test_a_kind_is_that_of_the_value_at_the_path_alone() -> None:
    contract = _contract(
        **{
            "/prefs": FieldRule(kind="map", conflict="merge", drift="correct"),
            "/lists/*": FieldRule(kind="keyed", key="/id", conflict="merge"),
        }
    )
    assert contract.rule("/prefs").kind == "map"
    assert contract.rule("/prefs/theme") == FieldRule(drift="correct", conflict="manual")
    assert contract.rule("/lists/open") == FieldRule(kind="keyed", key="/id", conflict="merge")
    assert contract.kinds == {"/prefs": "map", "/lists/*": "keyed"}


def test_a_rule_takes_nothing_over_from_a_shorter_one() -> None:
    contract = _contract(**{"/*": FieldRule(drift="correct"), "/phone": FieldRule(conflict="actual_wins")})
    assert contract.rule("/phone").drift == "report"


def test_what_is_no_path_is_refused() -> None:
    with pytest.raises(InputError, match="must be empty or begin with '/'"):
        DEFAULT_CONTRACT.rule("phone")


names = st.sampled_from(["a", "b", "", "*", "~0", "~1"])
paths = st.lists(names, max_size=4).map(lambda tokens: "".join(f"/{token}" for token in tokens))


@given(st.dictionaries(paths, st.integers(0, 99).map(lambda n: FieldRule(sources=(str(n),))), max_size=8), paths)
def test_the_winner_is_the_longest_of_all_that_match(rules: dict[str, FieldRule], path: str) -> None:
    """Against the rules of precedence, read from the definition: longer first, then exact, then /a/* before /a below."""

    def rank(place: str) -> tuple[int, int] | None:
        if place == path:
            return place.count("/"), 2
        if place.endswith("/*") and path.startswith(place[:-1]):
            return place.count("/") - 1, 1
        if path.startswith(f"{place}/"):
            return place.count("/"), 0
        return None

    ranked = {place: rank(place) for place in rules}
    matching = sorted(
        (place for place in rules if ranked[place] is not None), key=lambda place: ranked[place] or (), reverse=True
    )
    contract = _contract(**rules)
    assert contract.rule_and_place(path)[0] == (matching[0] if matching else None)
    assert list(dict.fromkeys(contract.covering(path))) == matching
    assert contract.rule(path) is contract.rule(path)


def test_the_most_specific_contract_wins() -> None:
    contracts = ContractSet(tuple(Contract(name=name) for name in ("*", "crm/*", "crm/contact", "crm/a%2Fb")))
    assert contracts.for_resource("crm/contact/42").name == "crm/contact"
    assert contracts.for_resource("crm/account/42").name == "crm/*"
    assert contracts.for_resource("erp/order/42").name == "*"
    assert contracts.for_resource("crm/a%2fb/1").name == "crm/a%2Fb"
    assert contracts.for_resource("crm/cont%61ct/1").name == "crm/contact"


def test_without_a_contract_the_default_holds() -> None:
    contract = ContractSet().for_resource("crm/contact/42")
    assert contract is DEFAULT_CONTRACT
    assert contract.rule("/phone") == FieldRule(drift="report", conflict="manual")
    (approval,) = contract.approvals
    assert (approval.when, approval.roles, approval.count) == (None, (), 1)
    assert not Contract(name="crm/contact").approvals


def test_what_names_no_type_has_no_contract() -> None:
    for resource in ("", "crm", "crm/contact", "/contact/42", "c m/contact/42", "crm/contact/42/1"):
        with pytest.raises(InputError, match="must be system/type/id"):
            ContractSet().for_resource(resource)


def test_two_contracts_for_one_type_are_refused() -> None:
    with pytest.raises(InputError, match="the same name"):
        ContractSet((Contract(name="crm/contact"), Contract(name="crm/cont%61ct")))


def test_a_digest_is_over_what_a_contract_says_not_how_it_is_written() -> None:
    long = """
      version: 2
      fields:
        /b: {drift: report, normalise: [{number: {tolerance: "0.10"}}]}
        /a: {}
      contract: crm/contact
      timing: {settle_s: 30}
    """
    short = "contract: crm/contact\nversion: 2\nfields: {/a: {}, /b: {normalise: [{number: {tolerance: 0.1}}]}}"
    built = Contract(
        name="crm/contact",
        version=2,
        fields={"/b": FieldRule(normalise=(NumberWithin(Decimal("0.1")),)), "/a": FieldRule()},
    )
    assert parse_contract(long).digest == parse_contract(short).digest == built.digest


def test_a_digest_tells_every_difference() -> None:
    texts = [
        "contract: crm/contact",
        "contract: crm/account",
        "contract: crm/contact\nversion: 2",
        "contract: crm/contact\nfields: {/a: {}}",
        "contract: crm/contact\nfields: {/a: {sources: [a, b], conflict: source_priority}}",
        "contract: crm/contact\nfields: {/a: {sources: [b, a], conflict: source_priority}}",
        "contract: crm/contact\nlabels: {/a: x}",
        "contract: crm/contact\nundo: {create: {by: archive, set: {/a: 1}}}",
        "contract: crm/contact\nundo: {create: {by: archive, set: {/a: 1.0}}}",
        "contract: crm/contact\nundo: {create: {by: archive, set: {/a: '1'}}}",
    ]
    contracts = [parse_contract(text) for text in texts]
    assert len({contract.digest for contract in contracts}) == len(texts)
    sets = [ContractSet(), *(ContractSet((contract,)) for contract in contracts), ContractSet(tuple(contracts[:2]))]
    assert len({each.digest for each in sets}) == len(sets)
    assert ContractSet(tuple(contracts[:2])).digest == ContractSet(tuple(reversed(contracts[:2]))).digest


def test_the_digest_of_the_default_is_the_same_in_every_process() -> None:
    """Plans are pinned to digests: this one changes only when what a contract can say changes."""
    assert DEFAULT_CONTRACT.digest == "a24407309a7352494f4d2e727faaf37c"
