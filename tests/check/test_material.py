"""NSS's templates are what was recorded, and the checker's witness knows a key from another."""

from __future__ import annotations

import pytest

from keyfob.nss import material
from keyfob.spec.constants import CKA, CKF

RSA = material.rsa_key()
EC = material.ec_key()


def test_nss_3_87_creates_an_rsa_key_with_19_attributes_and_an_ec_key_with_10() -> None:
    assert [len(material.private_key_template(key)) for key in (RSA, EC)] == [19, 10]


def test_nss_3_116_adds_decapsulate_and_the_place_twice_so_that_the_last_is_the_right_one() -> None:
    template = material.private_key_template_of_3_116(RSA)
    added = [(CKA.DECAPSULATE, False), (CKA.TOKEN, False), (CKA.PRIVATE, False), (CKA.TOKEN, True), (CKA.PRIVATE, True)]
    assert len(template) == 22
    assert list(template[16:]) == [*added, (CKA.SENSITIVE, True)]
    assert dict(template) == dict(material.private_key_template(RSA)) | {CKA.DECAPSULATE: False}


def test_the_key_bag_of_an_ec_key_holds_its_point_without_der() -> None:
    assert dict(material.key_bag_template(EC))[CKA.EC_POINT] == material.point(EC)
    assert CKA.EC_POINT not in dict(material.private_key_template(EC))


def test_every_usage_of_a_generated_pair_is_written_true_or_false() -> None:
    public, private = material.pair_templates([(CKA.MODULUS_BITS, 2048)], CKF.SIGN | CKF.VERIFY)
    assert [name for name, value in public if value is False] == [
        *(CKA.DERIVE, CKA.WRAP, CKA.VERIFY_RECOVER, CKA.ENCRYPT),
    ]
    assert [name for name, value in private if value is False] == [CKA.DERIVE, CKA.UNWRAP, CKA.DECRYPT]
    assert dict(private)[CKA.SIGN] is True


def test_only_a_public_key_on_the_token_gets_an_id() -> None:
    assert dict(material.public_key_template(RSA))[CKA.ID] == material.identifier(RSA)
    assert CKA.ID not in dict(material.public_key_template(RSA, token=False))


@pytest.mark.parametrize("wrapping", [material.AES, material.DES3])
@pytest.mark.parametrize("key", [RSA, EC])
def test_what_was_wrapped_is_known_again_and_under_another_key_is_not(
    wrapping: material.Wrapping, key: material.PrivateKey
) -> None:
    secret, iv = wrapping.new_key(), bytes(wrapping.iv_length)
    wrapped = wrapping.encrypted(secret, iv, material.pkcs8(key))
    plain = wrapping.decrypted(secret, iv, wrapped)
    assert plain is not None
    assert material.is_pkcs8_of(key, plain)
    assert not material.is_pkcs8_of(material.ec_key(), plain)
    garbled = wrapping.decrypted(wrapping.new_key(), iv, wrapped)
    assert garbled is None or not material.is_pkcs8_of(key, garbled)


def test_des3_keys_have_odd_parity() -> None:
    assert all(byte.bit_count() % 2 for byte in material.DES3.new_key())
