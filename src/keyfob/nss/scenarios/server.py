"""A TLS server whose key is on the token: the copies that NSS makes of it, and connections on many threads at once."""

from __future__ import annotations

import threading
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from keyfob.nss import keys
from keyfob.nss.client import NssSlot
from keyfob.nss.context import Check, Context
from keyfob.nss.driver import Reply
from keyfob.nss.keys import TokenKey
from keyfob.nss.scenario import scenario
from keyfob.nss.scenarios.sign import is_signature, raw, signed
from keyfob.spec.constants import CKA, CKR

THREADS = 8
FEWEST = 2
EACH = 50
"""Signatures of each thread."""
PATIENCE = 30.0
"""Seconds that all threads together may take."""


@scenario(
    "tls-server",
    "Copy a key as a TLS server does, sign with the copies, and with many threads at once",
    rules=("O14", "P2", "SE3"),
)
def tls_server(context: Context) -> None:
    slot = context.ready()
    found = keys.token_keys(context, slot)
    if not found:
        context.give_up("the token has no key that signs, and takes none")
    for key in found:
        if not _signs(context, slot, key)[0]:
            context.skip(f"the {key.name} key does not sign at all", "O14", "P2", "SE3")
            continue
        with context.step(f"ssl_MakeKeyPairForCert, {key.name}"):
            copies = _copies(context, slot, key)
        server_key = copies[0] if copies else key
        with context.step(f"{THREADS} connections at once, {key.name}"), context.checking("SE3") as check:
            _threads(context, check, slot, server_key)
        with context.step("the server ends"), context.checking("O14") as check:
            _destroy(context, check, slot, key, copies)
    if not any(isinstance(key.public, rsa.RSAPublicKey) for key in found):
        context.skip("NSS makes the second copy of RSA keys only", "P2", applicable=False)
    keys.remove(context, slot, found)


def _of(key: TokenKey, handle: int) -> TokenKey:
    """The key under another handle."""
    return TokenKey(handle, key.public, (), key.identifier)


def _signs(context: Context, slot: NssSlot, key: TokenKey) -> tuple[bool, Reply[Any]]:
    reply = signed(context, slot, key, *raw(key, b"a handshake"))
    return is_signature(key, reply, b"a handshake"), reply


def _copies(context: Context, slot: NssSlot, key: TokenKey) -> list[TokenKey]:
    """The copy with {TOKEN = false}, whose failure NSS bears; then, of RSA keys, that copy once more with nothing."""
    nss, module = context.nss(), context.module
    made: list[TokenKey] = []
    with context.checking("O14") as check:
        first = module.C_CopyObject(slot.session, key.private, [(CKA.TOKEN, False)])
        if not first.is_ok:
            check.passed(f"C_CopyObject refuses a copy that is no token object ({first.name}): NSS uses the key itself")
        elif _is_another(check, first, key.private):
            made.append(_of(key, first.value))
            on_token = nss.read_flag(slot.session, first.value, CKA.TOKEN)
            check.expect(not on_token, "a copy with CKA_TOKEN = false is a token object", first)
            _expect_copy_signs(context, check, slot, made[0])
    if not isinstance(key.public, rsa.RSAPublicKey):
        return made
    with context.checking("P2") as check:
        if not first.is_ok:
            check.not_applicable("the first copy is refused: NSS makes no second one")
        if not made:
            check.not_tested("the first copy is the key itself")
        second = module.C_CopyObject(slot.session, made[0].private, None)
        if check.expect_rv(second, CKR.OK, because="to a template of NULL and 0"):
            if _is_another(check, second, made[0].private):
                made.append(_of(key, second.value))
            _expect_copy_signs(context, check, slot, _of(key, second.value))
    return made


def _is_another(check: Check, copied: Reply[int], original: int) -> bool:
    return check.expect(copied.value not in (0, original), "C_CopyObject gave the handle of the original", copied)


def _expect_copy_signs(context: Context, check: Check, slot: NssSlot, copy: TokenKey) -> None:
    """In a session other than that in which it was made."""
    right, reply = _signs(context, slot, copy)
    saw = f"a copy of an {copy.name} key does not sign: {reply.call.function} answered {reply.name}"
    check.expect(right, saw if not reply.is_ok else f"a copy of an {copy.name} key signs wrongly", reply)


def _destroy(context: Context, check: Check, slot: NssSlot, key: TokenKey, copies: list[TokenKey]) -> None:
    """Copies go one after the other, and the originals stay. Nothing but a session object is ever destroyed."""
    nss, module = context.nss(), context.module
    originals = [key, *copies]
    while len(originals) > 1:
        copy = originals.pop()
        if nss.read_flag(slot.session, copy.private, CKA.TOKEN):
            continue
        gone = module.C_DestroyObject(slot.session, copy.private)
        check.expect_rv(gone, CKR.OK, because="for a copy that is a session object")
        for original in originals:
            right, reply = _signs(context, slot, original)
            name = "the key itself" if original is key else "the copy that it was made of"
            check.expect(right, f"after a copy was destroyed {name} no longer signs ({reply.name})", gone, reply)


def _threads(context: Context, check: Check, slot: NssSlot, key: TokenKey) -> None:
    """Every signature in a session of its own (3.2: after C_Initialize with NSS's flags threads call as they like)."""
    if context.nss().single_threaded or slot.single_session:
        check.not_applicable("NSS uses the module on one thread, or in one session")
    # Threads that get no session of their own wait for each other (slot:359): their number is P26's matter.
    at_once = _sessions_to_be_had(context, slot)
    if at_once < FEWEST:
        check.not_tested(f"beside NSS's first session there are only {at_once}: see P26")
    made: list[tuple[bytes, Reply[Any]]] = []

    def work(number: int) -> None:
        for turn in range(EACH):
            text = b"handshake %d of thread %d" % (turn, number)
            made.append((text, signed(context, slot, key, *raw(key, text))))

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(at_once)]
    with context.module.recorder.quietly(f"sign {at_once * EACH} times on {at_once} threads"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    hung = sum(thread.is_alive() for thread in threads)
    check.expect(not hung, f"{hung} of {at_once} threads that sign at the same time did not come to their end")
    failed = [reply for _text, reply in made if not reply.is_ok]
    names = ", ".join(sorted({f"{reply.call.function} answered {reply.name}" for reply in failed}))
    saw = f"{len(failed)} of {len(made)} signatures on {at_once} threads failed: {names}"
    check.expect(not failed, saw, *failed[:3])
    wrong = [reply for text, reply in made if reply.is_ok and not is_signature(key, reply, text)]
    check.expect(not wrong, f"{len(wrong)} of {len(made)} signatures on {at_once} threads are wrong", *wrong[:3])


def _sessions_to_be_had(context: Context, slot: NssSlot) -> int:
    """THREADS, or as many sessions as the token has beside NSS's first one."""
    opened = [context.module.C_OpenSession(slot.id) for _ in range(THREADS)]
    had = [reply.value for reply in opened if reply.is_ok]
    for session in had:
        context.nss().close(slot, session)
    return len(had)
