"""The link and the entry of a plain update, joined of its texts: byte for byte those that its `Action` would have.

The `.pxd` beside this says what C types its variables have where it is compiled (deploy/hatch_build.py).
"""

from __future__ import annotations

import hashlib

from reconciler.history.chain import DIGITS
from reconciler.records import PlainUpdate


def kept_plainly(update: PlainUpdate, number: int, link: int, chain: str, facts: str) -> tuple[str, bytes]:
    """The link of an update after another one (`reconciler.history.chain.linked`), and its entry in the history, as
    `reconciler.history.entry.Entry` has it in JSON: without what is as usual. `facts` is the JSON text of what `before` taught us,
    empty where it taught nothing."""
    (
        resource,
        occurred_at,
        operation_id,
        action_id,
        run_id,
        step_id,
        sequence,
        workflow_id,
        workflow_version,
        actor,
        _,
        before,
        before_canonical,
        _,
        set_,
        set_canonical,
    ) = update[:]  # a tuple and no more than that is unpacked at once
    instant = str(occurred_at)
    said_actor, kept_actor = "null", ""
    if actor is not None:
        actor_id, actor_kind = actor
        said_actor = f'["{actor_id}","{actor_kind}"]'
        kept_actor = f',"actor":{{"id":"{actor_id}","kind":"{actor_kind}"}}'
    content = (
        f'{chain}["succeeded","{run_id}","{step_id}",{instant},"{resource}","update","{operation_id}","{action_id}",'
        f'{before_canonical},{set_canonical},[],"{workflow_id}","{workflow_version}",{sequence},{said_actor},'
        '"",[],null,null,null,null]'
    )
    new_chain = hashlib.sha256(content.encode()).hexdigest()[:DIGITS]
    kept_facts = f'"facts":{facts},' if facts else ""
    kept_workflow = f',"workflow_id":"{workflow_id}"' if workflow_id else ""
    kept_version = f',"workflow_version":"{workflow_version}"' if workflow_version else ""
    kept_sequence = f',"sequence":{sequence}' if sequence else ""
    entry = (
        f'{{"number":{number},"action":{{"stage":"succeeded","run_id":"{run_id}","step_id":"{step_id}",'
        f'"occurred_at":{instant},"resource":"{resource}","operation":"update","operation_id":"{operation_id}",'
        f'"action_id":"{action_id}","before":{before},"set":{set_}{kept_workflow}{kept_version}{kept_sequence}{kept_actor}}},'
        f'{kept_facts}"link":{link},"chain":"{new_chain}"}}'
    )
    return new_chain, entry.encode()
