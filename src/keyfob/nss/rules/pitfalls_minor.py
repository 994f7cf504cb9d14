"""Pitfalls that are met less often: one feature broken, or an annoyance."""

from __future__ import annotations

from keyfob.nss.rules.rule import Rule

RULES: tuple[Rule, ...] = (
    Rule(
        id="P23",
        title="Searches that stop early or fail",
        statement=(
            "C_FindObjects gives fewer than it was asked for while there are more, C_FindObjectsFinal fails, or "
            "unknown classes are errors."
        ),
        nss=(
            "Fewer than asked means the end. Unknown classes and attributes in a template are usual; only some "
            "errors are tolerated."
        ),
        expects=(
            "Full batches until the last; CKR_OK and no hits for classes and attributes that the module does not know."
        ),
        user="Certificates are missing from lists, or all listing fails because of one token.",
        where=("dev/devtoken.c find_objects", "pk11wrap/pk11obj.c pk11_FindObjectsByTemplate"),
        standard="C_FindObjects (section 5.7)",
        severity="B",
    ),
    Rule(
        id="P24",
        title="One missing attribute spoils the others",
        statement="C_GetAttributeValue stops at the first attribute that the object does not have.",
        nss="Several are asked at once, some of them optional; each must be answered for itself.",
        expects="All are processed; a missing one has the length -1 and the code tells of it.",
        user="Certificates without a label are invisible.",
        where=("dev/ckhelper.c nssCKObject_GetAttributes",),
        standard="C_GetAttributeValue (section 5.7)",
        severity="B",
    ),
    Rule(
        id="P25",
        title="Handles that change",
        statement="Handles differ between sessions, change with a login, or are used again for other objects.",
        nss="NSS keeps handles of certificates that it saw before the login, and uses them in any session.",
        expects="One handle for an object in the whole process, never given to another object.",
        user="The wrong certificate is deleted, the wrong key signs.",
        where=("dev/devutil.c nssCryptokiObject_Create", "dev/devutil.c nssCryptokiObject_Equal"),
        standard="Object handles",
        severity="B",
    ),
    Rule(
        id="P26",
        title="A number of sessions that is not true",
        statement="ulMaxSessionCount promises more sessions than can be opened.",
        nss=(
            "It sizes NSS's cache of sessions; 1 makes NSS work with one read-write session; read-write work without "
            "a session fails."
        ),
        expects="An honest number, 16 at least, or 1.",
        user="Key generation and imports fail when the program is busy.",
        where=("pk11wrap/pk11slot.c PK11_InitToken", "pk11wrap/pk11slot.c PK11_GetRWSession"),
        standard="CK_TOKEN_INFO (section 3.3)",
        severity="B",
    ),
    Rule(
        id="P27",
        title="Random numbers that are slow",
        statement="C_GenerateRandom blocks or fails while the token is set up.",
        nss="With CKF_RNG 32 bytes are asked for at each insertion, on the thread that set it up.",
        expects="CKF_RNG is set only where 32 bytes come at once.",
        user="Firefox freezes when the token is plugged in.",
        where=("pk11wrap/pk11slot.c PK11_InitToken",),
        standard="C_GenerateRandom (section 5.19)",
        severity="B",
    ),
    Rule(
        id="P28",
        title="A wait for slot events that nobody can end",
        statement="C_WaitForSlotEvent blocks on although the library was ended.",
        nss="NSS ends the wait by C_Finalize from another thread, and initialises again.",
        expects="The waiting call returns CKR_CRYPTOKI_NOT_INITIALIZED; or waiting is not supported and NSS polls.",
        user="The program does not end.",
        where=(
            "pk11wrap/pk11util.c SECMOD_CancelWait",
            "pk11wrap/pk11util.c SECMOD_WaitForAnyTokenEvent",
            "pk11wrap/pk11util.c secmod_HandleWaitForSlotEvent",
        ),
        standard="C_WaitForSlotEvent (section 5.5)",
        severity="B",
    ),
    Rule(
        id="P29",
        title="Calls in the middle of an operation",
        statement="Calls on other sessions disturb an operation between its C_SignInit and C_Sign.",
        nss="NSS reads CKA_ALWAYS_AUTHENTICATE on the default session and asks for states in that very moment.",
        expects="The state of an operation belongs to its session alone.",
        user="Signing with keys that ask for their PIN fails.",
        where=("pk11wrap/pk11obj.c PK11_SignWithMechanism",),
        standard="Sessions (section 5.6)",
        severity="B",
    ),
    Rule(
        id="P30",
        title='A flag that says "no login" and keys that need one',
        statement="CKF_LOGIN_REQUIRED is clear and private keys are hidden all the same.",
        nss="Without the flag NSS never asks for a PIN.",
        expects="Flag and behaviour agree.",
        user='Certificates lose their "u" and nothing asks for the PIN.',
        where=("pk11wrap/pk11auth.c PK11_IsLoggedIn", "dev/devtoken.c nssToken_IsPrivateKeyAvailable"),
        standard="CKF_LOGIN_REQUIRED (section 3.3)",
        severity="C",
    ),
    Rule(
        id="P31",
        title="A PIN pad: C_Login without a PIN",
        statement="C_Login with a NULL PIN is refused although the token has a protected authentication path.",
        nss="With the flag set NSS calls C_Login(NULL, 0); the call may last while other sessions go on.",
        expects="With the flag NULL is accepted and the PIN is asked for elsewhere; without it CKR_ARGUMENTS_BAD.",
        user="Tokens with a PIN pad cannot be used.",
        where=("pk11wrap/pk11auth.c pk11_CheckPassword", "pk11wrap/pk11auth.c PK11_DoPassword"),
        standard="CKF_PROTECTED_AUTHENTICATION_PATH (section 3.3)",
        severity="C",
    ),
    Rule(
        id="P32",
        title="One label for certificates of different subjects",
        statement="Two certificates with different subjects have the same label, or one has none.",
        nss=(
            "NSS's cache has one subject for each nickname: the second certificate may be lost. Without a label "
            "there is no nickname."
        ),
        expects="Software that fills tokens gives labels, and different ones.",
        user="A certificate cannot be named or vanishes from the list.",
        where=("pki/tdcache.c add_nickname_entry",),
        standard="CKA_LABEL",
        severity="C",
    ),
    Rule(
        id="P33",
        title="Two encodings of EC points",
        statement="Points come raw and as DER OCTET STRING.",
        nss="DER on public keys, raw on private keys from PKCS #12; searches use the raw form.",
        expects="Both are accepted, both are found; DER is given out.",
        user="EC keys are not recognised as the user's own.",
        where=(
            "pk11wrap/pk11pk12.c PK11_ImportAndReturnPrivateKey",
            "pk11wrap/pk11cert.c PK11_IsUserCert",
            "pk11wrap/pk11akey.c pk11_get_Decoded_ECPoint",
        ),
        standard="CKA_EC_POINT (section 6.3)",
        severity="C",
    ),
    Rule(
        id="P34",
        title="The same public key twice",
        statement="A module refuses a public key that exists already.",
        nss="An import creates the same public key twice.",
        expects="A second one is stored, or answered with CKR_OK.",
        user="Error messages during an import that worked.",
        where=(
            "pk11wrap/pk11akey.c PK11_ImportPublicKey",
            "pk11wrap/pk11akey.c PK11_ImportEncryptedPrivateKeyInfoAndReturnKey",
        ),
        standard="C_CreateObject (section 5.7)",
        severity="C",
    ),
    Rule(
        id="P35",
        title="CKF_HW_SLOT on software",
        statement="A software token claims to be hardware.",
        nss="NSS then searches in a small cache of its own instead of asking.",
        expects="Software leaves CKF_HW_SLOT clear.",
        user="Only some certificates are found, trust never.",
        where=("dev/devutil.c nssTokenObjectCache_Create", "pk11wrap/pk11slot.c PK11_InitSlot"),
        standard="CKF_HW_SLOT (section 3.3)",
        severity="C",
    ),
    Rule(
        id="P36",
        title="Slot IDs and descriptions that change",
        statement="Slots get other IDs or descriptions in the next run, or share a description.",
        nss="Settings of a slot are kept under its ID; modutil -enable and -disable name it by its description.",
        expects="IDs stay from run to run; descriptions are unique.",
        user="A disabled slot comes back, default settings hit another token.",
        where=("pk11wrap/pk11pars.c secmod_mkModuleSpec", "cmd/modutil/pk11.c EnableModule"),
        standard="C_GetSlotList, C_GetSlotInfo (section 5.5)",
        severity="C",
    ),
    Rule(
        id="P37",
        title="Handle 0 and handles from nowhere",
        statement="Invalid handles crash the module.",
        nss="After failed re-initialisations calls come with the session handle 0.",
        expects="CKR_SESSION_HANDLE_INVALID and CKR_OBJECT_HANDLE_INVALID; 0 is never given out.",
        user="The browser crashes.",
        where=("pk11wrap/pk11slot.c PK11_InitToken", "pk11wrap/pk11obj.c PK11_GetAttributes"),
        standard="CKR_SESSION_HANDLE_INVALID",
        severity="C",
    ),
    Rule(
        id="P38",
        title="Public keys that are left behind",
        statement="Public keys outlive their private keys.",
        nss="certutil -F -k removes the private key only, -F -n one of two public keys.",
        expects="Orphans do no harm, and a new key with the same ID works.",
        user="Old public keys make certificates look like the user's own.",
        where=("pk11wrap/pk11cert.c PK11_DeleteTokenCertAndKey", "cmd/certutil/certutil.c DeleteKey"),
        standard="C_DestroyObject (section 5.7)",
        severity="C",
    ),
    Rule(
        id="P39",
        title="Processes that fork",
        statement="A forked child uses what the parent initialised, or the parent's locks.",
        nss=(
            "SECMOD_RestartModules looks with C_GetSlotList whether the module still works and otherwise ends and "
            "initialises it anew."
        ),
        expects="The child gets CKR_CRYPTOKI_NOT_INITIALIZED and may initialise for itself; the parent goes on.",
        user="Servers with several processes hang or damage the token.",
        where=("pk11wrap/pk11util.c SECMOD_RestartModules",),
        standard="C_Initialize (section 5.4)",
        severity="C",
    ),
    Rule(
        id="P40",
        title="Text fields with NULs or too long",
        statement="Fixed text fields are not padded with blanks, or overrun.",
        nss="Programs print them by their fixed size; modutil -list was seen to crash.",
        expects="Blank padded to the exact size, no NUL, UTF-8 not cut in the middle of a character.",
        user="Rubbish on the screen or a crash.",
        where=("pk11wrap/pk11slot.c PK11_MakeString", "cmd/modutil/pk11.c ListModule"),
        standard="CK_INFO, CK_SLOT_INFO, CK_TOKEN_INFO (section 3)",
        severity="C",
    ),
)
