"""Sessions: both kinds, many at once and one after the other, what lives in them, and what ends with them."""

from __future__ import annotations

import os
from typing import Any

from keyfob.nss import keys, material
from keyfob.nss.client import NssSlot
from keyfob.nss.context import Check, Context, chosen
from keyfob.nss.driver import READ_ONLY, READ_WRITE, Mechanism, Reply
from keyfob.nss.scenario import scenario
from keyfob.nss.scenarios.decrypt import IV, TEXT, encrypted
from keyfob.nss.streams import Stream, find_stream
from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKR

NO_STATE = (CKR.FUNCTION_NOT_SUPPORTED, CKR.STATE_UNSAVEABLE, CKR.OPERATION_NOT_INITIALIZED)
"""There is no state to be had; the last is softoken's answer for everything but digests. NSS gives up at any."""
CLOSED = (CKR.SESSION_HANDLE_INVALID, CKR.SESSION_CLOSED)


@scenario("sessions: open", "Open a read-only and a read-write session", rules=("SE1",))
def open_both(context: Context) -> None:
    nss, module = context.nss(), context.module
    slot = chosen(nss, context.options)
    if slot is None:
        context.give_up("there is no token in any slot")
    with context.checking("SE1") as check:
        if slot.single_session:
            check.expect(slot.session, f"NSS has no session of the token: {slot.disabled}")
            check.passed("the token has one session, which NSS opens for reading and writing")
            return
        opened: dict[int, int] = {}
        for flags, kind in ((READ_ONLY, "read-only"), (READ_WRITE, "read-write")):
            reply = module.C_OpenSession(slot.id, flags)
            if slot.read_only and flags == READ_WRITE:
                check.expect_rv(reply, CKR.TOKEN_WRITE_PROTECTED, because="to a read-write session")
            elif check.expect_rv(reply, CKR.OK, because=f"to a {kind} session"):
                check.expect(reply.value not in (0, *opened), f"the {kind} session has another session's handle", reply)
                opened[reply.value] = flags
        for session, flags in opened.items():
            info = module.C_GetSessionInfo(session)
            check.expect_rv(info, CKR.OK, because="for a session that was just opened")
            if info.is_ok and (info.value.flags, info.value.slotID) != (flags, slot.id):
                check.warn(
                    "C_GetSessionInfo tells of another slot or of other flags than the session was opened with",
                    info,
                    user="Nothing in NSS, which looks at the state only; others take it for another session.",
                )
            module.C_CloseSession(session)
        if slot.session:
            reply = module.C_GetSessionInfo(slot.session)
            check.expect_rv(reply, CKR.OK, because="for NSS's first session, after others were closed")


@scenario(
    "sessions",
    "What lives in a session and what ends with it; two operations at once; states saved and set",
    rules=("SE4", "SE5", "SE6", "N5", "N8", "N19", "O4"),
)
def sessions(context: Context) -> None:
    slot = context.ready()
    stream = find_stream(context, slot)
    try:
        with context.step("two operations at once"), context.checking("SE4") as check:
            _two_streams(context, check, slot, stream)
        with context.step("objects of read-only sessions"):
            _session_objects(context, slot)
        with context.step("token objects"), context.checking("N5") as check:
            _token_objects(context, check, slot)
        with context.step("close in the middle"), context.checking("SE6") as check:
            _close(context, check, slot, stream)
        with context.step("save and restore"), context.checking("SE5") as check:
            _states(context, check, slot, stream)
    finally:
        if stream is not None:
            keys.remove(context, slot, stream.made)


