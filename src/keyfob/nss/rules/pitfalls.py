"""Pitfalls: what makes modules fail with NSS, the severe ones first."""

from __future__ import annotations

from keyfob.nss.rules.rule import Rule

RULES: tuple[Rule, ...] = (
    Rule(
        id="P1",
        title="The RSA template of NSS 3.116 to 3.124",
        statement=(
            "NSS 3.116 to 3.124 create an RSA private key with CKA_DECAPSULATE = false and with TOKEN and PRIVATE "
            "twice, first false, then true."
        ),
        nss=(
            "22 attributes instead of 19, after a failed unwrap and where the token cannot generate. EC keys are not "
            "affected; 3.87 sends 19."
        ),
        expects=(
            "Unwrap private keys, so that the template is not needed; take CKA_DECAPSULATE when it is false; of "
            "TOKEN and PRIVATE, which come twice, the last counts."
        ),
        user='"Unable to import": no RSA key of a PKCS #12 file gets onto the token.',
        where=("pk11wrap/pk11akey.c pk11_loadPrivKeyWithFlags",),
        standard="C_CreateObject (section 5.7)",
        severity="A",
    ),
    Rule(
        id="P2",
        title="C_CopyObject without a template",
        statement="A TLS server copies an RSA key with no template: pTemplate NULL and ulCount 0.",
        nss="The failure is fatal to the server (SEC_ERROR_NO_MEMORY).",
        expects="NULL with the count 0 is an empty template, wherever a template may be empty.",
        user="The server does not start with a key on the token.",
        where=("cryptohi/seckey.c SECKEY_CopyPrivateKey", "ssl/sslcert.c ssl_MakeKeyPairForCert"),
        standard="C_CopyObject (section 5.7)",
        severity="A",
    ),
    Rule(
        id="P3",
        title="A certificate that does not find its key is not offered",
        statement=(
            "A certificate lacks the key's CKA_ID, or issuer, serial number or value, or is private, or its public "
            "key is not on the token."
        ),
        nss=(
            "Certificates without those attributes are dropped; before a login a public key with the certificate's "
            "ID makes it the user's own."
        ),
        expects=(
            "Missing ISSUER, SERIAL_NUMBER, SUBJECT and ID are filled in from VALUE; certificates and public keys "
            "are public."
        ),
        user="The certificate does not show, or not when a server asks for one.",
        where=(
            "dev/devtoken.c nssToken_IsPrivateKeyAvailable",
            "pki/certificate.c nssCertificate_Create",
            "pk11wrap/pk11obj.c PK11_MatchItem",
        ),
        standard="X.509 certificate objects",
        severity="A",
    ),
    Rule(
        id="P4",
        title="TLS 1.3 needs the plain CKM_RSA_PKCS_PSS",
        statement="A token lists the PSS mechanisms that hash and sign and not the plain one.",
        nss="TLS offers RSA-PSS only if the token's list holds CKM_RSA_PKCS_PSS.",
        expects=(
            "CKM_RSA_PKCS_PSS is listed and signs a given hash with SHA-256, SHA-384 and SHA-512, salt as long as "
            "the hash."
        ),
        user="No client certificate in TLS 1.3; the handshake fails.",
        where=("ssl/ssl3con.c ssl_PrivateKeySupportsRsaPss",),
        standard="C_GetMechanismList (section 5.5)",
        severity="A",
    ),
    Rule(
        id="P5",
        title="Keys that ask each time, and the mechanisms that hash and sign",
        statement="A key with CKA_ALWAYS_AUTHENTICATE meets a combined mechanism.",
        nss=(
            "The streaming way of newer NSS (TLS 1.3, from 3.101 on) never asks for the PIN again for such a key; "
            "the one-shot way does."
        ),
        expects=(
            "With such keys the combined mechanisms do not claim CKF_SIGN, or they accept a recent login; the plain "
            "ones always ask."
        ),
        user="TLS 1.3 fails with SEC_ERROR_TOKEN_NOT_LOGGED_IN, TLS 1.2 works.",
        where=(
            "cryptohi/secsign.c sgn_CreateCombinedContext",
            "ssl/tls13signature.c tls_CreateSignOrVerifyContext",
            "pk11wrap/pk11obj.c PK11_SignWithMechanism",
        ),
        standard="CKA_ALWAYS_AUTHENTICATE, C_Login (section 5.6)",
        severity="A",
    ),
    Rule(
        id="P6",
        title="The first PIN of a token is set beside a read-only session, by an SO without a PIN",
        statement="The standard forbids an SO login beside read-only sessions, and NSS does it with an empty PIN.",
        nss=(
            'C_OpenSession(read-write), C_Login(SO, ""), C_InitPIN, C_Logout, while the read-only default session '
            "stays open."
        ),
        expects="Both are allowed as long as the token has no user PIN; or the token comes with its PIN set.",
        user="certutil, modutil and Firefox cannot set the password of a new token.",
        where=("pk11wrap/pk11auth.c PK11_InitPin",),
        standard="C_Login, C_InitPIN (sections 5.5 and 5.6)",
        severity="A",
    ),
    Rule(
        id="P7",
        title="A PIN prompt for every look at certificates",
        statement="A token that does not say that its certificates are public is asked for its PIN at every listing.",
        nss=(
            'CKO_PROFILE with CKP_PUBLIC_CERTIFICATES_TOKEN, readable before login, makes it "friendly"; otherwise '
            "each TLS client authentication in Firefox prompts for every token."
        ),
        expects=(
            "The profile object exists when certificates are public; CKF_LOGIN_REQUIRED is clear where a login has "
            "no meaning."
        ),
        user='Prompts for tokens that the user does not want to use; after a "Cancel" certificates are missing.',
        where=(
            "pk11wrap/pk11slot.c pk11_ReadProfileList",
            "pk11wrap/pk11slot.c PK11_IsFriendly",
            "pk11wrap/pk11auth.c pk11_AuthenticateUnfriendly",
        ),
        standard="Profile objects",
        severity="A",
    ),
    Rule(
        id="P8",
        title="C_GetInterface that fails for what NSS asks",
        statement=(
            'C_GetInterface is exported and fails for "PKCS 11" without a version, or gives a vendor\'s interface, '
            "or a list that is shorter than its version says."
        ),
        nss=(
            "First with CKF_INTERFACE_FORK_SAFE, then with flags 0; if that fails the library is unloaded. There is "
            "no way back to C_GetFunctionList."
        ),
        expects=(
            'The interface "PKCS 11" for flags 0, with a list of the length that its version promises; FORK_SAFE '
            "may be refused."
        ),
        user="The module does not load, or the program crashes in a function that the list does not hold.",
        where=("pk11wrap/pk11load.c secmod_DetermineModuleFunctionList", "pk11wrap/pk11skey.c PK11_Encapsulate"),
        standard="C_GetInterface (section 5.4)",
        severity="A",
    ),
    Rule(
        id="P9",
        title="C_Initialize that refuses NSS's flags or comes twice at once",
        statement="A module refuses flags 3 or mutex callbacks, or falls over when two threads initialise it.",
        nss=(
            "Any error leads to one retry without callbacks and to one thread for the module. Firefox was seen to "
            "call C_Initialize from two threads."
        ),
        expects=(
            "Flags 3 with callbacks is CKR_OK; of several calls at once one gets CKR_OK, the others "
            "CKR_CRYPTOKI_ALREADY_INITIALIZED."
        ),
        user="TLS with many connections crawls; now and then the module is missing, or the program crashes.",
        where=("pk11wrap/pk11load.c secmod_ModuleInit",),
        standard="C_Initialize (section 5.4)",
        severity="A",
    ),
    Rule(
        id="P10",
        title="An error while a token is set up disables its slot",
        statement="A slot fails C_OpenSession or C_GetMechanismList, often because its token is not initialised yet.",
        nss="The slot is disabled until the program restarts.",
        expects="An uninitialised token can be opened and searched; it has no objects.",
        user='"could not initialize token": the new token cannot be given a PIN.',
        where=("pk11wrap/pk11slot.c PK11_InitToken", "pk11wrap/pk11slot.c PK11_InitSlot"),
        standard="C_OpenSession, C_GetMechanismList (sections 5.5 and 5.6)",
        severity="A",
    ),
    Rule(
        id="P11",
        title="A login that only one session knows of",
        statement="The login state differs between sessions or is out of date.",
        nss="NSS logs in on one session, works on others and asks a third for the state.",
        expects="One login for the token in the process; every session's state changes in the same moment.",
        user="PIN prompts without end.",
        where=("pk11wrap/pk11auth.c PK11_IsLoggedIn", "pk11wrap/pk11auth.c PK11_DoPassword"),
        standard="C_Login, C_GetSessionInfo (section 5.6)",
        severity="A",
    ),
    Rule(
        id="P12",
        title="Session keys whose template names the wrong usage",
        statement="NSS creates keys with one usage and uses them for another.",
        nss=(
            "A derived key with nothing but CKA_WRAP then unwraps; an unwrapped one with nothing but CKA_UNWRAP then "
            "decrypts."
        ),
        expects="Usages that the template does not name are true for secret session keys.",
        user="CKR_KEY_FUNCTION_NOT_PERMITTED while opening EC-encrypted mail.",
        where=("pk11wrap/pk11skey.c pk11_AnyUnwrapKey", "pk11wrap/pk11skey.c pk11_PubDeriveECKeyWithKDF"),
        standard="Secret key objects",
        severity="B",
    ),
    Rule(
        id="P13",
        title="Mail to EC keys needs every key derivation function",
        statement="CKM_ECDH1_DERIVE knows CKD_NULL only, or no shared info, or one encoding of the point.",
        nss=(
            "CKD_SHA1_KDF to CKD_SHA512_KDF with shared info; the point raw first, then as DER. The fallback in "
            "software does not come about for mail."
        ),
        expects="All functions, shared info of any length, both encodings.",
        user="Mail that was encrypted to an EC certificate cannot be opened.",
        where=("pk11wrap/pk11skey.c pk11_PubDeriveECKeyWithKDF", "smime/cmspubkey.c NSS_CMSUtil_DecryptSymKey_ECDH"),
        standard="CKM_ECDH1_DERIVE (section 6.3)",
        severity="B",
    ),
    Rule(
        id="P14",
        title="OAEP with more than SHA-1",
        statement="OAEP is limited to SHA-1, or refuses a NULL source.",
        nss="Parameters come from the message: SHA-1 to SHA-512 for hash and MGF1, source 1 with NULL data.",
        expects="Every combination of those hashes; pSourceData NULL with the length 0.",
        user="Mail with OAEP cannot be opened.",
        where=("smime/cmspubkey.c NSS_CMSUtil_DecryptSymKey_RSA_OAEP", "pk11wrap/pk11skey.c pk11_AnyUnwrapKey"),
        standard="CKM_RSA_PKCS_OAEP (section 6.1)",
        severity="B",
    ),
    Rule(
        id="P15",
        title="Exporting a key",
        statement=(
            "Keys cannot be exported: not extractable by default, or no padding wrap, or only with a key of type "
            "AES, or only in a read-write session."
        ),
        nss=(
            "pk12util -o creates a wrapping key of type GENERIC_SECRET and calls C_WrapKey with AES-CBC-PAD on the "
            "read-only default session; there is no fallback."
        ),
        expects=(
            "That works for extractable keys, wrapping keys of 16, 24 and 32 bytes count as AES keys; the manual "
            "tells which keys are extractable."
        ),
        user="No backup of a key that may be backed up.",
        where=("pk11wrap/pk11akey.c PK11_ExportEncryptedPrivKeyInfoV2",),
        standard="C_WrapKey (section 5.18)",
        severity="B",
    ),
    Rule(
        id="P16",
        title="Trust settings that get lost",
        statement="Trust objects are accepted and kept twice, or refused with an error that loses them.",
        nss=(
            "Each change of trust creates a new object; nothing is searched, changed or destroyed. The first that is "
            "found counts."
        ),
        expects=(
            "A trust object replaces the one with its issuer and serial number; or it is refused cleanly and NSS "
            "keeps it in its own database."
        ),
        user='"Edit trust" has no effect.',
        where=("pki/pki3hack.c STAN_ChangeCertTrust", "dev/devtoken.c nssToken_ImportTrust"),
        standard="Trust objects",
        severity="B",
    ),
    Rule(
        id="P17",
        title="Labels that NSS cannot name",
        statement="A token's label holds a colon or NULs, or two tokens share one.",
        nss='"token:nickname" is split at the first colon; tokens are found by the exact name.',
        expects="Labels without colon and NUL, blank padded, unique.",
        user="certutil -n TOKEN:NAME finds nothing.",
        where=("pk11wrap/pk11slot.c PK11_InitToken", "pk11wrap/pk11slot.c PK11_FindSlotByName"),
        standard="CK_TOKEN_INFO (section 3.3)",
        severity="B",
    ),
    Rule(
        id="P18",
        title="A certificate that is stored without a login",
        statement=(
            "C_CreateObject of a public certificate without a login answers something other than CKR_OK or "
            "CKR_USER_NOT_LOGGED_IN."
        ),
        nss="certutil -A tries without a login; CKR_USER_NOT_LOGGED_IN alone makes it ask for the PIN and try again.",
        expects="Success in a public read-write session, or CKR_USER_NOT_LOGGED_IN.",
        user="certutil -A fails although the PIN is known.",
        where=("cmd/certutil/certutil.c AddCert", "pk11wrap/pk11cert.c PK11_ImportCert"),
        standard="C_CreateObject (section 5.7)",
        severity="B",
    ),
    Rule(
        id="P19",
        title="Certificates are refused for lack of a key",
        statement="A module stores a certificate only beside its private key.",
        nss="Any certificate may be imported: authorities and peers too.",
        expects="Certificates are stored whatever keys there are.",
        user="The chain of the user's certificate cannot be put on the token.",
        where=("pk11wrap/pk11cert.c PK11_ImportCert",),
        standard="C_CreateObject (section 5.7)",
        severity="B",
    ),
    Rule(
        id="P20",
        title="IDs, labels and subjects that cannot be changed",
        statement="C_SetAttributeValue refuses CKA_ID, CKA_LABEL or CKA_SUBJECT on a new key.",
        nss="A key whose ID cannot be set is destroyed again; an import whose key cannot be labelled fails.",
        expects="All three can be changed on keys and certificates, also on sensitive ones.",
        user="Every key generation fails after the key was made.",
        where=("pk11wrap/pk11akey.c PK11_GenerateKeyPairWithOpFlags", "pk11wrap/pk11cert.c PK11_ImportCert"),
        standard="C_SetAttributeValue (section 5.7)",
        severity="B",
    ),
    Rule(
        id="P21",
        title="Usages that do not fit the key's type",
        statement="C_GenerateKeyPair refuses templates that name usages which the type cannot have.",
        nss=(
            "Every usage is written as true or false: DERIVE false for RSA, ENCRYPT and WRAP false for EC, and "
            "guesses when the mechanism's flags could not be read."
        ),
        expects="False is always accepted; true for an impossible use does not fail the call.",
        user="CKR_TEMPLATE_INCONSISTENT: no key on this token.",
        where=("pk11wrap/pk11akey.c PK11_GenerateKeyPairWithOpFlags",),
        standard="C_GenerateKeyPair (section 5.18)",
        severity="B",
    ),
    Rule(
        id="P22",
        title="Private keys that hide their public part",
        statement="CKA_MODULUS, CKA_PUBLIC_EXPONENT or CKA_EC_PARAMS of a private key cannot be read.",
        nss=(
            "The length of a signature is computed from them; without them NSS probes with C_Sign and a buffer that "
            "is too small."
        ),
        expects="All are readable, whatever CKA_SENSITIVE says.",
        user="Wrong buffer lengths; signatures fail or are slow.",
        where=("pk11wrap/pk11obj.c PK11_SignatureLen", "pk11wrap/pk11obj.c pk11_backupGetSignLength"),
        standard="RSA and EC private key objects",
        severity="B",
    ),
)
