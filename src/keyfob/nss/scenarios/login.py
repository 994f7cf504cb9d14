"""Logins: one state for all sessions, wrong PINs, logouts, and the tokens that need none."""

from __future__ import annotations

from keyfob.nss.client import Nss, NssSlot
from keyfob.nss.context import Check, Context
from keyfob.nss.driver import READ_ONLY, READ_WRITE, Reply
from keyfob.nss.scenario import scenario
from keyfob.spec.constants import CKA, CKK, CKO, CKR, CKS, CKU
from keyfob.spec.errors import name_of

PUBLIC_STATES = {READ_ONLY: CKS.RO_PUBLIC_SESSION, READ_WRITE: CKS.RW_PUBLIC_SESSION}
USER_STATES = {READ_ONLY: CKS.RO_USER_FUNCTIONS, READ_WRITE: CKS.RW_USER_FUNCTIONS}
LOGIN_RULES = ("S15", "SE8", "SE11", "SE12", "SE13", "SE14", "SE15", "P11")


@scenario(
    "login",
    "Log in, again and out, and look at every session meanwhile",
    rules=("S12", "S14", *LOGIN_RULES, "N1", "P30", "P31", "S2"),
)
def login(context: Context) -> None:
    nss = context.nss()
    slot = context.slot()
    with context.step("read-only and read-write sessions"):
        sessions = _sessions(context, slot)
    if not slot.needs_login:
        _without(context, nss, slot)
        context.skip("the token needs no login", *LOGIN_RULES, "P31", applicable=False)
        return
    context.skip("the token needs a login", "S12", "S14", "P30", applicable=False)
    _protected_path(context, slot)
    if not slot.pin_initialized:
        context.give_up("the token has no user PIN yet")
    with context.step("before the login"), context.checking("SE8") as check:
        _states(context, check, sessions, PUBLIC_STATES, "before the login")
    _wrong(context, slot)
    with context.step("LOGIN"), context.checking("SE11") as check:
        reply = context.login(slot)
        # NSS takes both for success (auth:74).
        check.expect_rv(reply, CKR.OK, CKR.USER_ALREADY_LOGGED_IN, because="on NSS's read-only session")
    if reply.rv not in (CKR.OK, CKR.USER_ALREADY_LOGGED_IN):
        context.give_up(f"the user cannot log in: C_Login answered {reply.name}")
    with context.step("logged in"):
        _logged_in(context, nss, slot, sessions)
    with context.step("log out"):
        _logged_out(context, nss, slot, sessions)
    with context.step("log in and out"):
        _cycles(context, slot)
    with context.step("SECMOD_UpdateSlotList"), context.checking("S2") as check:
        listed = context.module.C_GetSlotList(False, len(nss.slots) + 16)
        lost = [each.id for each in nss.slots if each.id not in listed.ok()]
        check.expect(not lost, f"slots {lost} have vanished from the list since the login", listed)


def _sessions(context: Context, slot: NssSlot) -> dict[int, int]:
    """{session: flags} of a read-only and a read-write one beside the default session."""
    module = context.module
    opened = {slot.session: READ_WRITE if slot.single_session else READ_ONLY}
    with context.checking("N1") as check:
        if slot.single_session:
            check.not_applicable("the token has one session, which NSS opens for reading and writing")
        kinds = (READ_ONLY,) if slot.read_only else (READ_ONLY, READ_WRITE)
        for flags in kinds:
            reply = context.module.C_OpenSession(slot.id, flags)
            if check.expect_rv(reply, CKR.OK, because="beside NSS's open read-only session"):
                check.expect(reply.value, "C_OpenSession gave the handle 0", reply)
                if not check.expect(
                    reply.value not in opened, "C_OpenSession gave the handle of another open session", reply
                ):
                    context.give_up("the sessions have one handle")
                opened.setdefault(reply.value, flags)
        info = module.C_GetSessionInfo(slot.session)
        check.expect_rv(info, CKR.OK)
        if slot.read_only:
            check.passed("the token is write-protected: only read-only sessions were opened")
    return opened


