"""Slots and tokens: lists, information, flags, mechanisms, PINs."""

from __future__ import annotations

from keyfob.nss.rules.rule import Rule

RULES: tuple[Rule, ...] = (
    Rule(
        id="S1",
        title="All slots are listed once, when the module is loaded",
        statement="NSS asks C_GetSlotList for all slots, present token or not, and keeps the list.",
        today="same",
        nss="C_GetSlotList(CK_FALSE, NULL), then the same with a buffer. A failure of the second call fails the load.",
        expects="The two calls give the same number; slots without a token are in the list.",
        user="The module does not load, or slots that get a token later are never seen.",
        where=("pk11wrap/pk11load.c secmod_InitializeModuleAndGetSlotInfo",),
        standard="C_GetSlotList (section 5.5)",
    ),
    Rule(
        id="S2",
        title="The list of slots never becomes shorter",
        statement="The guide takes the number of slots for fixed while the program runs.",
        today="changed",
        nss=(
            "The list may grow: NSS lists anew and appends unknown IDs. A list that became shorter is an error "
            "(SEC_ERROR_INCOMPATIBLE_PKCS11). Firefox lists anew before client authentication when a module has "
            "removable slots."
        ),
        expects="Each listing holds every ID of the earlier ones.",
        user="The module is taken for incompatible; newly plugged readers do not appear.",
        where=("pk11wrap/pk11util.c SECMOD_UpdateSlotList",),
        standard="C_GetSlotList (section 5.5)",
    ),
    Rule(
        id="S3",
        title="C_GetSlotInfo answers for every slot",
        statement="NSS reads C_GetSlotInfo on loading and shows it.",
        today="same",
        nss="Read once for each slot when it is set up; a failure disables the slot.",
        expects="CKR_OK and a blank-padded description for every listed ID.",
        user="The slot is missing in modutil -list and in Firefox's Security Devices.",
        where=("pk11wrap/pk11slot.c PK11_InitSlot",),
        standard="C_GetSlotInfo (section 5.5)",
    ),
    Rule(
        id="S4",
        title="A removable slot is asked for its token again and again",
        statement="For removable slots NSS calls C_GetSlotInfo whenever it looks for tokens.",
        today="same",
        nss=(
            "At most once a second for each slot. When the token is present C_GetSessionInfo on NSS's own session "
            "follows, to find out whether it is still the same token."
        ),
        expects="CKF_TOKEN_PRESENT tells in the next call whether the token is there.",
        user="A token that was pulled out stays in the list, or one that was put in never appears.",
        where=("pk11wrap/pk11slot.c pk11_IsPresentCertLoad", "dev/devslot.c nssSlot_IsTokenPresent"),
        standard="C_GetSlotInfo, CKF_REMOVABLE_DEVICE (section 5.5)",
    ),
    Rule(
        id="S5",
        title="A slot that is not removable is not asked again",
        statement="What a slot without the removable flag said on loading holds until the end.",
        today="same",
        nss="Such a slot counts as present from its initialisation to the end of the process.",
        expects=(
            "A token that can go away sits in a slot with CKF_REMOVABLE_DEVICE; one in a permanent slot never vanishes."
        ),
        user="Calls on a vanished token fail with errors that no program can explain.",
        where=("dev/devslot.c nssSlot_IsTokenPresent",),
        standard="CKF_REMOVABLE_DEVICE (section 3.3)",
    ),
    Rule(
        id="S6",
        title="A permanent slot without a token is never used",
        statement="A slot that is neither removable nor has its token present is bad.",
        today="same",
        nss=(
            'It is disabled for the whole process, as is one whose token cannot be set up ("could not initialize '
            'token"), for example because C_OpenSession fails on an uninitialised token.'
        ),
        expects=(
            "Every slot without CKF_REMOVABLE_DEVICE has CKF_TOKEN_PRESENT, and a read-only session can be opened on "
            "it."
        ),
        user="The slot is DISABLED in modutil -list, until restart.",
        where=("pk11wrap/pk11slot.c PK11_InitSlot", "pk11wrap/pk11slot.c PK11_InitToken"),
        standard="CKF_TOKEN_PRESENT (section 3.3)",
    ),
    Rule(
        id="S7",
        title="CKF_HW_SLOT must not change what is found",
        statement="The guide says that NSS ignores CKF_HW_SLOT.",
        today="changed",
        nss=(
            "The flag selects NSS's cache of token objects for certificates, trust and CRLs, which holds few objects "
            "and answers searches on its own."
        ),
        expects="Certificates are found the same with and without the flag; software leaves it clear.",
        user=(
            'With more than a handful of certificates on a "hardware" slot some are not found; trust settings are '
            "never seen."
        ),
        where=(
            "pk11wrap/pk11slot.c PK11_InitSlot",
            "dev/devutil.c nssTokenObjectCache_Create",
            "dev/devutil.c search_for_objects",
        ),
        standard="CKF_HW_SLOT (section 3.3)",
    ),
    Rule(
        id="S8",
        title="C_GetTokenInfo may be called at any time and is up to date",
        statement="The guide says that token information is read only on loading for permanent tokens.",
        today="changed",
        nss=(
            "Read again while the user PIN is not initialised, after C_InitPIN, C_SetPIN and C_InitToken, and by "
            "every page that shows a token."
        ),
        expects="A cheap call whose flags are those of this moment.",
        user='A token stays "uninitialised" after its PIN was set; PIN dialogs show the wrong choice.',
        where=(
            "pk11wrap/pk11slot.c PK11_NeedUserInit",
            "pk11wrap/pk11slot.c PK11_InitToken",
            "pk11wrap/pk11slot.c PK11_GetTokenInfo",
        ),
        standard="C_GetTokenInfo (section 5.5)",
    ),
    Rule(
        id="S9",
        title="After an insertion the token's information is read anew",
        statement="For removable slots NSS calls C_GetTokenInfo at any time.",
        today="same",
        nss=(
            "With each insertion the whole set-up runs again: information, mechanisms, default session, profiles; "
            "caches are emptied."
        ),
        expects="Label, flags and serial number are those of the token that is in the slot now.",
        user="The new token works under the old one's name, or its PIN is asked for the wrong one.",
        where=("pk11wrap/pk11slot.c PK11_InitToken", "pk11wrap/pk11slot.c pk11_IsPresentCertLoad"),
        standard="C_GetTokenInfo (section 5.5)",
    ),
    Rule(
        id="S10",
        title="The token's label is its name",
        statement="The label of CK_TOKEN_INFO names the token to the user and to programs.",
        today="same",
        nss=(
            'Trailing blanks are cut off (NULs are not). The name is used in "token:nickname", compared exactly '
            "when a slot is looked up, and is part of PKCS #11 URIs."
        ),
        expects="A label that is not empty, unique in the process, blank padded, without NUL and without a colon.",
        user="certutil -h NAME does not find the token, or finds another one.",
        where=("pk11wrap/pk11slot.c PK11_InitToken", "pk11wrap/pk11slot.c PK11_FindSlotByName"),
        standard="CK_TOKEN_INFO (section 3.3)",
    ),
    Rule(
        id="S11",
        title="A write-protected token is not written to",
        statement="The guide says that keys are not generated on a token with CKF_WRITE_PROTECTED.",
        today="changed",
        nss=(
            "The flag only filters lists of tokens and keeps NSS from using one read-write session for all. A tool "
            "that names the token tries all the same."
        ),
        expects="With the flag set, C_OpenSession for reading and writing answers CKR_TOKEN_WRITE_PROTECTED.",
        user=(
            "A key pair is lost in the middle of its making, or the token is changed against the administrator's will."
        ),
        where=("pk11wrap/pk11slot.c PK11_InitToken", "pk11wrap/pk11slot.c PK11_GetAllTokens"),
        standard="CKF_WRITE_PROTECTED, C_OpenSession (section 5.6)",
    ),
    Rule(
        id="S12",
        title="No login required, no user PIN: general access",
        statement="Without LOGIN_REQUIRED and USER_PIN_INITIALIZED the token is used without asking for a PIN.",
        today="same",
        nss=(
            "NSS never calls C_Login there, takes the user for logged in and looks for private keys to tell its own "
            "certificates."
        ),
        expects="Private keys are found and used without a login.",
        user="Certificates show as somebody else's: nothing can be signed and no prompt ever comes.",
        where=("pk11wrap/pk11auth.c PK11_IsLoggedIn", "dev/devtoken.c nssToken_IsPrivateKeyAvailable"),
        standard="CK_TOKEN_INFO flags (section 3.3)",
    ),
    Rule(
        id="S13",
        title="Login required, no user PIN: uninitialised; the first PIN is set by C_InitPIN",
        statement=(
            "A token with LOGIN_REQUIRED but without USER_PIN_INITIALIZED is initialised when a key is to be "
            "generated or a PIN is set; the flag must be set afterwards."
        ),
        today="changed",
        nss=(
            "Any other use that needs a login fails with SEC_ERROR_IO. Tools that set the PIN open a read-write "
            "session beside NSS's read-only one, call C_Login as SO with an empty PIN, C_InitPIN, C_Logout, read the "
            "token's information again and log the user in."
        ),
        expects="That sequence works beside the open read-only session; USER_PIN_INITIALIZED is set afterwards.",
        user="No tool of NSS, nor Firefox, can set the first PIN of the token.",
        where=(
            "pk11wrap/pk11auth.c PK11_InitPin",
            "pk11wrap/pk11auth.c PK11_DoPassword",
            "pk11wrap/pk11slot.c PK11_NeedUserInit",
        ),
        standard="C_InitPIN (section 5.5)",
    ),
    Rule(
        id="S14",
        title="No login required, user PIN set: general access with a PIN to come",
        statement=(
            "A token without LOGIN_REQUIRED but with USER_PIN_INITIALIZED gives general access; C_SetPIN makes "
            "LOGIN_REQUIRED true. Only NSS's own token is like that."
        ),
        today="same",
        nss=(
            "Still so: an NSS database without a password is in this state. modutil -changepw reaches C_SetPIN for "
            "other tokens too."
        ),
        expects="After C_SetPIN gives it a PIN the token reports LOGIN_REQUIRED and asks for it.",
        user="A password that the user set protects nothing.",
        where=("pk11wrap/pk11auth.c PK11_ChangePW", "cmd/modutil/pk11.c ChangePW"),
        standard="C_SetPIN (section 5.5)",
    ),
    Rule(
        id="S15",
        title="Login required and user PIN set: the user is asked when not logged in",
        statement="With both flags set NSS looks whether the user is logged in, and asks for the PIN otherwise.",
        today="same",
        nss="C_GetSessionInfo tells the state on the default session; then C_Login follows there.",
        expects="The session's state follows the login, on every session of the token.",
        user="Prompts that never end, or a signature that fails without a prompt.",
        where=("pk11wrap/pk11auth.c PK11_DoPassword", "pk11wrap/pk11auth.c PK11_IsLoggedIn"),
        standard="C_Login, C_GetSessionInfo (section 5.6)",
    ),
    Rule(
        id="S16",
        title="The list of mechanisms is complete and stable",
        statement="The guide says that C_GetMechanismList is called fairly often.",
        today="changed",
        nss=(
            "Two calls, without and with a buffer, at each set-up of the token; the list is then kept. A failure of "
            "the first call disables the token."
        ),
        expects="Both calls agree, and the list holds just the mechanisms that C_GetMechanismInfo knows.",
        user="The token cannot be used, or NSS does in software what the token could do.",
        where=("pk11wrap/pk11slot.c PK11_ReadMechanismList", "pk11wrap/pk11slot.c PK11_DoesMechanism"),
        standard="C_GetMechanismList (section 5.5)",
    ),
    Rule(
        id="S17",
        title="C_GetMechanismInfo decides what a key is used for",
        statement="The guide says that C_GetMechanismInfo is not called.",
        today="gone",
        nss=(
            "Called before key generation, before combined signatures, for unwrapping, key sizes and messages, also "
            'for mechanisms that the list does not hold. An error means "cannot".'
        ),
        expects="True flags for every listed mechanism, CKR_MECHANISM_INVALID for every other.",
        user="Keys are generated with the wrong usages; signatures fail with mechanisms that the token claimed.",
        where=(
            "pk11wrap/pk11akey.c PK11_GenerateKeyPairWithOpFlags",
            "cryptohi/secsign.c sgn_CreateCombinedContext",
            "pk11wrap/pk11slot.c pk11_filterSlot",
            "pk11wrap/pk11skey.c pk11_AnyUnwrapKey",
        ),
        standard="C_GetMechanismInfo (section 5.5)",
    ),
    Rule(
        id="S18",
        title="C_InitToken works when no session is open",
        statement="The guide says that C_InitToken is never called.",
        today="gone",
        nss=(
            "certutil -T closes all sessions, calls C_InitToken with the SO PIN and a 32-byte label, and sets the "
            "token up again. With CKF_RNG the tool then waits for itself, in NSS."
        ),
        expects="With all sessions closed the token is emptied and keeps the label that it was given.",
        user="A token cannot be reset with NSS's tools.",
        where=("pk11wrap/pk11slot.c PK11_ResetToken",),
        standard="C_InitToken (section 5.5)",
    ),
    Rule(
        id="S19",
        title="C_InitPIN serves whoever sets the first password",
        statement="The guide says that C_InitPIN is called only when a key is generated.",
        today="changed",
        nss='Also by certutil -N and -W, modutil -changepw, pk12util and Firefox\'s "set password".',
        expects="C_InitPIN works for an SO that logged in as rule S13 describes.",
        user='"Change Password" in Firefox fails for a fresh token.',
        where=("pk11wrap/pk11auth.c PK11_InitPin", "cmd/modutil/pk11.c ChangePW", "cmd/lib/secutil.c SECU_ChangePW2"),
        standard="C_InitPIN (section 5.5)",
    ),
    Rule(
        id="S20",
        title="C_SetPIN changes the user's PIN",
        statement="The guide says that C_SetPIN is called only in key generation, for tokens in the state of S14.",
        today="wrong",
        nss=(
            "It changes the user PIN: C_Logout, C_Login on the default session, then C_SetPIN on a read-write "
            "session of its own; the token's information is read again."
        ),
        expects=(
            "C_SetPIN works on a session other than the one that logged in; the user stays logged in, the old PIN is "
            "refused from then on."
        ),
        user="The password cannot be changed, or the user is thrown out by changing it.",
        where=("pk11wrap/pk11auth.c PK11_ChangePW", "pk11wrap/pk11auth.c PK11_CheckUserPassword"),
        standard="C_SetPIN (section 5.5)",
    ),
)