def _session_objects(context: Context, slot: NssSlot) -> None:
    """In read-only sessions: a secret key from raw data (O4), a public key (N8); used and destroyed elsewhere (N19)."""
    nss, module = context.nss(), context.module
    if slot.single_session:
        context.skip("NSS has only one session of this token", "N8", "N19", "O4", applicable=False)
        return
    value = os.urandom(16)
    encrypts = _offers(context, slot, CKM.AES_CBC, CKF.ENCRYPT)
    owner, other = nss.open_ro(slot), nss.open_ro(slot)
    usage = CKA.ENCRYPT if encrypts else CKA.DECRYPT
    secret = module.C_CreateObject(owner, material.secret_key_template(CKK.AES, usage, value))
    public = module.C_CreateObject(owner, material.public_key_template(material.ec_key(), token=False))
    with context.checking("O4") as check:
        if not secret.is_ok and not encrypts and not _offers(context, slot, CKM.AES_CBC, CKF.DECRYPT):
            check.not_applicable(f"the token does nothing with AES, and takes no such key ({secret.name})")
        if check.expect_rv(secret, CKR.OK, because="to an AES key from raw data in a read-only session"):
            _use(context, check, slot, owner, secret.value, value)
    with context.checking("N8") as check:
        for reply in (secret, public):
            saw = "C_CreateObject makes no session object in a read-only session"
            check.expect(reply.rv != CKR.SESSION_READ_ONLY, saw, reply)
        if not (secret.is_ok or public.is_ok):
            check.not_tested(f"the token takes neither secret nor public keys ({secret.name}, {public.name})")
    with context.checking("N19") as check:
        made = _some_object(context, owner)
        if not made.is_ok:
            check.not_tested(f"there is no session object: {made.name}")
        read = module.C_GetAttributeValue(other, made.value, [(CKA.CLASS, 8)])
        check.expect_rv(read, CKR.OK, because="for an object of another session")
        if secret.is_ok:
            again = module.C_CreateObject(owner, material.secret_key_template(CKK.AES, usage, value)).ok()
            _use(context, check, slot, other, again, value)
        gone = module.C_DestroyObject(other, made.value)
        check.expect_rv(gone, CKR.OK, because="for an object of another session")
        if gone.is_ok:
            read = module.C_GetAttributeValue(owner, made.value, [(CKA.CLASS, 8)])
            check.expect(not read.is_ok, "an object that another session destroyed can still be read", read)
    for session in (owner, other):
        nss.close(slot, session)


def _offers(context: Context, slot: NssSlot, mechanism: int, flag: int) -> bool:
    reply = context.module.C_GetMechanismInfo(slot.id, mechanism)
    return reply.is_ok and bool(reply.value.flags & flag)


def _use(context: Context, check: Check, slot: NssSlot, session: int, handle: int, value: bytes) -> None:
    """An AES key for what its template says, as far as the token offers that."""
    module = context.module
    expected = encrypted(value)
    reply: Reply[Any]
    if _offers(context, slot, CKM.AES_CBC, CKF.ENCRYPT):
        reply = module.C_EncryptInit(session, Mechanism(CKM.AES_CBC, IV), handle)
        given, wanted, run = TEXT, expected, module.C_Encrypt
    elif _offers(context, slot, CKM.AES_CBC, CKF.DECRYPT):
        reply = module.C_DecryptInit(session, Mechanism(CKM.AES_CBC, IV), handle)
        given, wanted, run = expected, TEXT, module.C_Decrypt
    else:
        return
    if reply.is_ok:
        reply = run(session, given, len(wanted))
    if check.expect_rv(reply, CKR.OK, because="with an AES key of this token's sessions"):
        check.expect(reply.value == wanted, "CKM_AES_CBC with a session key gives something else", reply)


def _token_objects(context: Context, check: Check, slot: NssSlot) -> None:
    """Made and destroyed in read-write sessions, and in no others (N5)."""
    nss, module = context.nss(), context.module
    if slot.single_session:
        check.not_applicable("NSS has only one session of this token, for reading and writing")
    if not context.options.write:
        check.not_tested("it writes to the token (--write)")
    if slot.read_only:
        check.not_applicable("the token is write-protected")
    template = material.certificate_template(material.certificate("sessions"))
    reading, writing = nss.open_ro(slot), nss.open_rw(slot)
    if reading == writing:
        check.not_tested("C_OpenSession gave one handle to two sessions: see SE4")
    made = module.C_CreateObject(writing, template)
    if not made.is_ok:
        check.not_tested(f"the token stores no certificate: {made.name}")
    refused = module.C_DestroyObject(reading, made.value)
    if refused.is_ok and module.C_GetAttributeValue(writing, made.value, [(CKA.CLASS, 8)]).is_ok:
        check.not_tested("C_DestroyObject destroys nothing: see O15")
    _expect_read_only(check, refused, "for a token object in a read-only session")
    if not refused.is_ok:
        check.expect_rv(module.C_DestroyObject(writing, made.value), CKR.OK, because="in a read-write session")
    unwanted = module.C_CreateObject(reading, template)
    _expect_read_only(check, unwanted, "to a token object in a read-only session")
    if unwanted.is_ok:
        module.C_DestroyObject(writing, unwanted.value)
    for session in (reading, writing):
        nss.close(slot, session)


