# What Cython makes C of, where the module is compiled: places in the bytes and single bytes. Places are checked against the
# bytes' ends as in Python.
cimport cython

cdef int _NULL, _PRESENT, _LONG_OR_NEGATIVE, _MORE
cdef Py_ssize_t _PREFIX_BYTES, _MOST_BYTES
cdef bytes _UPDATE_SUCCEEDED, _NO_ANNEX

@cython.locals(
    at=Py_ssize_t, end=Py_ssize_t, occurred_at="long long", sequence="long long", operation_id=str, action_id=str, resource=str,
    run_id=str, step_id=str, actor_id=str, actor_kind=str, workflow_id=str, workflow_version=str, before=dict, before_text=str,
    set_=dict, set_text=str,
)
cdef _read(bytes data)

@cython.locals(length=int, end=Py_ssize_t, place=Py_ssize_t, byte=int)
cdef str _text(bytes data, Py_ssize_t at)

@cython.locals(end=Py_ssize_t)
cdef Py_ssize_t _after(bytes data, Py_ssize_t at) except -1

@cython.locals(number="unsigned long long")
cdef long long _natural(bytes data, Py_ssize_t at, Py_ssize_t end) except -1

@cython.locals(length=Py_ssize_t, path=str)
cdef dict _flat_fields(str text)

@cython.locals(path=str, above=str)
cdef bint _ascends(dict fields)
