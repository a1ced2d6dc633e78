"""Waves: the order in which a plan's commands may go, dependents first.

Vertices are whatever a command acts on. An edge says that the first must be settled before the second begins. Waves are
the layers of the graph in which each cycle has been made one vertex (Tarjan 1972).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

Edges = Mapping[str, AbstractSet[str]]
"""From a vertex to those that must wait for it."""


def layers(vertices: Iterable[str], edges: Edges) -> tuple[list[list[str]], list[list[str]]]:
    """The waves, each sorted by name, and the cycles among the vertices that had to be put into one wave each."""
    vertices = sorted(vertices)
    components = _components(vertices, edges)
    component_of = {vertex: index for index, component in enumerate(components) for vertex in component}
    depth = [0] * len(components)
    # Tarjan finds a component after all that wait for it: from the last to the first is the order of time.
    for index in range(len(components) - 1, -1, -1):
        for vertex in components[index]:
            for later in edges.get(vertex, ()):
                if later in component_of and component_of[later] != index:
                    depth[component_of[later]] = max(depth[component_of[later]], depth[index] + 1)
    waves: list[list[str]] = [[] for _ in range(max(depth, default=-1) + 1)]
    for index, component in enumerate(components):
        waves[depth[index]].extend(component)
    return [sorted(wave) for wave in waves], [sorted(component) for component in components if len(component) > 1]


def reachable(vertices: Iterable[str], edges: Edges) -> set[str]:
    """The vertices, and all that must wait for one of them, however far behind."""
    found = set(vertices)
    work = list(found)
    while work:
        new = edges.get(work.pop(), frozenset()) - found
        found |= new
        work += new
    return found


def _components(vertices: list[str], edges: Edges) -> list[list[str]]:
    """The strongly connected components, without recursion: a chain of a hundred thousand dependencies is a chain."""
    known = set(vertices)
    found: dict[str, int] = {}
    lowest: dict[str, int] = {}
    on_stack: set[str] = set()
    stack: list[str] = []
    components: list[list[str]] = []
    for start in vertices:
        if start in found:
            continue
        work = [(start, iter(sorted(edges.get(start, ()))))]
        found[start] = lowest[start] = len(found)
        stack.append(start)
        on_stack.add(start)
        while work:
            vertex, following = work[-1]
            for other in following:
                if other not in known:
                    continue
                if other not in found:
                    found[other] = lowest[other] = len(found)
                    stack.append(other)
                    on_stack.add(other)
                    work.append((other, iter(sorted(edges.get(other, ())))))
                    break
                if other in on_stack:
                    lowest[vertex] = min(lowest[vertex], found[other])
            else:
                work.pop()
                if work:
                    lowest[work[-1][0]] = min(lowest[work[-1][0]], lowest[vertex])
                if lowest[vertex] == found[vertex]:
                    component = []
                    while True:
                        other = stack.pop()
                        on_stack.discard(other)
                        component.append(other)
                        if other == vertex:
                            break
                    components.append(component)
    return components
