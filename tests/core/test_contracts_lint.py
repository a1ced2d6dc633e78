"""What is allowed and looks like a mistake, and what is explained."""

from __future__ import annotations

import pytest

from reconciler.contracts.explain import explain
from reconciler.contracts.lint import lint
from reconciler.contracts.loader import Source, contract_set, parse_contract
from reconciler.contracts.model import FieldRule
from reconciler.values.errors import InputError


def said(*texts: str) -> list[str]:
    return [f"{fault.severity} {fault}" for fault in lint([Source(f"{n}.yaml", text) for n, text in enumerate(texts)])]


def test_a_clean_contract_has_nothing_to_be_said_about() -> None:
    assert (
        said(
            """
        contract: crm/contact
        fields:
          /*: {drift: correct}
          /phone: {drift: correct, conflict: actual_wins, normalise: [trim, digits]}
          /tags: {drift: report, kind: set, conflict: merge, normalise: [casefold, sorted]}
        """
        )
        == []
    )


@pytest.mark.parametrize(
    ("body", "warning"),
    [
        (
            "fields: {/a: {immutable: true, drift: correct}}",
            "2:15: an undo never changes an immutable field, but drift: corr",
        ),
        (
            "fields: {/a: {immutable: true, conflict: expected_wins}}",
            "2:32: an undo that would change an immutable field is",
        ),
        ("fields: {/a: {key: /id}}", "2:15: key is used only by kind: keyed"),
        ("fields: {/a: {sources: [user]}}", "2:15: sources are used only by conflict: source_priority"),
        (
            "fields: {/a: {conflict: source_priority, sources: [u, u]}}",
            "2:42: a source is listed twice; the first place counts",
        ),
        ("fields: {/a: {normalise: [trim, trim]}}", "2:15: a normaliser is listed twice"),
        ("fields: {/a: {normalise: [sorted, casefold]}}", "2:15: sorted should be last"),
        (
            "fields: {/a: {sensitive: true}, /a/b: {}}",
            "2:33: /a says sensitive: true, but a rule takes nothing over from a shorter one: here it is false; say sensitive in",
        ),
        (
            "fields: {/*: {drift: correct}, /a: {conflict: manual}}",
            "2:32: /* says drift: correct, but a rule takes nothing",
        ),
        (
            "fields: {/a: {conflict: actual_wins}, /a/*: {}}",
            "2:39: /a says conflict: actual_wins, but a rule takes nothing",
        ),
        (
            "undo: {create: {by: keep, set: {/a: 1}}}",
            "2:27: set is used only by archive, but creates are undone by keep",
        ),
        ("retry: {first_s: 10, cap_s: 5}", "2:22: cap_s is below first_s, so every wait is cap_s"),
        ("service: {promises: [deduplicates, deduplicates]}", "2:11: a promise is listed twice"),
        ("fields: {/a: {confirm: 1}}", "2:15: confirm is used only by drift: correct and adopt, not by report"),
        ("requesters: {roles: []}", "2:14: without a role in the list everybody may ask"),
        (
            "resolvers: [{when: 'true', take: actual}, {when: 'path == \"/a\"', take: manual}]",
            "2:13: this resolver always decides, so those after it are never asked",
        ),
        (
            "existence: {missing: correct}\nservice: {promises: [deduplicates]}",
            "3:11: drift is corrected, but the service doesn't promise compare_and_set",
        ),
        ("references: {/a: erp/order}", "2:14: there is no contract for erp/order, so the safe default holds for it"),
    ],
)
def test_each_warning_has_its_place(body: str, warning: str) -> None:
    (found,) = said(f"contract: crm/contact\n{body}")
    assert found.startswith(f"warning 0.yaml:{warning}"), found


def test_what_a_rule_says_itself_is_meant() -> None:
    assert (
        said("contract: a/b\nfields: {/*: {drift: correct, sensitive: true}, /a: {drift: report, sensitive: false}}")
        == []
    )


