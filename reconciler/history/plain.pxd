# Called for nearly each action that is folded.
cimport cython

@cython.locals(
    sequence="long long", resource=str, operation_id=str, action_id=str, run_id=str, step_id=str, workflow_id=str,
    workflow_version=str, before=str, before_canonical=str, set_=str, set_canonical=str, actor_id=str, actor_kind=str,
    said_actor=str, kept_actor=str, kept_facts=str, kept_workflow=str, kept_version=str, kept_sequence=str, content=str,
    instant=str, new_chain=str, entry=str,
)
cpdef tuple kept_plainly(update, long long number, long long link, str chain, str facts)
