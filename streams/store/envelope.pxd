# Called for each head and each entry of the history that is written.
cpdef bytes entry_key(bytes resource, str entry_id)
cdef bytes _key_fields(bytes key)
cdef bytes _natural(long long number)