def test_a_circle_of_references_is_told_once() -> None:
    found = said(
        "contract: crm/b\nreferences: {/ref: crm/a}",
        "contract: crm/a\nreferences: {/self: crm/a, /ref: crm/b}",
        "contract: crm/c\nreferences: {/ref: crm/a}",
    )
    assert found == [
        "warning 1.yaml:2:28: crm/a refers to crm/b refers to crm/a: resources that refer to each other in a circle are"
        + " undone in one wave"
    ]


def test_types_that_one_contract_covers_are_no_circle_and_make_one_with_another() -> None:
    assert said("contract: crm/*\nreferences: {/b: crm/b}") == []
    (circle,) = said("contract: crm/*\nreferences: {/b: erp/b}", "contract: erp/b\nreferences: {/a: crm/a}")
    assert "crm/* refers to erp/b refers to crm/*" in circle


def test_a_wildcard_contract_counts_for_a_reference() -> None:
    assert said("contract: crm/b\nreferences: {/ref: crm/a}", "contract: crm/*") == []


def test_errors_come_with_the_warnings() -> None:
    found = said("contract: crm/a\nretry: {first_s: 10, cap_s: 5}", "contract: crm", "contract: [")
    assert [line.split()[0] for line in found] == ["warning", "error", "error"]


CONTRACTS = contract_set(
    [
        Source("a.yaml", "contract: crm/*\nfields: {/*: {drift: correct}}"),
        Source("b.yaml", "contract: '*'"),
        Source(
            "c.yaml",
            "contract: crm/contact\nversion: 4\nresolvers: [{when: 'true', take: manual}]\n"
            "fields: {/*: {}, /tags: {kind: set, conflict: merge, drift: adopt}, /a/*: {}}",
        ),
    ]
)


def test_explain_says_which_contract_holds_and_what_it_beats() -> None:
    explanation = explain(CONTRACTS, "crm/contact/42")
    assert (explanation.contract, explanation.version, explanation.passed_over) == ("crm/contact", 4, ("crm/*", "*"))
    assert explanation.why == "crm/contact is the most specific contract; it takes nothing over from crm/* or *."
    assert explanation.digest == CONTRACTS.for_resource("crm/contact/42").digest
    assert [field.path for field in explanation.fields] == ["/…", "/tags", "/a/…"]
    assert explain(CONTRACTS, "crm/account/1").contract == "crm/*"
    assert explain(CONTRACTS, "erp/order/1").why == "* is the only contract for this resource type."


def test_explain_says_which_rule_holds_and_why() -> None:
    tags, inside, other, deep, whole = explain(
        CONTRACTS, "crm/contact/42", ["/tags", "/tags/0", "/fax", "/a/b", ""]
    ).fields
    assert (tags.place, tags.passed_over, tags.resolvers) == ("/tags", ("/*",), 1)
    assert tags.why == "The rule is for this very field; it is longer than /*."
    assert inside.why == "/tags covers all that is inside it, though only /tags itself is a set; it is longer than /*."
    assert inside.rule == FieldRule(drift="adopt")
    assert other.why == "/* covers all below the resource."
    assert deep.why == "/a/* covers all below /a; it is longer than /*."
    assert (whole.place, whole.why) == (None, "No rule covers it, so the default holds.")


def test_explain_without_a_contract_tells_of_the_default() -> None:
    explanation = explain(contract_set([]), "crm/contact/42", ["/a"])
    assert explanation.why.startswith("No contract is for this resource type, so the safe default holds")
    assert explanation.contract == "default"


def test_explain_refuses_what_is_no_resource_or_path() -> None:
    with pytest.raises(InputError, match="must be system/type/id"):
        explain(CONTRACTS, "crm/contact")
    with pytest.raises(InputError, match="must be empty or begin with '/'"):
        explain(CONTRACTS, "crm/contact/42", ["phone"])


def test_explain_and_the_rule_itself_agree() -> None:
    contract = parse_contract(
        "contract: a/b\nfields: {/a: {drift: correct}, /a/*: {drift: adopt}, '': {drift: ignore}}"
    )
    for path in ("", "/a", "/a/b", "/c"):
        place, rule = contract.rule_and_place(path)
        assert rule == contract.rule(path)
        assert place == next(contract.covering(path))
