"""What each C_* function means, on Python values; one file per chapter of the standard's section 5.

Handlers take sessions (not handles), bytes, and templates as lists of (CKA_*, bytes); they return Python values or
raise PKCS11Error. Where C has an output buffer the handler gets `room`: its size in bytes, None when the caller
passed NULL to ask for the size. It returns the bytes, or an int: the size that is needed, in which case it did nothing.
"""
