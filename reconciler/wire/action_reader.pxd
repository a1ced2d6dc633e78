# What Cython makes C of, where the module is compiled: places in the bytes, single bytes, and the numbers that they are
# compared with. Places are checked against the bytes' ends as in Python.
cimport cython

cdef int _NULL, _PRESENT, _LONG_OR_NEGATIVE, _MORE, _PREFIX_BYTES
cdef unsigned long long _FOLLOWED, _EIGHT_BYTES, _ODD_BYTES, _EVEN_BYTES, _ODD_PAIRS, _EVEN_PAIRS, _ODD_FOURS, _EVEN_FOURS
cdef bytes _NO_ANNEX
cdef dict _STAGES, _OPERATIONS

@cython.locals(at=Py_ssize_t, end=Py_ssize_t, byte=int, is_plain=bint)
cdef _read(bytes data)

@cython.locals(byte=int, length=Py_ssize_t, end=Py_ssize_t)
cdef tuple _fields(bytes data, Py_ssize_t at)

@cython.locals(bits="unsigned long long")
cdef tuple _instant(bytes data, Py_ssize_t at)

cdef tuple _text(bytes data, Py_ssize_t at)
cdef tuple _optional_text(bytes data, Py_ssize_t at)
cdef tuple _texts(bytes data, Py_ssize_t at)