def _without(context: Context, nss: Nss, slot: NssSlot) -> None:
    """Rules S12, S14, P30: NSS never logs in, so everything must be open."""
    module = context.module
    with context.step("without a login"):
        if slot.pin_initialized:
            context.skip("only NSS's own softoken sets a PIN on a token that needs no login", "S14", applicable=False)
        else:
            context.skip("the token has no user PIN", "S14", applicable=False)
        with context.checking("S12") as check, context.checking("P30") as pitfall:
            reply, handles = nss.search(slot.session, [(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.TOKEN, True)], at_once=10)
            check.expect_rv(reply, CKR.OK, because="to a search for private keys")
            pitfall.expect(
                reply.rv != CKR.USER_NOT_LOGGED_IN,
                "CKF_LOGIN_REQUIRED is clear, but a search for private keys needs a login",
                reply,
            )
            for handle in handles:
                read = module.C_GetAttributeValue(slot.session, handle, [(CKA.KEY_TYPE, 8)])
                check.expect_rv(read, CKR.OK, because="for a private key without a login")
            made = _private_object(context, slot)
            pitfall.expect(
                made.rv != CKR.USER_NOT_LOGGED_IN,
                "CKF_LOGIN_REQUIRED is clear, but a private session key needs a login",
                made,
            )
            context.fact("hidden login", CKR.USER_NOT_LOGGED_IN in (reply.rv, made.rv))


def _protected_path(context: Context, slot: NssSlot) -> None:
    with context.checking("P31") as check:
        if not slot.protected_path:
            check.not_applicable("the token has no protected authentication path")
        if not context.options.pinpad:
            check.not_tested("nobody is there to type the PIN on the token (--pinpad)")
        reply = context.module.C_Login(slot.session, CKU.USER, None, on_device=True)
        check.expect_rv(reply, CKR.OK, CKR.PIN_INCORRECT, because="to NULL, which asks for the PIN on the token")
        if reply.is_ok:
            context.module.C_Logout(slot.session)


def _states(context: Context, check: Check, sessions: dict[int, int], wanted: dict[int, int], when: str) -> None:
    for session, flags in sessions.items():
        reply = context.module.C_GetSessionInfo(session)
        if check.expect_rv(reply, CKR.OK):
            state = int(reply.value.state)
            check.expect(
                state == wanted[flags],
                f"a session is in {name_of('CKS', state)} {when}",
                reply,
                expects=f"{name_of('CKS', wanted[flags])}.",
            )


def _wrong(context: Context, slot: NssSlot) -> None:
    """A PIN that is wrong must be answered with CKR_PIN_INCORRECT: NSS asks again for nothing else."""
    with context.step("a wrong PIN"), context.checking("S15") as check:
        if slot.protected_path:
            check.not_tested("the PIN is typed on the token")
        _right_first(context, slot, check)
        wrong, why = context.wrong_pin(slot)
        if wrong is None:
            check.not_tested(why)
        reply = context.module.C_Login(slot.session, CKU.USER, wrong)
        if reply.rv not in (CKR.OK, CKR.PIN_INCORRECT):
            right = context.login(slot)
            if right.rv == reply.rv:
                check.not_tested(f"the right PIN is answered with {right.name}, too")
            context.module.C_Logout(slot.session)
        check.expect_rv(
            reply,
            CKR.PIN_INCORRECT,
            because="to a wrong PIN",
            user="One mistyped PIN and the program does not ask again.",
        )
        info = context.module.C_GetSessionInfo(slot.session)
        check.expect(info.is_ok and info.value.state in PUBLIC_STATES.values(), "a wrong PIN logged in", info)
        if reply.is_ok:
            context.module.C_Logout(slot.session)


def _right_first(context: Context, slot: NssSlot, check: Check) -> None:
    """A user whose PIN is wrong loses one try by it, not two; a right one gives a try back that was lost before."""
    if context.pin is None:
        return
    if context.login(slot).is_ok:
        context.module.C_Logout(slot.session)
        state = context.module.C_GetSessionInfo(slot.session)
        if not state.is_ok:
            with context.checking("SE15") as ended:
                ended.expect_rv(state, CKR.OK, because="for a session after C_Logout")
            expect_session(context, slot)
        if context.nss().is_logged_in(slot):
            check.not_tested("C_Logout does not log out: see SE15")


