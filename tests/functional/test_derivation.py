"""C_DeriveKey through the C ABI: what a derived key inherits, and derivation from two keys (section 6.43)."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from keyfob.spec.constants import CKA, CKD, CKF, CKK, CKM, CKO, CKR
from tests.client import P256, Template, ffi
from tests.conftest import Fob

SECRET, OTHER = bytes(range(16)), bytes(range(16, 32))
GENERIC: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.GENERIC_SECRET)]
READABLE: Template = [(CKA.SENSITIVE, False), (CKA.EXTRACTABLE, True)]


def secret(fob: Fob, value: bytes = SECRET, *extra: tuple[int, Any]) -> int:
    asked = dict([*GENERIC, *READABLE, (CKA.VALUE, value), (CKA.DERIVE, True), *extra])
    return fob.client.create(fob.session, list(asked.items()))


def derive(fob: Fob, base: int, mechanism: Any, *asked: tuple[int, Any]) -> tuple[int, int]:
    """The answer and the derived key."""
    array, count, keep = fob.client.template(list(dict([*GENERIC, *asked]).items()))
    handle = ffi.new("CK_ULONG *")
    rv = fob.client.call("C_DeriveKey", fob.session, mechanism, base, array, count, handle)
    del keep
    return rv, handle[0]


def with_data(fob: Fob, kind: int, data: bytes) -> Any:
    parameter = ffi.new("CK_KEY_DERIVATION_STRING_DATA *")
    held = ffi.from_buffer("CK_BYTE[]", data)
    parameter.pData, parameter.ulLen = held, len(data)
    return fob.client.mechanism(kind, parameter), parameter, held


def with_key(fob: Fob, handle: int) -> Any:
    return fob.client.mechanism(CKM.CONCATENATE_BASE_AND_KEY, handle.to_bytes(8, "little"))


@pytest.mark.parametrize("kind", [CKM.XOR_BASE_AND_DATA, CKM.CONCATENATE_BASE_AND_DATA, CKM.CONCATENATE_DATA_AND_BASE])
@pytest.mark.parametrize(("attribute", "strict"), [(CKA.SENSITIVE, True), (CKA.EXTRACTABLE, False)])
def test_a_derived_key_is_no_freer_than_its_base(fob: Fob, kind: int, attribute: int, *, strict: bool) -> None:
    """Else XOR with zeros would show a key that is never to be shown."""
    base = secret(fob, SECRET, (attribute, strict))
    mechanism, *held = with_data(fob, kind, bytes(16))
    assert derive(fob, base, mechanism, *READABLE)[0] == CKR.TEMPLATE_INCONSISTENT
    rv, made = derive(fob, base, mechanism)
    assert rv == CKR.OK
    assert fob.client.get(fob.session, made, attribute, CKA.VALUE) == [bytes([strict]), None]
    rv, made = derive(fob, secret(fob), mechanism, *READABLE)
    assert rv == CKR.OK
    assert fob.client.get(fob.session, made, CKA.VALUE) != [None]
    del held


def test_an_extracted_key_is_no_freer_than_its_base(fob: Fob) -> None:
    base = secret(fob, SECRET, (CKA.SENSITIVE, True))
    mechanism = fob.client.mechanism(CKM.EXTRACT_KEY_FROM_KEY, (0).to_bytes(8, "little"))
    assert derive(fob, base, mechanism, (CKA.VALUE_LEN, 16), *READABLE)[0] == CKR.TEMPLATE_INCONSISTENT
    assert derive(fob, base, mechanism, (CKA.VALUE_LEN, 16))[0] == CKR.OK


def test_two_keys_make_one(fob: Fob) -> None:
    base, other = secret(fob), secret(fob, OTHER)
    for asked, wanted in (((), SECRET + OTHER), (((CKA.VALUE_LEN, 20),), (SECRET + OTHER)[:20])):
        rv, made = derive(fob, base, with_key(fob, other), *READABLE, *asked)
        assert rv == CKR.OK
        assert fob.client.get(fob.session, made, CKA.VALUE) == [wanted]
    assert derive(fob, base, with_key(fob, other), (CKA.VALUE_LEN, 33))[0] == CKR.KEY_SIZE_RANGE


@pytest.mark.parametrize(("attribute", "strict"), [(CKA.SENSITIVE, True), (CKA.EXTRACTABLE, False)])
@pytest.mark.parametrize("first", [True, False])
def test_the_stricter_of_two_keys_decides(fob: Fob, attribute: int, *, strict: bool, first: bool) -> None:
    keys = [secret(fob, SECRET, (attribute, strict)), secret(fob, OTHER)]
    base, other = keys if first else reversed(keys)
    assert derive(fob, base, with_key(fob, other), *READABLE)[0] == CKR.TEMPLATE_INCONSISTENT
    rv, made = derive(fob, base, with_key(fob, other))
    assert rv == CKR.OK
    assert fob.client.get(fob.session, made, attribute, CKA.VALUE) == [bytes([strict]), None]


@pytest.mark.parametrize("of_two", [True, False])
def test_no_key_is_made_of_the_bytes_of_one_that_leaves_under_trusted_keys_only(fob: Fob, *, of_two: bool) -> None:
    """Wrapped, keys that differ in what the caller chose would be compared with it."""
    strict = (CKA.WRAP_WITH_TRUSTED, True)
    if of_two:
        base, mechanism, held = secret(fob), with_key(fob, secret(fob, OTHER, strict)), None
    else:
        base, (mechanism, *held) = secret(fob, SECRET, strict), with_data(fob, CKM.XOR_BASE_AND_DATA, bytes(16))
    assert derive(fob, base, mechanism)[0] == CKR.KEY_FUNCTION_NOT_PERMITTED
    assert derive(fob, base, mechanism, strict)[0] == CKR.KEY_FUNCTION_NOT_PERMITTED
    del held


@pytest.mark.parametrize("first", [True, False])
def test_a_key_of_two_was_always_sensitive_when_both_were(fob: Fob, *, first: bool) -> None:
    past = (CKA.ALWAYS_SENSITIVE, CKA.NEVER_EXTRACTABLE)
    asked: Template = [(CKA.VALUE_LEN, 16), (CKA.SENSITIVE, True), (CKA.EXTRACTABLE, False)]
    mechanism = fob.client.mechanism(CKM.GENERIC_SECRET_KEY_GEN)
    born = [fob.client.generate(fob.session, mechanism, [*asked, (CKA.DERIVE, True)]) for _ in range(2)]
    rv, made = derive(fob, born[0], with_key(fob, born[1]))
    assert rv == CKR.OK
    assert fob.client.get(fob.session, made, *past) == [b"\x01", b"\x01"]
    came = secret(fob, OTHER, (CKA.SENSITIVE, True), (CKA.EXTRACTABLE, False))
    base, other = (born[0], came) if first else (came, born[0])
    rv, made = derive(fob, base, with_key(fob, other))
    assert rv == CKR.OK
    assert fob.client.get(fob.session, made, *past) == [b"\x00", b"\x00"]


def test_the_second_key_must_be_one_that_derives(fob: Fob) -> None:
    base = secret(fob)
    for mechanism, code in (
        (with_key(fob, 12345), CKR.KEY_HANDLE_INVALID),
        (with_key(fob, secret(fob, OTHER, (CKA.DERIVE, False))), CKR.KEY_FUNCTION_NOT_PERMITTED),
        (fob.client.mechanism(CKM.CONCATENATE_BASE_AND_KEY), CKR.MECHANISM_PARAM_INVALID),
        (fob.client.mechanism(CKM.CONCATENATE_BASE_AND_KEY, b"1234"), CKR.MECHANISM_PARAM_INVALID),
    ):
        assert derive(fob, base, mechanism)[0] == code


# HKDF with the salt as a key, and data in a key's place: every secret of NSS's TLS 1.3


def hkdf(fob: Fob, salt: int = 0, *, data: bytes | None = None, kind: int = CKM.HKDF_DERIVE) -> Any:
    """Extract and expand to `info`."""
    parameter = ffi.new("CK_HKDF_PARAMS *")
    held = (ffi.from_buffer("CK_BYTE[]", b"info"), ffi.from_buffer("CK_BYTE[]", data or b"-"))
    parameter.bExtract = parameter.bExpand = 1
    parameter.prfHashMechanism = CKM.SHA256
    parameter.ulSaltType = CKF.HKDF_SALT_KEY if data is None else CKF.HKDF_SALT_DATA
    parameter.hSaltKey = salt
    parameter.pSalt, parameter.ulSaltLen = held[1], len(held[1])
    parameter.pInfo, parameter.ulInfoLen = held[0], 4
    return fob.client.mechanism(kind, parameter), parameter, held


def expected(secret_: bytes, salt: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, b"info").derive(secret_)


LENGTH = (CKA.VALUE_LEN, 32)
ZEROS = bytes(32)


def data(fob: Fob, value: bytes = ZEROS) -> int:
    """As PK11_ImportDataKey makes it."""
    return fob.client.create(fob.session, [(CKA.CLASS, CKO.DATA), (CKA.VALUE, value)])


@pytest.mark.rule("N4")
@pytest.mark.parametrize("base_is_data", [False, True])
@pytest.mark.parametrize("salt_is_data", [False, True])
def test_hkdf_takes_its_salt_as_a_key_and_data_for_a_key(fob: Fob, *, base_is_data: bool, salt_is_data: bool) -> None:
    """CKF_HKDF_SALT_KEY; a data object may stand for a key (section 6.62.3): what NSS gives where TLS has no secret."""
    base, secret_ = (data(fob), ZEROS) if base_is_data else (secret(fob), SECRET)
    salt, salt_value = (data(fob, OTHER), OTHER) if salt_is_data else (secret(fob, OTHER), OTHER)
    mechanism, *held = hkdf(fob, salt)
    rv, made = derive(fob, base, mechanism, *READABLE, LENGTH)
    assert rv == CKR.OK
    assert fob.client.get(fob.session, made, CKA.VALUE) == [expected(secret_, salt_value)]
    del held


def test_a_key_that_does_not_derive_is_no_salt(fob: Fob) -> None:
    base = secret(fob)
    pair = fob.client.generate_pair(fob.session, CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256)], [(CKA.DERIVE, True)])
    certain_mechanisms = (CKA.ALLOWED_MECHANISMS, CKM.SHA256_HMAC.to_bytes(8, "little"))
    for salt, code in (
        (0, CKR.KEY_HANDLE_INVALID),
        (12345, CKR.KEY_HANDLE_INVALID),
        (secret(fob, OTHER, (CKA.DERIVE, False)), CKR.KEY_FUNCTION_NOT_PERMITTED),
        (secret(fob, OTHER, (CKA.KEY_TYPE, CKK.AES)), CKR.KEY_TYPE_INCONSISTENT),
        (secret(fob, OTHER, certain_mechanisms), CKR.MECHANISM_INVALID),
        (pair[1], CKR.KEY_TYPE_INCONSISTENT),
    ):
        mechanism, *held = hkdf(fob, salt)
        assert derive(fob, base, mechanism, LENGTH)[0] == code
        del held


def test_data_that_only_a_login_shows_is_no_salt_before_it(fob: Fob) -> None:
    """And it is data of this token: a handle alone opens nothing."""
    private = fob.client.create(fob.session, [(CKA.CLASS, CKO.DATA), (CKA.VALUE, OTHER), (CKA.PRIVATE, True), TOKEN])
    fob.client.ok("C_Logout", fob.session)
    mechanism, *held = hkdf(fob, private)
    assert derive(fob, secret(fob), mechanism, LENGTH)[0] == CKR.KEY_HANDLE_INVALID
    del held


TOKEN = (CKA.TOKEN, True)


@pytest.mark.parametrize("which", ["base", "salt"])
def test_a_secret_of_known_data_was_not_always_sensitive(fob: Fob, which: str) -> None:
    born = fob.client.generate(
        fob.session,
        fob.client.mechanism(CKM.GENERIC_SECRET_KEY_GEN),
        [(CKA.VALUE_LEN, 32), (CKA.SENSITIVE, True), (CKA.EXTRACTABLE, False), (CKA.DERIVE, True)],
    )
    past = (CKA.ALWAYS_SENSITIVE, CKA.NEVER_EXTRACTABLE)
    strict = ((CKA.SENSITIVE, True), (CKA.EXTRACTABLE, False))
    for known, wanted in ((born, [b"\x01", b"\x01"]), (data(fob), [b"\x00", b"\x00"])):
        base, salt = (known, born) if which == "base" else (born, known)
        mechanism, *held = hkdf(fob, salt)
        rv, made = derive(fob, base, mechanism, LENGTH, *strict)
        assert rv == CKR.OK
        assert fob.client.get(fob.session, made, *past) == wanted
        del held


@pytest.mark.rule("N4")
def test_hkdf_data_takes_nss_template_of_a_key(fob: Fob) -> None:
    """One function of NSS makes the templates of all derivations, and says CKO_SECRET_KEY where data comes out."""
    as_nss = [(CKA.SIGN, True), (CKA.VERIFY, True), (CKA.DERIVE, True), LENGTH, (CKA.KEY_TYPE, CKK.HKDF)]
    mechanism, *held = hkdf(fob, secret(fob, OTHER), kind=CKM.HKDF_DATA)
    rv, made = derive(fob, secret(fob), mechanism, *as_nss)
    assert rv == CKR.OK
    wanted = [CKO.DATA.to_bytes(8, "little"), expected(SECRET, OTHER), None]
    assert fob.client.get(fob.session, made, CKA.CLASS, CKA.VALUE, CKA.KEY_TYPE) == wanted
    sensitive = derive(fob, secret(fob), mechanism, *as_nss, (CKA.SENSITIVE, True))[0]
    assert sensitive == CKR.ATTRIBUTE_TYPE_INVALID  # data cannot be what was asked for
    del held


@pytest.mark.rule("N4")
def test_a_key_share_gives_a_key_for_hkdf(fob: Fob) -> None:
    """And what nobody set in HKDF's parameter, because nothing is extracted, is not looked at."""
    peer = ec.generate_private_key(ec.SECP256R1())
    point = peer.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    uses: Template = [(CKA.PRIVATE, False), (CKA.SENSITIVE, False), (CKA.DERIVE, True)]
    share = fob.client.generate_pair(fob.session, CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256)], uses)
    own = fob.client.get(fob.session, share[0], CKA.EC_POINT)[0]
    assert own is not None
    agreement = ffi.new("CK_ECDH1_DERIVE_PARAMS *")
    held = ffi.from_buffer("CK_BYTE[]", point)
    agreement.kdf, agreement.pPublicData, agreement.ulPublicDataLen = CKD.NULL, held, len(point)
    mechanism = fob.client.mechanism(CKM.ECDH1_DERIVE, agreement)
    rv, agreed = derive(fob, share[1], mechanism, (CKA.KEY_TYPE, CKK.HKDF), (CKA.DERIVE, True), LENGTH)
    assert rv == CKR.OK
    mechanism, parameter, kept = hkdf(fob)
    parameter.bExtract, parameter.pSalt, parameter.ulSaltLen = 0, ffi.cast("void *", 0x5A5A5A5A5A5A5A58), 1 << 40
    rv, made = derive(fob, agreed, mechanism, *READABLE, LENGTH)
    assert rv == CKR.OK
    secret_ = peer.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), own[-65:]))
    wanted = HKDFExpand(hashes.SHA256(), 32, b"info").derive(secret_)
    assert fob.client.get(fob.session, made, CKA.VALUE) == [wanted]
    del kept
