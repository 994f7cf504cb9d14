"""A server that forks, whose children can import nothing more: `fork_and_drop MODULE PIN UID`. Prints JSON.

Apache's children, for example, run as www-data, who may be unable to read Python's library below another's home, and
nothing of it is inside a `ChrootDir`. Here the child takes away what finds modules, and UID is what the process takes
itself for, so that nobody has to be root. The parent only lists objects, as servers do that read their keys, fork, and
sign in the children.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module

from keyfob.spec.constants import CKA, CKK, CKM, CKO, CKR
from tests.client import P256, Client, Template, ffi

USES: Template = [(CKA.SIGN, True), (CKA.ENCRYPT, True), (CKA.DECRYPT, True)]


class Nowhere:
    """A finder that finds nothing."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        raise ModuleNotFoundError(name, name=name)


def enter(client: Client, pin: bytes) -> int:
    client.initialize()
    session = client.open(client.slots()[0])
    client.login(session, pin)
    return session


def jobs(client: Client, session: int) -> dict[str, Callable[[], object]]:
    """One use of each family of mechanisms, and a key made and destroyed."""

    def pair(kind: int, public: Template, mechanism: int) -> None:
        made = client.generate_pair(session, kind, public, [(CKA.SIGN, True)])
        signature = client.sign(session, made[1], client.mechanism(mechanism), bytes(32))
        assert client.verify(session, made[0], client.mechanism(mechanism), bytes(32), signature) == CKR.OK
        wrong = client.verify(session, made[0], client.mechanism(mechanism), bytes(31) + b"1", signature)
        assert wrong == CKR.SIGNATURE_INVALID

    def secret(kind: int, template: Template, mechanism: int, call: str, parameter: bytes = b"") -> None:
        key = client.generate(session, client.mechanism(kind), [*template, *USES])
        client.ok(f"C_{call}Init", session, client.mechanism(mechanism, parameter), key)
        assert client.output(f"C_{call}", session, bytes(32), 32)
        client.ok("C_DestroyObject", session, key)

    def digest() -> None:
        client.ok("C_DigestInit", session, client.mechanism(CKM.SHA256))
        assert len(client.output("C_Digest", session, b"abc", 3)) == 32

    rsa: Template = [(CKA.MODULUS_BITS, 1024), (CKA.PUBLIC_EXPONENT, b"\1\0\1"), (CKA.TOKEN, True)]
    ed25519: Template = [(CKA.EC_PARAMS, bytes.fromhex("06032b6570"))]
    aes: Template = [(CKA.VALUE_LEN, 32)]
    return {
        "RSA": lambda: pair(CKM.RSA_PKCS_KEY_PAIR_GEN, rsa, CKM.SHA256_RSA_PKCS),
        "EC": lambda: pair(CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256)], CKM.ECDSA),
        "Ed25519": lambda: pair(CKM.EC_EDWARDS_KEY_PAIR_GEN, ed25519, CKM.EDDSA),
        "AES": lambda: secret(CKM.AES_KEY_GEN, aes, CKM.AES_CBC_PAD, "Encrypt", bytes(16)),
        "3DES": lambda: secret(CKM.DES3_KEY_GEN, [], CKM.DES3_CBC_PAD, "Encrypt", bytes(8)),
        "HMAC": lambda: secret(
            CKM.GENERIC_SECRET_KEY_GEN, [*aes, (CKA.KEY_TYPE, CKK.GENERIC_SECRET)], CKM.SHA256_HMAC, "Sign"
        ),
        "digest": digest,
    }


def main() -> None:
    client, pin = Client(sys.argv[1]), sys.argv[2].encode()
    session = enter(client, pin)
    client.find(session, [(CKA.CLASS, CKO.PRIVATE_KEY)])
    setattr(os, "geteuid", lambda: int(sys.argv[3]))  # noqa: B010 - mypy lets nobody assign to a function
    import_module("keyfob.spec.names")  # for what this client says
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        failed: dict[str, str] = {}
        sys.meta_path[:] = [Nowhere()]
        session = enter(client, pin)
        for name, job in jobs(client, session).items():
            try:
                job()
            except AssertionError as problem:
                failed[name] = str(problem)
        os.write(tell, json.dumps(failed).encode())
        os._exit(0)
    os.close(tell)
    _, status = os.waitpid(child, 0)
    with os.fdopen(told) as answer:
        sys.stdout.write(json.dumps({"status": status, "failed": json.loads(answer.read() or "null")}))
    client.ok("C_Finalize", ffi.NULL)


if __name__ == "__main__":
    main()
