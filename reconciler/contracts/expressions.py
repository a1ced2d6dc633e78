"""CEL expressions: compiled once, checked when a contract is loaded, evaluated within bounds.

The engine is common-expression-language, which wraps the Rust implementation. It has no budget of its own, so an expression
has a largest length, and is only evaluated if the bound on its work that `effort` gives is within a limit. cel-expr-python
has a budget, but a fixed one of 10,000 iterations, which a rule over the operations of a large rollback can't keep to.

The engine is imported when an expression is first seen: its package brings a terminal program along, which takes longer to
import than all of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import msgspec

from reconciler.contracts.effort import Sizes, sizes_of, together, work
from reconciler.contracts.tokens import Shape, Token, shape_of, variables
from reconciler.contracts.vocabulary import FUNCTIONS, Vocabulary
from reconciler.values.json_value import Json
from reconciler.values.words import near

if TYPE_CHECKING:
    import cel

MAX_LENGTH: Final = 2_000
"""Characters. The longest rules that people still understand have some hundreds."""
MAX_WORK: Final = 2_000_000
"""In about microseconds: a rule over each of 10,000 operations is well within it, one over each pair of them is not."""
MAX_CONFLICT_WORK: Final = 50_000
"""Likewise, of a rule over one conflict: a plan may have thousands."""

_SYNTAX_FAULT: Final = re.compile(r"ERROR: <input>:([0-9]+):([0-9]+): (.*)")


class ExpressionFault(msgspec.Struct, frozen=True):
    """What is wrong with an expression. ``line`` and ``column`` count from 1 inside the expression."""

    line: int
    column: int
    message: str


class EvaluationError(Exception):
    """A rule that gave no answer. The text says why, without any value of a field, since those may be sensitive."""


class HopelessError(EvaluationError):
    """A rule that gave no answer and won't with other values either: it would take too long, or its result is no truth."""


class Compiled(msgspec.Struct, frozen=True):
    """An expression ready to be evaluated."""

    program: Any  # cel.Program
    shape: Shape
    names: tuple[str, ...]
    """The variables that it needs."""


class Facts:
    """What rules are asked about. Each variable is converted for the engine once, however many rules ask for it."""

    def __init__(self, values: Mapping[str, Json]) -> None:
        self._values = values
        self._context: cel.Context | None = None
        self._sizes: dict[str, Sizes] = {}

    def context(self, names: Iterable[str]) -> cel.Context:
        """The engine's context with these variables. Raises EvaluationError where one is missing or can't be converted."""
        context = self._converted()
        for name in names:
            self._add(name)
        return context

    def sizes(self, names: Iterable[str]) -> Sizes:
        """How large these variables are. Raises EvaluationError likewise."""
        for name in names:
            self._add(name)
        return together(self._sizes[name] for name in names)

    def _converted(self) -> cel.Context:
        if self._context is None:
            self._context = _engine().Context()
        return self._context

    def _add(self, name: str) -> None:
        if name in self._sizes:
            return
        if name not in self._values:
            raise EvaluationError(f"it asks about {name}, which is not known here")
        try:
            self._converted().add_variable(name, self._values[name])
        except (ValueError, OverflowError, TypeError):
            raise EvaluationError(f"{name} holds a value that rules can't read") from None
        self._sizes[name] = sizes_of(name, self._values[name])


def evaluate(expression: str, facts: Facts, most: int = MAX_WORK) -> bool:
    """Whether an expression that has no faults is true, if finding out takes no more work than ``most``.

    Raises EvaluationError where it has no answer, never anything else.
    """
    compiled = compile_expression(expression)
    if isinstance(compiled, ExpressionFault):
        raise EvaluationError(compiled.message)
    if work(compiled.shape, facts.sizes(compiled.names)) > most:
        raise HopelessError("it would take too long over so many values; use `exists` and `all` without nesting them")
    return _execute(compiled.program, facts.context(compiled.names))


def _execute(program: cel.Program, context: cel.Context) -> bool:
    try:
        result = program.execute(context)
    except KeyError:
        raise EvaluationError("it asks for a member that is not there; test for it with has()") from None
    except IndexError:
        raise EvaluationError("it asks for a list member that is not there") from None
    except ArithmeticError:
        raise EvaluationError("its arithmetic has no result") from None
    except TypeError:
        raise EvaluationError("it combines values of types that don't go together") from None
    except (ValueError, RuntimeError):
        raise EvaluationError("it calls a function with what that can't take") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of the engine's runtime: no Exception, and it can't be imported
            raise
        raise EvaluationError("the engine failed on it") from None
    if not isinstance(result, bool):
        raise HopelessError("its result is neither true nor false")
    return result


