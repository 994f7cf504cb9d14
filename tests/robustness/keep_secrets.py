"""A host whose every secret is planted: `keep_secrets MODULE`.

The secrets come as JSON on stdin (name -> hex, see SECRETS in test_secrets.py). It makes many calls, right ones and
wrong ones, and prints nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from keyfob.abi import entries, filling
from keyfob.functions import encryption, keys, objects, signing, slots
from keyfob.spec.constants import CKA, CKD, CKK, CKM, CKO, CKP, CKR, CKU
from keyfob.token.token import Token
from tests.client import P256, RSA_2048, Client, RvError, Template, ffi


class Host:
    def __init__(self, module: str, secrets: dict[str, bytes]) -> None:
        self.client = Client(module)
        self.secrets = secrets
        self.client.initialize()
        self.slot = self.client.slots()[0]
        self.session = 0

    def __getitem__(self, name: str) -> bytes:
        return self.secrets[name]

    def fails(self, name: str, *arguments: Any) -> None:
        assert self.client.call(name, *arguments) != CKR.OK, name

    def refused(self, template: Template) -> None:
        """An object that cannot be made."""
        array, count, _kept = self.client.template(template)
        self.fails("C_CreateObject", self.session, array, count, ffi.new("CK_ULONG *"))


def pins(host: Host) -> None:
    client, so, user, new = host.client, host["so_pin"], host["pin"], host["new_pin"]
    host.fails("C_InitToken", host.slot, b"x", 1, b"label".ljust(32))
    host.fails("C_InitToken", host.slot, so, len(so), b"no: label".ljust(32))
    client.ok("C_InitToken", host.slot, so, len(so), b"secrets".ljust(32))
    wrong = host["wrong_pin"]
    host.fails("C_InitToken", host.slot, wrong, len(wrong), b"label".ljust(32))
    session = host.session = client.open(host.slot)
    host.fails("C_Login", session, CKU.SO, wrong, len(wrong))
    host.fails("C_Login", session, 77, so, len(so))
    host.fails("C_Login", 4711, CKU.SO, so, len(so))
    client.login(session, so, CKU.SO)
    host.fails("C_Login", session, CKU.SO, so, len(so))
    host.fails("C_InitPIN", session, host["long_pin"], len(host["long_pin"]))
    client.ok("C_InitPIN", session, user, len(user))
    client.ok("C_Logout", session)
    host.fails("C_InitPIN", session, user, len(user))
    for tried in (wrong, so, host["long_pin"]):
        host.fails("C_Login", session, CKU.USER, tried, len(tried))
    host.fails("C_LoginUser", session, CKU.USER, user, len(user), wrong, len(wrong))
    host.fails("C_SetPIN", session, wrong, len(wrong), new, len(new))
    host.fails("C_SetPIN", session, user, len(user), b"x", 1)
    client.ok("C_SetPIN", session, user, len(user), new, len(new))
    host.fails("C_Login", session, CKU.USER, user, len(user))
    client.login(session, new)
    host.fails("C_SetPIN", session, wrong, len(wrong), user, len(user))
    client.ok("C_SetPIN", session, new, len(new), user, len(user))
    host.fails("C_Login", session, CKU.CONTEXT_SPECIFIC, user, len(user))


def made_objects(host: Host) -> dict[str, int]:
    client, session = host.client, host.session
    stored: Template = [(CKA.TOKEN, True), (CKA.PRIVATE, True)]
    aes: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), *stored]
    rsa: Template = [
        (CKA.CLASS, CKO.PRIVATE_KEY),
        (CKA.KEY_TYPE, CKK.RSA),
        (CKA.PUBLIC_EXPONENT, b"\x01\x00\x01"),
        *((getattr(CKA, name), host[f"rsa_{name}"]) for name in RSA),
        *stored,
    ]
    ec: Template = [(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.KEY_TYPE, CKK.EC), (CKA.EC_PARAMS, P256), *stored]
    generic: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.GENERIC_SECRET), *stored]
    handles = {
        "aes": client.create(session, [*aes, (CKA.VALUE, host["aes"]), (CKA.EXTRACTABLE, True)]),
        "rsa": client.create(session, rsa),
        "ec": client.create(session, [*ec, (CKA.VALUE, host["ec"]), (CKA.DERIVE, True)]),
        "generic": client.create(session, [*generic, (CKA.VALUE, host["generic"]), (CKA.DERIVE, True)]),
        "data": client.create(
            session,
            [(CKA.CLASS, CKO.DATA), (CKA.LABEL, host["label"]), (CKA.VALUE, host["data"]), *stored],
        ),
    }
    host.refused([*aes, (CKA.VALUE, host["aes"] + b"x")])
    host.refused([*aes, (CKA.VALUE, host["aes"]), (CKA.VALUE, host["generic"])])
    host.refused([*aes, (CKA.VALUE, host["aes"]), (CKA.MODULUS, host["rsa_PRIVATE_EXPONENT"])])
    host.refused([*aes, (CKA.VALUE, host["aes"]), (CKA.TOKEN, host["generic"])])
    host.refused([*ec, (CKA.VALUE, b"\x01" * 40 + host["ec"])])
    host.refused([*ec[:2], (CKA.EC_PARAMS, host["ec"]), (CKA.VALUE, host["ec"])])
    host.refused([*rsa[:-3], (CKA.PRIME_1, host["rsa_PRIME_2"] + b"x"), *stored])
    host.refused([(CKA.CLASS, host["label"]), (CKA.VALUE, host["data"])])
    return handles


RSA = ("MODULUS", "PRIVATE_EXPONENT", "PRIME_1", "PRIME_2", "EXPONENT_1", "EXPONENT_2", "COEFFICIENT")


def read_and_change(host: Host, handles: dict[str, int]) -> None:
    client, session = host.client, host.session
    for handle in handles.values():
        client.get(session, handle, CKA.VALUE, CKA.PRIVATE_EXPONENT, CKA.LABEL, CKA.CLASS)
        client.set(session, handle, [(CKA.VALUE, host["aes"])])
        assert client.set(session, handle, [(CKA.ID, host["label"]), (CKA.CLASS, host["data"])]) != CKR.OK
        client.set(session, handle, [(CKA.LABEL, host["label"])])
    client.set(session, handles["data"], [(CKA.VALUE, host["data"])])
    for name in ("aes", "generic", "data", "ec"):
        client.find(session, [(CKA.VALUE, host[name])])
        client.find(session, [(CKA.LABEL, host["label"]), (CKA.VALUE, host[name])])
    array, count, _kept = client.template([(CKA.VALUE, host["data"]), (CKA.LABEL, host["label"])])
    handle = ffi.new("CK_ULONG *")
    client.ok("C_CopyObject", session, handles["data"], array, count, handle)
    client.ok("C_DestroyObject", session, handle[0])
    host.fails("C_CopyObject", session, handles["aes"], array, count, handle)


def whole(client: Client, session: int, verb: str, mechanism: Any, key: int, data: bytes) -> bytes:
    client.ok(f"C_{verb}Init", session, mechanism, key)
    return client.output(f"C_{verb}", session, data, len(data))


def use(host: Host, handles: dict[str, int]) -> None:
    client, session, text = host.client, host.session, host["plaintext"]
    output, length = ffi.new("char[8192]"), ffi.new("CK_ULONG *")

    def wrong(verb: str, mechanism: Any, key: int, data: bytes) -> None:
        if client.call(f"C_{verb}Init", session, mechanism, key) == CKR.OK:
            length[0] = 8192
            host.fails(f"C_{verb}", session, data, len(data), output, length)

    cbc = client.mechanism(CKM.AES_CBC_PAD, bytes(16))
    sealed = whole(client, session, "Encrypt", cbc, handles["aes"], text)
    assert whole(client, session, "Decrypt", cbc, handles["aes"], sealed) == text
    wrong("Decrypt", cbc, handles["aes"], sealed[:-1])
    wrong("Decrypt", client.mechanism(CKM.AES_CBC_PAD, host["label"][:16]), handles["aes"], text[:-1])
    wrong("Encrypt", client.mechanism(CKM.AES_ECB), handles["aes"], text[:-1])
    wrong("Encrypt", client.mechanism(CKM.AES_CBC, host["aes"]), handles["aes"], text)
    wrong("Encrypt", client.mechanism(CKM.AES_CBC, bytes(16)), handles["generic"], text)
    client.ok("C_EncryptInit", session, cbc, handles["aes"])
    length[0] = 1
    host.fails("C_Encrypt", session, text, len(text), output, length)
    client.ok("C_EncryptInit", session, ffi.NULL, 0)
    for mechanism, key in ((CKM.SHA256_HMAC, "generic"), (CKM.RSA_PKCS, "rsa"), (CKM.ECDSA_SHA256, "ec")):
        whole(client, session, "Sign", client.mechanism(mechanism), handles[key], text)
    wrong("Sign", client.mechanism(CKM.RSA_PKCS), handles["rsa"], text * 20)
    wrong("Sign", client.mechanism(CKM.RSA_X_509), handles["rsa"], b"\xff" * 256)
    wrong("Sign", client.mechanism(CKM.ECDSA), handles["rsa"], text)
    wrong("Decrypt", client.mechanism(CKM.RSA_PKCS), handles["rsa"], text)
    assert client.verify(session, handles["generic"], client.mechanism(CKM.SHA256_HMAC), text, text[:32]) != CKR.OK
    client.ok("C_DigestInit", session, client.mechanism(CKM.SHA256))
    client.ok("C_DigestUpdate", session, text, len(text))
    client.ok("C_DigestKey", session, handles["generic"])
    client.output("C_DigestFinal", session)
    client.ok("C_SeedRandom", session, host["seed"], len(host["seed"]))


def move_keys(host: Host, handles: dict[str, int]) -> None:
    """Wrapping, unwrapping, deriving, generating; a PKCS #8 whose plaintext is planted."""
    client, session = host.client, host.session
    padder = PKCS7(128).padder()
    padded = padder.update(host["pkcs8"]) + padder.finalize()
    encryptor = Cipher(algorithms.AES(host["aes"]), modes.CBC(bytes(16))).encryptor()
    sealed = encryptor.update(padded) + encryptor.finalize()
    cbc = client.mechanism(CKM.AES_CBC_PAD, bytes(16))
    handle = ffi.new("CK_ULONG *")

    def unwrap(data: bytes, *more: tuple[int, Any]) -> int:
        template: Template = [(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.TOKEN, True), (CKA.EXTRACTABLE, True), *more]
        array, count, _kept = client.template(template)
        return client.call("C_UnwrapKey", session, cbc, handles["aes"], data, len(data), array, count, handle)

    assert unwrap(sealed, (CKA.KEY_TYPE, CKK.RSA)) != CKR.OK
    assert unwrap(sealed[:-16]) != CKR.OK
    assert unwrap(sealed[16:]) != CKR.OK
    assert unwrap(sealed, (CKA.KEY_TYPE, CKK.EC)) == CKR.OK
    unwrapped = handle[0]
    assert client.output("C_WrapKey", session, cbc, handles["aes"], unwrapped)
    host.fails("C_WrapKey", session, cbc, handles["generic"], unwrapped, ffi.NULL, ffi.new("CK_ULONG *"))
    host.fails("C_WrapKey", session, cbc, handles["aes"], handles["data"], ffi.NULL, ffi.new("CK_ULONG *"))
    point, _ = client.generate_pair(session, CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256)], [])
    (public,) = client.get(session, point, CKA.EC_POINT)
    derive(host, handles["ec"], public or b"")
    derive(host, handles["ec"], host["generic"])
    generated = client.generate(
        session,
        client.mechanism(CKM.AES_KEY_GEN),
        [(CKA.VALUE_LEN, 32), (CKA.TOKEN, True), (CKA.SENSITIVE, False), (CKA.EXTRACTABLE, True)],
    )
    (value,) = client.get(session, generated, CKA.VALUE)
    host.secrets["generated"] = value or b""
    pbkdf2(host)
    client.generate_pair(session, CKM.RSA_PKCS_KEY_PAIR_GEN, [*RSA_2048, (CKA.TOKEN, True)], [(CKA.TOKEN, True)])


