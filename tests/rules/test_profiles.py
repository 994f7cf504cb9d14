"""The CKO_PROFILE objects: each claims that the token meets a profile of OASIS, and is proved by doing what it demands.

The functions and their order are those of the profiles' mandatory test cases (BL-M, EXT-M, AUTH-M, CERT-M).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKP, CKR, CKS, CKU
from tests.client import READ_ONLY, READ_WRITE, RSA_2048, Client, Template, encoded, ffi
from tests.conftest import PIN
from tests.rules.certificates import make_certificate
from tests.rules.kinds import KINDS, start_on

ALWAYS = {CKP.BASELINE_PROVIDER, CKP.EXTENDED_PROVIDER, CKP.AUTHENTICATION_TOKEN, CKP.PUBLIC_CERTIFICATES_TOKEN}


def started(module: Client, home: Path, kind: str) -> int:
    """The slot of a token of this kind; nobody is logged in, and no session is open."""
    slot = start_on(module, home, kind)
    module.ok("C_CloseAllSessions", slot.id)
    return slot.id


@pytest.mark.rule("P7")
@pytest.mark.parametrize("kind", KINDS)
def test_the_profiles_of_each_kind(module: Client, home: Path, kind: str) -> None:
    """Every kind shows before login the profiles that it meets, Public Certificates Token always among them."""
    slot = started(module, home, kind)
    session = module.open(slot, READ_ONLY)
    found = module.find(session, [(CKA.TOKEN, True), (CKA.CLASS, CKO.PROFILE)])
    profiles = [int.from_bytes(module.get(session, one, CKA.PROFILE_ID)[0] or b"", "little") for one in found]
    assert set(profiles) == ALWAYS | ({CKP.HKDF_TLS_TOKEN} if kind == "multipurpose" else set())
    assert len(profiles) == len(set(profiles))
    for one in found:
        attributes = module.get(session, one, CKA.TOKEN, CKA.PRIVATE, CKA.MODIFIABLE, CKA.UNIQUE_ID)
        assert attributes[:3] == [b"\x01", b"\x00", b"\x00"]
        assert module.find(session, [(CKA.UNIQUE_ID, attributes[3] or b"")]) == [one]


@pytest.mark.parametrize("kind", KINDS)
def test_baseline_provider(module: Client, home: Path, kind: str) -> None:
    started(module, home, kind)
    module.ok("C_Finalize", ffi.NULL)
    module.ok("C_Initialize", ffi.NULL)
    functions = ffi.new("CK_FUNCTION_LIST **")
    assert module.library.C_GetFunctionList(functions) == CKR.OK
    count = ffi.new("CK_ULONG *")
    assert module.library.C_GetInterfaceList(ffi.NULL, count) == CKR.OK
    info = ffi.new("CK_INFO *")
    module.ok("C_GetInfo", info)
    assert (info.cryptokiVersion.major, info.cryptokiVersion.minor) == (3, 2)
    module.ok("C_GetSlotList", 1, ffi.NULL, count)
    slots = ffi.new("CK_ULONG[]", count[0])
    module.ok("C_GetSlotList", 1, slots, count)
    slot_info = ffi.new("CK_SLOT_INFO *")
    module.ok("C_GetSlotInfo", slots[0], slot_info)
    assert slot_info.flags & CKF.TOKEN_PRESENT
    module.token_info(slots[0])
    session = module.open(slots[0], READ_ONLY)
    assert module.state(session) == CKS.RO_PUBLIC_SESSION
    (first,) = module.find(session, [(CKA.TOKEN, True)], at_once=10)[:1]
    assert module.get(session, first, CKA.CLASS) == [encoded(CKO.PROFILE)]
    module.ok("C_CloseSession", session)
    module.ok("C_CloseAllSessions", slots[0])


@pytest.mark.parametrize("kind", KINDS)
def test_extended_provider(module: Client, home: Path, kind: str) -> None:
    slot = started(module, home, kind)
    count = ffi.new("CK_ULONG *")
    module.ok("C_GetMechanismList", slot, ffi.NULL, count)
    held = ffi.new("CK_ULONG[]", count[0])
    module.ok("C_GetMechanismList", slot, held, count)
    info = ffi.new("CK_MECHANISM_INFO *")
    for mechanism in held[0 : count[0]]:
        module.ok("C_GetMechanismInfo", slot, mechanism, info)
        assert info.flags
    session = module.open(slot, READ_WRITE)
    module.ok("C_Login", session, CKU.USER, PIN, len(PIN))
    module.ok("C_Logout", session)
    module.ok("C_LoginUser", session, CKU.USER, PIN, len(PIN), ffi.NULL, 0)
    assert module.state(session) == CKS.RW_USER_FUNCTIONS
    assert module.find(session, [(CKA.TOKEN, True)])
    module.ok("C_Logout", session)


@pytest.mark.parametrize("kind", KINDS)
def test_authentication_token(module: Client, home: Path, kind: str) -> None:
    slot = started(module, home, kind)
    session = module.open(slot, READ_WRITE)
    module.login(session, PIN)
    labels: Template = [(CKA.TOKEN, True), (CKA.LABEL, "testrsa")]
    module.generate_pair(session, CKM.RSA_PKCS_KEY_PAIR_GEN, [*RSA_2048, *labels], labels)
    module.ok("C_CloseSession", session)
    session = module.open(slot, READ_WRITE)
    module.login(session, PIN)
    (public,) = module.find(session, [(CKA.TOKEN, True), (CKA.LABEL, "testrsa"), (CKA.CLASS, CKO.PUBLIC_KEY)])
    modulus, exponent = module.get(session, public, CKA.MODULUS, CKA.PUBLIC_EXPONENT)
    assert (len(modulus or b""), exponent) == (256, b"\x01\x00\x01")
    (private,) = module.find(session, [(CKA.TOKEN, True), (CKA.LABEL, "testrsa"), (CKA.CLASS, CKO.PRIVATE_KEY)])
    assert len(module.sign(session, private, module.mechanism(CKM.SHA256_RSA_PKCS), b"request")) == 256
    module.ok("C_Logout", session)


@pytest.mark.rule("P7", "P3")
@pytest.mark.parametrize("kind", KINDS)
def test_public_certificates_token(module: Client, home: Path, kind: str) -> None:
    """Without a login certificates are found and read, and the public key with the same CKA_ID beside each."""
    slot = started(module, home, kind)
    session = module.open(slot, READ_WRITE)
    module.login(session, PIN)
    for _ in range(2):
        public, private = module.generate_pair(
            session, CKM.RSA_PKCS_KEY_PAIR_GEN, [*RSA_2048, (CKA.TOKEN, True)], [(CKA.TOKEN, True)]
        )
        modulus, exponent = module.get(session, public, CKA.MODULUS, CKA.PUBLIC_EXPONENT)
        made = make_certificate(modulus or b"", exponent or b"")
        certificate: Template = [
            (CKA.CLASS, CKO.CERTIFICATE),
            (CKA.CERTIFICATE_TYPE, 0),
            (CKA.TOKEN, True),
            (CKA.VALUE, made),
        ]
        module.create(session, certificate)
    assert module.get(session, private, CKA.ID) == module.get(session, public, CKA.ID)
    module.ok("C_Logout", session)
    found = module.find(session, [(CKA.CLASS, CKO.CERTIFICATE), (CKA.TOKEN, True)])
    assert len(found) == 2
    for one in found:
        value, identity = module.get(session, one, CKA.VALUE, CKA.ID)
        assert value
        assert len(module.find(session, [(CKA.ID, identity or b""), (CKA.CLASS, CKO.PUBLIC_KEY)])) == 1


def test_hkdf_tls_token(module: Client, home: Path) -> None:
    slot = started(module, home, "multipurpose")
    session = module.open(slot, READ_WRITE)
    module.login(session, PIN)
    key = module.create(
        session, [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.HKDF), (CKA.VALUE, bytes(32)), (CKA.DERIVE, True)]
    )
    for label in (b"tls iv\0", b"tls quic iv\0"):
        info = (12).to_bytes(2, "big") + label
        held = ffi.new("unsigned char[]", info)
        parameters = ffi.new("CK_HKDF_PARAMS *")
        parameters.bExpand = 1
        parameters.prfHashMechanism = CKM.SHA256
        parameters.ulSaltType = 1
        parameters.pInfo, parameters.ulInfoLen = held, len(info)
        array, count, _kept = module.template([(CKA.CLASS, CKO.DATA), (CKA.VALUE_LEN, 12)])
        handle = ffi.new("CK_ULONG *")
        module.ok("C_DeriveKey", session, module.mechanism(CKM.HKDF_DATA, parameters), key, array, count, handle)
        value, kind = module.get(session, handle[0], CKA.VALUE, CKA.CLASS)
        assert (len(value or b""), kind) == (12, encoded(CKO.DATA))