@lru_cache(maxsize=4_096)
def compile_expression(expression: str) -> Compiled | ExpressionFault:
    """The expression compiled, or why it can't be."""
    if len(expression) > MAX_LENGTH:
        return ExpressionFault(1, 1, f"the expression is longer than {MAX_LENGTH} characters")
    try:
        program = _engine().compile(expression)
        shape = shape_of(expression)
        if shape.is_rewritten:
            program = _engine().compile(" ".join(token.text for token in shape.tokens))
    except ValueError as error:
        return _syntax_fault(str(error))
    if shape.fault is not None:
        position, message = shape.fault
        return _at(expression, position, f"the expression {message}")
    names = tuple(sorted({token.text for token in variables(shape)}))
    if not set(names) <= set(program.variables()):
        return ExpressionFault(1, 1, "the expression is written in a way that can't be checked; write it more simply")
    return Compiled(program, shape, names)


def faults_of(expression: str, vocabulary: Vocabulary) -> Iterator[ExpressionFault]:
    """All that is wrong with an expression that is to speak about what the vocabulary has."""
    compiled = compile_expression(expression)
    if isinstance(compiled, ExpressionFault):
        yield compiled
        return
    found = [_at(expression, token.position, message) for token, message in _misnomers(compiled.shape, vocabulary)]
    yield from found
    if not found:
        yield from _failures(expression, compiled.shape, vocabulary)


def _misnomers(shape: Shape, vocabulary: Vocabulary) -> Iterator[tuple[Token, str]]:
    for token in variables(shape):
        if token.text not in vocabulary.members:
            yield token, f"rules over {vocabulary.name} know no {token.text}{_instead(token.text, vocabulary.members)}"
    for token in shape.called:
        if token.text not in FUNCTIONS:
            yield token, f"rules have no function {token.text}{_instead(token.text, FUNCTIONS)}"
    for variable, name in shape.ranges:
        if name.text in vocabulary.members:
            yield name, f"the name {name.text} already means something here; choose another one"
        members = vocabulary.elements.get(variable.text) if not variable.is_bound else None
        for holder, member in shape.members:
            if holder.is_bound and holder.text == name.text and members is not None and member.text not in members:
                yield member, f"{variable.text} have no {member.text}{_instead(member.text, members)}"
    for holder, member in shape.members:
        known = None if holder.is_bound else vocabulary.members.get(holder.text)
        if known is not None and member.text not in known:
            yield member, f"{holder.text} has no {member.text}{_instead(member.text, known)}"


def _failures(expression: str, shape: Shape, vocabulary: Vocabulary) -> Iterator[ExpressionFault]:
    """Tries the expression: what has one type must not fail, anything else must give an answer to some sample.

    A rule over a value, which can be any JSON, may be right though no sample is such as it asks for: it is refused only if it
    would fail on other values too.
    """
    errors = []
    for sample in vocabulary.samples:
        try:
            evaluate(expression, Facts(sample))
        except EvaluationError as error:
            errors.append(error)
    if vocabulary.is_typed:
        errors = [error for error in errors if type(error.__context__) not in (IndexError, ZeroDivisionError)]
    if not errors or (not vocabulary.is_typed and len(errors) < len(vocabulary.samples)):
        return
    hopeless = [error for error in errors if isinstance(error, HopelessError)]
    if hopeless or not _reads(shape, vocabulary.free):
        yield ExpressionFault(1, 1, f"the expression can't give an answer: {(hopeless or errors)[0]}")


def _reads(shape: Shape, member: str | None) -> bool:
    """Whether an expression asks for this member of something."""
    return member is not None and any(token.text.strip("\"'") == member for token in shape.tokens)


@cache
def _engine() -> Any:
    return import_module("cel")


def _syntax_fault(message: str) -> ExpressionFault:
    found = _SYNTAX_FAULT.search(message)
    if found is None:
        return ExpressionFault(1, 1, "the expression can't be read")
    line, column, problem = found.groups()
    problem = re.sub(r" expecting \{.*", "", problem).replace("'<EOF>'", "the end").strip()
    return ExpressionFault(int(line), int(column), f"the expression can't be read: {problem[:200]}")


def _at(expression: str, position: int, message: str) -> ExpressionFault:
    before = expression[:position]
    return ExpressionFault(before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1, message)


def _instead(word: str, known: Iterable[str]) -> str:
    hint = near(word, sorted(known))
    return f"; {hint}" if hint else f"; there are {', '.join(sorted(known))}" if known else ""