def derive(host: Host, key: int, public: bytes) -> None:
    parameter = ffi.new("CK_ECDH1_DERIVE_PARAMS *")
    held, shared = ffi.new("CK_BYTE[]", public), ffi.new("CK_BYTE[]", host["shared"])
    parameter.kdf, parameter.pPublicData, parameter.ulPublicDataLen = CKD.SHA256_KDF, held, len(public)
    parameter.pSharedData, parameter.ulSharedDataLen = shared, len(host["shared"])
    mechanism = host.client.mechanism(CKM.ECDH1_DERIVE, parameter)
    array, count, _kept = host.client.template(
        [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (CKA.VALUE_LEN, 32), (CKA.TOKEN, True)]
    )
    host.client.call("C_DeriveKey", host.session, mechanism, key, array, count, ffi.new("CK_ULONG *"))


def pbkdf2(host: Host) -> None:
    parameter = ffi.new("CK_PKCS5_PBKD2_PARAMS2 *")
    password, salt = ffi.new("CK_BYTE[]", host["password"]), ffi.new("CK_BYTE[]", b"salt-of-pbkdf2")
    parameter.saltSource, parameter.pSaltSourceData, parameter.ulSaltSourceDataLen = 1, salt, 14
    parameter.iterations, parameter.prf = 10, CKP.PKCS5_PBKD2_HMAC_SHA256
    parameter.pPassword, parameter.ulPasswordLen = password, len(host["password"])
    mechanism = host.client.mechanism(CKM.PKCS5_PBKD2, parameter)
    template: Template = [(CKA.KEY_TYPE, CKK.AES), (CKA.VALUE_LEN, 32), (CKA.TOKEN, True)]
    host.client.generate(host.session, mechanism, template)
    parameter.prf = 4711
    array, count, _kept = host.client.template(template)
    host.fails("C_GenerateKey", host.session, mechanism, array, count, ffi.new("CK_ULONG *"))


