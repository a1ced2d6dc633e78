# Called for each action that is folded.
cimport cython

cdef Py_ssize_t _LAST_BIT

@cython.locals(place=Py_ssize_t)
cpdef add_id(bytearray ids, str entry_id)

@cython.locals(place=Py_ssize_t)
cpdef bint may_have(bytearray ids, str entry_id) except -1
