"""A host with mechanism parameters as C programs leave them: what does not count was never set, lengths do not fit.

    unset_fields.py MODULE

Each parameter goes into C_DigestInit, which reads it as every function does and then has no such digest. Prints what
was answered otherwise than it should be; a pointer that is followed although it does not count ends the process.
"""

from __future__ import annotations

import itertools
import mmap
import sys
from typing import Any

from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKR
from keyfob.spec.errors import name_of
from keyfob.spec.parameters import LAYOUTS, PARAMETER_OF, Counts
from tests.client import Client, ffi

PAGE = mmap.mmap(-1, mmap.PAGESIZE, prot=0)  # nobody may read here
NOWHERE = int(ffi.cast("CK_ULONG", ffi.from_buffer(PAGE)))
GARBAGE = 0x5A5A5A5A5A5A5A58
DATA = ffi.new("CK_BYTE[32]")


def it_counts(parameter: Any, when: Counts) -> bool:
    conditions = () if when is None else when[0]
    return conditions is not None and all(
        (getattr(parameter, name) == value) is equal for name, value, equal in conditions
    )


class Host:
    def __init__(self, module: str) -> None:
        self.client = Client(module)
        self.client.initialize()
        self.session = self.client.open(self.client.slots()[0])

    def judge(self, kind: int, parameter: Any, wanted: int, of: str) -> None:
        answer = self.client.call("C_DigestInit", self.session, self.client.mechanism(kind, parameter))
        if answer != wanted:
            print(f"{name_of('CKM', kind)}, {of}: {name_of('CKR', answer)} instead of {name_of('CKR', wanted)}")

    def fields_that_do_not_count(self, kind: int) -> int:
        """Every combination of the fields that others depend on; what then does not count is garbage or nowhere."""
        struct, fields = LAYOUTS[PARAMETER_OF[kind]]
        deciding: dict[str, set[int]] = {}
        for _, _, _, when in fields:
            for name, value, _ in (when[0] if when is not None else None) or ():
                deciding.setdefault(name, set()).update((value, 0 if value else 1, 3))
        seen = 0
        for choice in itertools.product(*deciding.values()):
            parameter = ffi.new(f"{struct} *")
            for name, value in zip(deciding, choice, strict=True):
                setattr(parameter, name, value)
            wanted = CKR.MECHANISM_INVALID
            for field_kind, _, names, when in fields:
                counts = it_counts(parameter, when)
                if field_kind == "bytes" and counts:
                    setattr(parameter, names[0], DATA)
                    setattr(parameter, names[1], len(DATA))
                elif field_kind == "bytes":
                    seen += 1
                    setattr(parameter, names[0], ffi.cast("void *", NOWHERE))
                    setattr(parameter, names[1], 32)
                    if when is not None and when[1]:
                        wanted = CKR.MECHANISM_PARAM_INVALID
                elif not counts and names[0] not in deciding:
                    setattr(parameter, names[0], GARBAGE)
            self.judge(kind, parameter, wanted, f"{deciding} is {choice}")
        return seen

    def lengths_that_do_not_fit(self, kind: int) -> int:
        struct, fields = LAYOUTS[PARAMETER_OF[kind]]
        seen = 0
        for field_kind, _, names, when in fields:
            if field_kind != "bytes" or (when is not None and when[0] is None):
                continue
            for pointer, length in (
                (DATA, 1 << 63),
                (DATA, GARBAGE),
                (DATA, 2**64 - 1),
                (ffi.NULL, 1),
                (DATA, NOWHERE),
            ):
                seen += 1
                parameter = ffi.new(f"{struct} *")
                for name, value, equal in (when[0] if when is not None else None) or ():
                    setattr(parameter, name, value if equal else value + 1)
                setattr(parameter, names[0], pointer)
                setattr(parameter, names[1], length)
                self.judge(kind, parameter, CKR.MECHANISM_PARAM_INVALID, f"{names[1]} of {length}")
        for size in (ffi.sizeof(struct) - 1, ffi.sizeof(struct) + 1, 1 << 62):
            mechanism = self.client.mechanism(kind, bytes(ffi.sizeof(struct) + 1))
            mechanism.ulParameterLen = size
            answer = self.client.call("C_DigestInit", self.session, mechanism)
            if answer != CKR.MECHANISM_PARAM_INVALID:
                print(f"{name_of('CKM', kind)}, {struct} of {size} bytes: {name_of('CKR', answer)}")
        return seen

    def derive_as_nss(self) -> None:
        """TLS 1.3 in NSS: bExpand alone, and the salt's fields are what the stack held."""
        key = self.client.create(
            self.session,
            [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.HKDF), (CKA.VALUE, bytes(32)), (CKA.DERIVE, True)],
        )
        parameter = ffi.new("CK_HKDF_PARAMS *")
        parameter.bExpand, parameter.prfHashMechanism = 1, CKM.SHA256
        parameter.ulSaltType, parameter.hSaltKey, parameter.ulSaltLen = CKF.HKDF_SALT_DATA, GARBAGE, 1 << 40
        parameter.pSalt, parameter.pInfo, parameter.ulInfoLen = ffi.cast("void *", NOWHERE), DATA, len(DATA)
        array, count, _kept = self.client.template([(CKA.CLASS, CKO.SECRET_KEY), (CKA.VALUE_LEN, 32)])
        made = ffi.new("CK_ULONG *")
        mechanism = self.client.mechanism(CKM.HKDF_DERIVE, parameter)
        answer = self.client.call("C_DeriveKey", self.session, mechanism, key, array, count, made)
        if answer != CKR.OK:
            print(f"C_DeriveKey with salt fields that nobody set: {name_of('CKR', answer)}")


def main() -> None:
    host = Host(sys.argv[1])
    fields = sum(host.fields_that_do_not_count(kind) for kind in PARAMETER_OF)
    lengths = sum(host.lengths_that_do_not_fit(kind) for kind in PARAMETER_OF)
    host.derive_as_nss()
    print(f"looked at {fields} fields and {lengths} lengths")


if __name__ == "__main__":
    main()