def go_wrong_inside(host: Host, handles: dict[str, int]) -> None:
    """Errors that nobody foresaw, with every secret in their text."""
    client, session = host.client, host.session
    everything = " ".join(
        f"{value!r} {value.hex()} {value.decode(errors='replace')}" for value in host.secrets.values()
    )

    def burst(*_: Any, **__: Any) -> Any:
        raise ValueError(everything)

    pin, text = host["pin"], host["plaintext"]
    output, length = ffi.new("char[8192]"), ffi.new("CK_ULONG *", 8192)
    array, count, _kept = client.template([(CKA.CLASS, CKO.DATA), (CKA.VALUE, host["data"])])
    cbc = client.mechanism(CKM.AES_CBC_PAD, bytes(16))
    cases: list[tuple[Any, str, tuple[Any, ...]]] = [
        (encryption, "C_Encrypt", (session, text, len(text), output, length)),
        (signing, "C_Sign", (session, text, len(text), output, length)),
        (objects, "C_CreateObject", (session, array, count, ffi.new("CK_ULONG *"))),
        (slots, "C_SetPIN", (session, pin, len(pin), pin, len(pin))),
        (keys, "C_UnwrapKey", (session, cbc, handles["aes"], text, len(text), array, count, ffi.new("CK_ULONG *"))),
    ]
    for module, name, arguments in cases:
        with_replaced(module, name, burst, lambda name=name, arguments=arguments: internal(host, name, arguments))  # type: ignore[misc]
    login = (session, CKU.USER, pin, len(pin))
    with_replaced(Token, "login", burst, lambda: internal(host, "C_Login", login))
    # Even where the handling of errors fails itself, nothing reaches the host's stderr.
    for place in (entries, filling):
        with_replaced(place, "answer", burst, lambda: host.fails("C_Login", *login))
        with_replaced(place, "answer", burst, lambda: host.fails("C_CreateObject", session, ffi.NULL, 1, ffi.NULL))


