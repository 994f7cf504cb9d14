"""Sessions: opening, sharing, logins, removal."""

from __future__ import annotations

from keyfob.nss.rules.rule import Rule

RULES: tuple[Rule, ...] = (
    Rule(
        id="SE1",
        title="One session is opened with the token and stays open",
        statement="NSS opens a session when it sets up a token and keeps it.",
        today="same",
        nss=(
            "Read-only, with CKF_SERIAL_SESSION; for reading and writing where ulMaxSessionCount is 1 and the token "
            "is not write-protected. pApplication and Notify are set but not needed."
        ),
        expects="Both kinds open, and the session lives until it is closed.",
        user="The token is disabled, or every operation asks for the PIN again.",
        where=("pk11wrap/pk11slot.c PK11_InitToken",),
        standard="C_OpenSession (section 5.6)",
    ),
    Rule(
        id="SE2",
        title="Many sessions are opened and closed",
        statement="The guide says that sessions are almost never closed after an operation.",
        today="gone",
        nss=(
            "Each signature, decryption, search of all and creation opens and closes a session of its own; symmetric "
            "keys keep one each, in a cache whose size follows ulMaxSessionCount (800 when that is 0, none below 20, "
            "else half)."
        ),
        expects="At least 64 sessions side by side; tens of thousands one after the other without a leak.",
        user="Signing becomes slow, or fails after hours of work.",
        where=(
            "pk11wrap/pk11obj.c PK11_SignWithMechanism",
            "pk11wrap/pk11obj.c pk11_FindObjectsByTemplate",
            "pk11wrap/pk11slot.c PK11_InitToken",
            "pk11wrap/pk11skey.c pk11_CreateSymKey",
        ),
        standard="C_OpenSession, ulMaxSessionCount (section 5.6)",
    ),
    Rule(
        id="SE3",
        title="The default session works while operations run elsewhere",
        statement="The guide says that all one-part RSA work shares one session.",
        today="changed",
        nss=(
            "The default session serves login, searches, attribute reads, random numbers, C_WrapKey and "
            "C_CopyObject. Signing, decrypting, unwrapping and deriving get a read-only session; generating, writing "
            "and PIN changes a read-write one. If none can be had, reading work falls back to the default session."
        ),
        expects=(
            "An operation on one session goes on undisturbed while another searches, reads attributes or asks for "
            "its state."
        ),
        user="Signatures fail now and then with CKR_OPERATION_ACTIVE or CKR_OPERATION_NOT_INITIALIZED.",
        where=(
            "pk11wrap/pk11obj.c PK11_SignWithMechanism",
            "pk11wrap/pk11slot.c PK11_GetRWSession",
            "pk11wrap/pk11obj.c PK11_GetAttributes",
        ),
        standard="Sessions (section 5.6)",
    ),
    Rule(
        id="SE4",
        title="Each multi-part operation has a session of its own",
        statement="NSS opens a new session for every multi-part operation.",
        today="same",
        nss="Still so; when no session can be opened, whatever the error, the default session is shared.",
        expects="Two multi-part operations on two sessions do not mix.",
        user="Data of two streams mixes: wrong digests, wrong signatures.",
        where=("pk11wrap/pk11obj.c pk11_GetNewSession", "pk11wrap/pk11cxt.c pk11_CreateNewContextInSlot"),
        standard="Sessions (section 5.6)",
    ),
    Rule(
        id="SE5",
        title="Without a session left, operation states are saved and restored",
        statement="When sessions run out NSS shares its first one by saving and restoring the state of operations.",
        today="same",
        nss=(
            "C_GetOperationState after each step and C_SetOperationState before it, for contexts without a session "
            "of their own. The end of such a context is not told to the module: a new C_...Init comes while an "
            "operation is active."
        ),
        expects=(
            "A state can be saved and set again where another operation is active; or C_GetOperationState says "
            "CKR_STATE_UNSAVEABLE or CKR_FUNCTION_NOT_SUPPORTED, and the operation fails cleanly."
        ),
        user="On tokens with one session bulk encryption fails, or worse: goes on with another stream's state.",
        where=(
            "pk11wrap/pk11cxt.c pk11_saveContextHelper",
            "pk11wrap/pk11cxt.c pk11_restoreContext",
            "pk11wrap/pk11cxt.c pk11_context_init",
            "pk11wrap/pk11cxt.c pk11_Finalize",
        ),
        standard="C_GetOperationState, C_SetOperationState (section 5.6)",
    ),
    Rule(
        id="SE6",
        title="Closing a session ends its operations and nothing else",
        statement="NSS closes the sessions of bulk operations with C_CloseSession.",
        today="same",
        nss="Everywhere, also in the middle of an operation that is given up.",
        expects="The session's operation and session objects go; other sessions go on.",
        user="A cancelled download takes another connection's key with it.",
        where=("pk11wrap/pk11obj.c pk11_CloseSession", "pk11wrap/pk11cxt.c PK11_DestroyContext"),
        standard="C_CloseSession (section 5.6)",
    ),
    Rule(
        id="SE7",
        title="C_CloseAllSessions may come at any time",
        statement="NSS may call C_CloseAllSessions when it closes a slot.",
        today="same",
        nss="At every shutdown for every slot, also for disabled ones and for slots without sessions.",
        expects="CKR_OK without a session as well.",
        user="An error or a hang at the program's end.",
        where=("pk11wrap/pk11slot.c PK11_DestroySlot",),
        standard="C_CloseAllSessions (section 5.6)",
    ),
    Rule(
        id="SE8",
        title="C_GetSessionInfo is asked often and disturbs nothing",
        statement="NSS calls C_GetSessionInfo very often.",
        today="same",
        nss=(
            "For the login state and for presence, each remembered for a second; also between C_SignInit and C_Sign "
            "of other sessions."
        ),
        expects="A cheap call without side effects, neither on an active operation nor on a context-specific login.",
        user="Keys that ask for a PIN each time cannot be used; everything is slow.",
        where=("pk11wrap/pk11auth.c PK11_IsLoggedIn", "dev/devslot.c nssSlot_IsTokenPresent"),
        standard="C_GetSessionInfo (section 5.6)",
    ),
    Rule(
        id="SE9",
        title="After removal the sessions say so",
        statement="Sessions of a removed token answer CKR_SESSION_CLOSED or CKR_SESSION_HANDLE_INVALID.",
        today="same",
        nss=(
            "Whatever C_GetSessionInfo answers but CKR_OK makes NSS close the session and take the token for gone; "
            "CKR_DEVICE_ERROR is followed by C_CloseSession."
        ),
        expects="After removal every old session answers CKR_SESSION_HANDLE_INVALID (or CKR_SESSION_CLOSED).",
        user="The program goes on with a token that is in somebody's pocket.",
        where=("dev/devslot.c nssSlot_IsTokenPresent", "pk11wrap/pk11slot.c PK11_InitToken"),
        standard="C_GetSessionInfo (section 5.6)",
    ),
    Rule(
        id="SE10",
        title="After re-insertion old sessions stay invalid",
        statement="When a token was pulled and put back, an old session answers CKR_SESSION_HANDLE_INVALID.",
        today="same",
        nss="That answer is the only way in which NSS notices a change between two looks.",
        expects="A session handle is never given out twice, so an old one never becomes valid again.",
        user="NSS believes in the old token: wrong certificates, wrong login state.",
        where=("dev/devslot.c nssSlot_IsTokenPresent", "pk11wrap/pk11slot.c pk11_IsPresentCertLoad"),
        standard="C_GetSessionInfo (section 5.6)",
    ),
    Rule(
        id="SE11",
        title="C_Login on the first session counts for all",
        statement="NSS logs in on its first session when a login is required.",
        today="same",
        nss="On the default session, read-only as it is. CKR_USER_ALREADY_LOGGED_IN is as good as CKR_OK.",
        expects="The login counts for all sessions of the token, those that are open and those to come.",
        user="A PIN prompt for each session, or private keys that are not found after the login.",
        where=("pk11wrap/pk11auth.c pk11_CheckPassword", "pk11wrap/pk11auth.c PK11_DoPassword"),
        standard="C_Login (section 5.6)",
    ),
    Rule(
        id="SE12",
        title="C_Logout when the password times out",
        statement="NSS calls C_Logout when the user set a time after which the password is asked again.",
        today="same",
        nss="Still so, by the slot's password settings.",
        expects="Every session becomes public; private objects are neither found nor read until the next login.",
        user="The time-out protects nothing.",
        where=("pk11wrap/pk11auth.c PK11_HandlePasswordCheck", "pk11wrap/pk11auth.c pk11_LoginStillRequired"),
        standard="C_Logout (section 5.6)",
    ),
    Rule(
        id="SE13",
        title="C_Logout before private key operations if the password is asked each time",
        statement='With "ask always" NSS logs out before each operation with a private key.',
        today="same",
        nss="Logout and login follow each other at once; NSS goes on with the key handle it has.",
        expects="After the next login the key works under the handle it had before.",
        user='"Ask every time" makes the second signature fail.',
        where=("pk11wrap/pk11auth.c PK11_HandlePasswordCheck",),
        standard="C_Logout (section 5.6)",
    ),
    Rule(
        id="SE14",
        title="C_Logout when the password is changed",
        statement="NSS logs out when the user changes the password.",
        today="same",
        nss="C_Logout, whose answer is not looked at (CKR_USER_NOT_LOGGED_IN is usual), then C_Login with the old PIN.",
        expects="A logout without a login does no harm.",
        user="The password cannot be changed before the first login.",
        where=("pk11wrap/pk11auth.c PK11_CheckUserPassword",),
        standard="C_Logout (section 5.6)",
    ),
    Rule(
        id="SE15",
        title="C_Logout when the user logs out",
        statement="NSS logs out when the user asks for it.",
        today="same",
        nss='Firefox\'s "Log out" for one token, and for all tokens at once.',
        expects="CKR_OK; the state of every session is public at once.",
        user='"Log out" leaves the keys usable for the next person.',
        where=("pk11wrap/pk11auth.c PK11_Logout", "pk11wrap/pk11auth.c PK11_LogoutAll"),
        standard="C_Logout (section 5.6)",
    ),
)