def _expect_read_only(check: Check, reply: Reply[Any], because: str) -> None:
    """Refused: NSS itself opens a read-write session, so that the code is for others."""
    saw = f"{reply.call.function} answered CKR_OK {because}"
    check.expect(not reply.is_ok, saw, reply, expects="CKR_SESSION_READ_ONLY.")


def _two_streams(context: Context, check: Check, slot: NssSlot, stream: Stream | None) -> None:
    """Two operations in several parts on two sessions, turn by turn (SE4)."""
    nss = context.nss()
    if slot.single_session:
        check.not_applicable("NSS has only one session of this token")
    if stream is None:
        check.not_applicable("the token has no operation in several parts that could be tried")
    opened = [context.module.C_OpenSession(slot.id) for _ in range(2)]
    one, other = (reply.ok() for reply in opened)
    if not check.expect(one != other, "C_OpenSession gave one handle to two sessions", *opened):
        return
    texts = {one: b"one stream, " * 20, other: b"the other, " * 30}
    for session in texts:
        stream.begin(session).ok()
    for third in range(3):
        for session, text in texts.items():
            size = len(text) // 3
            stream.update(session, text[third * size : (third + 1) * size]).ok()
    for session, text in texts.items():
        right, reply = stream.end(session, text)
        check.expect(right, f"of two operations on two sessions one gives a wrong result ({reply.name})", reply)
        nss.close(slot, session)


def _close(context: Context, check: Check, slot: NssSlot, stream: Stream | None) -> None:
    """Closing one of two sessions ends its operation and its objects; the other's go on (SE6)."""
    nss, module = context.nss(), context.module
    if slot.single_session:
        check.not_applicable("NSS has only one session of this token")
    closing, staying = module.C_OpenSession(slot.id).ok(), module.C_OpenSession(slot.id).ok()
    if closing == staying:
        check.not_tested("C_OpenSession gave one handle to two sessions: see SE4")
    text = b"this one goes on " * 8
    objects = {session: _some_object(context, session) for session in (closing, staying)}
    if stream is not None:
        for session in (closing, staying):
            stream.begin(session).ok()
            stream.update(session, text[:50]).ok()
    check.expect_rv(module.C_CloseSession(closing), CKR.OK, because="in the middle of an operation")
    after = module.C_GetSessionInfo(closing)
    check.expect_rv(after, *CLOSED, because="for a closed session")
    if stream is not None:
        _expect_only_one_ended(check, stream, closing if after.rv in CLOSED else None, staying, text)
        fresh = module.C_OpenSession(slot.id).ok()
        check.expect_rv(stream.begin(fresh), CKR.OK, because="in a new session, after one was closed in its middle")
        nss.close(slot, fresh)
    for session, made in objects.items():
        if made.is_ok and session == staying:
            read = module.C_GetAttributeValue(staying, made.value, [(CKA.CLASS, 8)])
            check.expect_rv(read, CKR.OK, because="for an object of an open session, after another was closed")
        elif made.is_ok and after.rv in CLOSED:
            read = module.C_GetAttributeValue(staying, made.value, [(CKA.CLASS, 8)])
            check.expect(not read.is_ok, "an object of a closed session can still be read", read)
    nss.close(slot, staying)


def _some_object(context: Context, session: int) -> Reply[int]:
    made = context.module.C_CreateObject(session, material.secret_key_template(CKK.AES, CKA.ENCRYPT, bytes(16)))
    if made.is_ok:
        return made
    return context.module.C_CreateObject(session, material.public_key_template(material.ec_key(), token=False))


def _expect_only_one_ended(check: Check, stream: Stream, closed: int | None, staying: int, text: bytes) -> None:
    if closed is not None:
        late = stream.update(closed, b"late")
        check.expect_rv(late, *CLOSED, because="for an operation of a closed session")
    more = stream.update(staying, text[50:])
    right, reply = stream.end(staying, text) if more.is_ok else (False, more)
    saw = f"closing one session disturbs the operation of another: {reply.call.function} answered {reply.name}"
    check.expect(right, saw, reply)