def internal(host: Host, name: str, arguments: tuple[Any, ...]) -> None:
    rv = host.client.call(name, *arguments)
    assert rv == CKR.GENERAL_ERROR, f"{name}: {rv:#x}"


def with_replaced(place: Any, name: str, by: Callable[..., Any], run: Callable[[], None]) -> None:
    kept = getattr(place, name)
    setattr(place, name, by)
    try:
        run()
    finally:
        setattr(place, name, kept)


def main() -> None:
    planted = {name: bytes.fromhex(value) for name, value in json.load(sys.stdin).items()}
    host = Host(sys.argv[1], planted)
    try:
        pins(host)
        handles = made_objects(host)
        read_and_change(host, handles)
        use(host, handles)
        move_keys(host, handles)
        go_wrong_inside(host, handles)
    except RvError as problem:
        sys.exit(f"{problem} at line {problem.__traceback__ and problem.__traceback__.tb_lineno}")
    public: Template = [(CKA.CLASS, CKO.DATA), (CKA.TOKEN, True), (CKA.PRIVATE, False), (CKA.LABEL, host["public"])]
    host.client.create(host.session, public)
    print(host["generated"].hex())
    sys.stdout.flush()
    if "--kill" in sys.argv:
        import os

        os.kill(os.getpid(), 9)
    host.client.ok("C_Finalize", ffi.NULL)


if __name__ == "__main__":
    main()