def _logged_in(context: Context, nss: Nss, slot: NssSlot, sessions: dict[int, int]) -> None:
    module = context.module
    with context.checking("P11") as check:
        _states(context, check, sessions, USER_STATES, "after the login on another session")
        if not slot.single_session:
            # A token that has no more sessions is rule P26's matter.
            kinds = (READ_ONLY,) if slot.read_only else (READ_ONLY, READ_WRITE)
            opened = [(module.C_OpenSession(slot.id, flags), flags) for flags in kinds]
            later = {reply.value: flags for reply, flags in opened if reply.is_ok}
            _states(context, check, later, USER_STATES, "though the user was logged in when it was opened")
            for session in later:
                module.C_CloseSession(session)
    with context.checking("S15") as check:
        check.expect(
            nss.is_logged_in(slot), "C_GetSessionInfo does not show the login: NSS asks for the PIN again and again"
        )
    with context.checking("SE11") as check:
        # NSS takes both for success (auth:74).
        again = module.C_Login(slot.session, CKU.USER, context.pin) if not slot.protected_path else None
        if again is not None:
            check.expect_rv(again, CKR.USER_ALREADY_LOGGED_IN, CKR.OK, because="to a second login")


def _private_object(context: Context, slot: NssSlot) -> Reply[int]:
    """A private session object: nothing of it reaches the token."""
    return context.module.C_CreateObject(
        slot.session,
        [
            (CKA.CLASS, CKO.SECRET_KEY),
            (CKA.KEY_TYPE, CKK.GENERIC_SECRET),
            (CKA.TOKEN, False),
            (CKA.PRIVATE, True),
            (CKA.VALUE, bytes(32)),
        ],
    )


def expect_session(context: Context, slot: NssSlot) -> None:
    """C_Logout leaves the session as it is (SE15): without it there is nothing to go on with."""
    state = context.module.C_GetSessionInfo(slot.session)
    if not state.is_ok:
        context.give_up(f"C_Logout has ended the session: C_GetSessionInfo answers {state.name}")


def _logged_out(context: Context, nss: Nss, slot: NssSlot, sessions: dict[int, int]) -> None:
    module = context.module
    private = [(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.TOKEN, True)]
    keys = nss.find_all(slot.session, private)
    made = _private_object(context, slot)
    with context.checking("SE15") as check:
        check.expect_rv(module.C_Logout(slot.session), CKR.OK)
        _states(context, check, sessions, PUBLIC_STATES, "after C_Logout")
    expect_session(context, slot)
    with context.checking("SE12") as check:
        found, left = nss.search(slot.session, private, at_once=10)
        check.expect_rv(found, CKR.OK, CKR.USER_NOT_LOGGED_IN, because="to a search for private keys after C_Logout")
        # Keys that are not CKA_PRIVATE may stay; a private object may not.
        for handle in [*keys[:1], *([made.value] if made.is_ok else [])]:
            read = module.C_GetAttributeValue(slot.session, handle, [(CKA.PRIVATE, 1), (CKA.CLASS, 8)])
            is_open = read.is_ok and read.value[0][2] == b"\0"
            check.expect(
                not read.is_ok or is_open,
                "a private object can still be read after C_Logout",
                read,
                expects="CKR_OBJECT_HANDLE_INVALID, or CKR_USER_NOT_LOGGED_IN.",
            )
            if is_open and handle in left:
                check.warn("a private key of the token is not CKA_PRIVATE: it shows without a login", read)


def _cycles(context: Context, slot: NssSlot) -> None:
    module = context.module
    with context.checking("SE14") as check:
        idle = module.C_Logout(slot.session)
        # NSS does not look at what it answers; it must only do no harm.
        check.expect_rv(idle, CKR.USER_NOT_LOGGED_IN, CKR.OK, because="when nobody was logged in")
        if not slot.protected_path:
            check.expect_rv(context.login(slot), CKR.OK, because="after a C_Logout without a login")
    if slot.protected_path:
        context.skip("a person would have to type the PIN again and again", "SE13")
        return
    with context.checking("SE13") as check:
        for _ in range(2):
            check.expect_rv(module.C_Logout(slot.session), CKR.OK, because="before a private key is used")
            check.expect_rv(context.login(slot), CKR.OK, because="after C_Logout")
        module.C_Logout(slot.session)