def _states(context: Context, check: Check, slot: NssSlot, stream: Stream | None) -> None:
    """C_GetOperationState and C_SetOperationState, as for a context without a session of its own (cxt:90,134)."""
    nss, module = context.nss(), context.module
    if stream is None:
        check.not_applicable("the token has no operation in several parts that could be tried")
    session = nss.open_ro(slot)
    with check.setup("begin an operation"):
        stream.begin(session).ok()
        stream.update(session, TEXT[:64]).ok()
    sized = module.C_GetOperationState(session, None)
    if sized.rv in NO_STATE:
        right, reply = stream.end(session, TEXT[:64])
        check.expect(right, "the operation does not go on after C_GetOperationState refused its state", sized, reply)
        nss.close(slot, session)
        check.passed(f"C_GetOperationState says cleanly that there is no state: {sized.name}")
        return
    if not check.expect_rv(sized, CKR.OK, because="to the question how long the state is"):
        nss.close(slot, session)
        return
    saved = module.C_GetOperationState(session, sized.value)
    state = saved.ok()
    if not isinstance(state, bytes):
        check.fail(f"C_GetOperationState gives {state} bytes into room for {sized.value}", sized, saved)
        nss.close(slot, session)
        return
    stream.update(session, b"what another context does with the session").ok()
    for where in ("where another operation is active", "where no operation is active"):
        restored = module.C_SetOperationState(session, state, stream.key)
        if check.expect_rv(restored, CKR.OK, because=f"to a saved state {where}"):
            more = stream.update(session, TEXT[64:])
            right, reply = stream.end(session, TEXT) if more.is_ok else (False, more)
            saw = f"after C_SetOperationState {where} the operation gives a wrong result"
            check.expect(right, saw, restored, reply)
        else:
            stream.end(session, TEXT)
    if not slot.single_session:
        _cloned(context, check, slot, stream, session, state)
    nss.close(slot, session)


def _cloned(context: Context, check: Check, slot: NssSlot, stream: Stream, session: int, state: bytes) -> None:
    """Two contexts set to one state, as PK11_CloneContext has them: each goes on alone."""
    nss, module = context.nss(), context.module
    other = nss.open_ro(slot)
    texts = {session: b"one, ", other: b"and quite another, "}
    restored = [module.C_SetOperationState(each, state, stream.key) for each in texts]
    if all(check.expect_rv(reply, CKR.OK, because="to one state in two sessions") for reply in restored):
        for each, text in texts.items():
            stream.update(each, text).ok()
        for each, text in texts.items():
            right, reply = stream.end(each, TEXT[:64] + text)
            check.expect(right, "of two operations set to one state one disturbs the other", *restored, reply)
    nss.close(slot, other)


@scenario("sessions: close all", "C_CloseAllSessions with sessions and without", rules=("SE7",))
def close_all(context: Context) -> None:
    nss, module = context.nss(), context.module
    slot = context.slot()
    with context.checking("SE7") as check:
        opened = [slot.session] if slot.single_session else [slot.session, module.C_OpenSession(slot.id).ok()]
        check.expect_rv(module.C_CloseAllSessions(slot.id), CKR.OK, because="with open sessions")
        for session in opened:
            reply = module.C_GetSessionInfo(session)
            if reply.is_ok:
                check.warn(
                    "a session goes on after C_CloseAllSessions",
                    reply,
                    expects="CKR_SESSION_HANDLE_INVALID.",
                    user="Nothing in NSS, which calls C_Finalize next; other programs leak sessions and logins.",
                )
        check.expect_rv(module.C_CloseAllSessions(slot.id), CKR.OK, because="without a session")
        for other in nss.slots:
            if other.id != slot.id and other.present:
                reply = module.C_CloseAllSessions(other.id)
                check.expect_rv(reply, CKR.OK, because=f"for slot {other.id}, where NSS does so at its end, too")
        again = module.C_OpenSession(slot.id, READ_WRITE if slot.single_session else READ_ONLY)
        check.expect_rv(again, CKR.OK, because="after C_CloseAllSessions")
        slot.session = again.value if again.is_ok else 0
