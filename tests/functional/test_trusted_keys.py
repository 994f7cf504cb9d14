"""What leaves under trusted keys and comes back; and keys that are generated from what the caller knows."""

from __future__ import annotations

import pytest

from keyfob import mechanisms
from keyfob.mechanisms.index import INDEX
from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.token import strict
from keyfob.token.object import ulong
from tests.client import RvError, Template
from tests.conftest import Fob
from tests.functional.test_policy import (
    AES,
    GENERIC,
    HIDDEN,
    KEY_WRAP,
    P256,
    VALUE,
    made,
    the_so,
    trusted_key,
    unwrapped,
    wrapped,
)
from tests.functional.ways import from_password

GUARDED: Template = [(CKA.SENSITIVE, True), (CKA.EXTRACTABLE, True), (CKA.WRAP_WITH_TRUSTED, True)]


def test_a_trusted_key_wraps_each_class_by_one_mechanism(fob: Fob) -> None:
    """Two that take each other's blobs (PKCS #7 padding inside key wrap) would tell them byte by byte."""
    client, session = fob.client, fob.session
    wrapping = trusted_key(fob)
    secret = client.create(session, [*AES, *GUARDED, (CKA.VALUE, VALUE)])
    blob = wrapped(fob, client.mechanism(KEY_WRAP), wrapping, secret)
    assert wrapped(fob, client.mechanism(CKM.NSS_AES_KEY_WRAP), wrapping, secret) == blob
    for kind, parameter, code in (
        (CKM.AES_KEY_WRAP_PKCS7, b"", CKR.MECHANISM_INVALID),
        (CKM.AES_KEY_WRAP_PAD, b"", CKR.MECHANISM_INVALID),
        (CKM.NSS_AES_KEY_WRAP_PAD, b"", CKR.MECHANISM_INVALID),
        (CKM.AES_KEY_WRAP_KWP, b"", CKR.MECHANISM_INVALID),
        (KEY_WRAP, b"\xa6" * 8, CKR.MECHANISM_PARAM_INVALID),
    ):
        mechanism = client.mechanism(kind, parameter)
        with pytest.raises(RvError) as refused:
            wrapped(fob, mechanism, wrapping, secret)
        assert refused.value.rv == code
        assert unwrapped(fob, mechanism, wrapping, blob, GENERIC)[0] == code


def test_a_private_key_comes_back_from_a_trusted_key_as_nothing_else(fob: Fob) -> None:
    client, session = fob.client, fob.session
    wrapping, mechanism = trusted_key(fob), client.mechanism(CKM.AES_KEY_WRAP_KWP)
    _, private = client.generate_pair(session, CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256)], GUARDED)
    with pytest.raises(RvError) as refused:
        wrapped(fob, client.mechanism(KEY_WRAP), wrapping, private)
    assert refused.value.rv == CKR.MECHANISM_INVALID
    blob = wrapped(fob, mechanism, wrapping, private)
    assert unwrapped(fob, mechanism, wrapping, blob, GENERIC)[0] == CKR.MECHANISM_INVALID
    assert unwrapped(fob, client.mechanism(KEY_WRAP), wrapping, blob, GENERIC)[0] == CKR.WRAPPED_KEY_INVALID
    rv, back = unwrapped(fob, mechanism, wrapping, blob, [(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.KEY_TYPE, CKK.EC)])
    assert rv == CKR.OK
    assert client.get(session, back, CKA.SENSITIVE, CKA.WRAP_WITH_TRUSTED) == [b"\1", b"\1"]


def test_an_aes_key_comes_back_from_a_trusted_key_as_no_two_des_keys(fob: Fob) -> None:
    """They are found at the price of one."""
    client, mechanism, wrapping = fob.client, fob.client.mechanism(KEY_WRAP), trusted_key(fob)
    blob = wrapped(fob, mechanism, wrapping, client.create(fob.session, [*AES, *GUARDED, (CKA.VALUE, VALUE[:16])]))
    asked: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.DES2)]
    assert unwrapped(fob, mechanism, wrapping, blob, asked)[0] == CKR.MECHANISM_INVALID


def test_a_trusted_secret_key_does_not_leave(fob: Fob) -> None:
    """It would come back without the mark, and decrypt what it has wrapped."""
    client, session, mechanism = fob.client, fob.session, fob.client.mechanism(KEY_WRAP)
    wrapping = trusted_key(fob)
    with the_so(fob):
        asked: Template = [*AES, *GUARDED, (CKA.PRIVATE, False), (CKA.TOKEN, True), (CKA.TRUSTED, True)]
        leaving = client.create(session, [*asked, (CKA.VALUE, VALUE)])
    for other in (wrapping, leaving):
        with pytest.raises(RvError) as refused:
            wrapped(fob, mechanism, other, leaving)
        assert refused.value.rv == CKR.KEY_NOT_WRAPPABLE


def test_only_the_so_gives_a_trusted_secret_key_attributes_of_nss(fob: Fob) -> None:
    """What he has made of it he alone changes, attributes of vendors included."""
    client, session, trusted = fob.client, fob.session, trusted_key(fob)
    theirs: Template = [(CKA.NSS_URL, b"x")]
    assert client.set(session, trusted, theirs) == CKR.ATTRIBUTE_READ_ONLY
    with the_so(fob):
        assert client.set(session, trusted, theirs) == CKR.OK
    key = client.create(session, [*AES, (CKA.VALUE, VALUE)])
    assert client.set(session, key, theirs) == CKR.OK


# Keys from the caller's secrets


def test_a_key_from_a_password_was_not_always_sensitive(fob: Fob) -> None:
    """Whoever knows the password knows it. CKA_LOCAL is as the standard says of C_GenerateKey."""
    rv, key = from_password(fob, HIDDEN)
    assert rv == CKR.OK
    asked = (CKA.LOCAL, CKA.ALWAYS_SENSITIVE, CKA.NEVER_EXTRACTABLE, CKA.SENSITIVE, CKA.EXTRACTABLE)
    assert fob.client.get(fob.session, key, *asked) == [b"\1", b"\0", b"\0", b"\1", b"\0"]
    rv, copy = made(fob, "C_CopyObject", key, template=[])
    assert rv == CKR.OK
    assert fob.client.get(fob.session, copy, *asked) == [b"\1", b"\0", b"\0", b"\1", b"\0"]


def test_what_generates_from_a_parameter_is_known_as_such() -> None:
    """Every mechanism of C_GenerateKey that cannot do without one: what the caller gives, he knows."""

    def answer(kind: int) -> int:
        try:
            mechanisms.lookup(kind).operations[CKF.GENERATE](None, {CKA.VALUE_LEN: ulong(32)})
        except PKCS11Error as problem:
            return problem.rv
        return CKR.OK

    generating = [kind for kind, (_, flags, *_) in INDEX.items() if flags & CKF.GENERATE]
    assert [ulong(kind) for kind in generating if answer(kind) == CKR.MECHANISM_PARAM_INVALID] == list(
        strict.FROM_CALLERS_SECRETS
    )
