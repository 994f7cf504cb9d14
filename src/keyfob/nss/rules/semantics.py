"""What NSS expects of tokens beyond the letter of the standard."""

from __future__ import annotations

from keyfob.nss.rules.rule import Rule

RULES: tuple[Rule, ...] = (
    Rule(
        id="N1",
        title="Read-only and read-write sessions exist side by side",
        statement=(
            "For C_InitPIN, C_SetPIN and C_GenerateKeyPair a token must allow read-only and read-write sessions at "
            "the same time."
        ),
        today="same",
        nss="A read-write session opens while the default one stays; also the SO logs in beside it.",
        expects="Both kinds at once, and C_Login(SO) beside a read-only session as long as no user PIN is set.",
        user="No first PIN, no new PIN, no new key.",
        where=("pk11wrap/pk11slot.c PK11_GetRWSession", "pk11wrap/pk11auth.c PK11_InitPin"),
        standard="C_OpenSession, C_Login (section 5.6)",
    ),
    Rule(
        id="N2",
        title="Random numbers and digests need no login",
        statement="C_SeedRandom, C_GenerateRandom and C_Digest work without a login.",
        today="same",
        nss=(
            "With CKF_RNG 32 random bytes are fetched and 32 are fed at each set-up of the token, before any login; "
            "digests are used without a login where the token is default."
        ),
        expects="Quick answers without a login; never CKR_USER_NOT_LOGGED_IN.",
        user="The browser freezes when the token is plugged in, or its randomness stays unused.",
        where=("pk11wrap/pk11slot.c PK11_InitToken", "pk11wrap/pk11slot.c PK11_GetBestSlotMultipleWithAttributes"),
        standard="C_GenerateRandom, C_SeedRandom (section 5.19)",
    ),
    Rule(
        id="N3",
        title="A token that wants a login for those is no default",
        statement="If random numbers or digests need a login the token cannot be the default for them.",
        today="same",
        nss="Matters only for tokens that a user made default.",
        expects="A token that needs a login for random numbers leaves CKF_RNG clear.",
        user="PIN prompts for visiting any site.",
        where=("pk11wrap/pk11slot.c PK11_GetBestSlotMultipleWithAttributes",),
        standard="CKF_RNG (section 3.3)",
    ),
    Rule(
        id="N4",
        title="A token may take over NSS's own functions",
        statement="The guide says that replacing the default functions is not supported.",
        today="gone",
        nss="modutil -default and slot flags make a token the default for mechanisms. The default for ECC makes the "
        "key share of each TLS handshake, and the secrets stay with it: HKDF with a key as salt, with data in a "
        "key's place, with fields that nobody set.",
        expects="Whatever the mechanism list holds also works as a default.",
        user='After "modutil -default" the program fails in unexpected places.',
        where=(
            "pk11wrap/pk11slot.c PK11_GetSlotList",
            "pk11wrap/pk11slot.c PK11_UpdateSlotAttribute",
            "ssl/tls13hkdf.c tls13_HkdfExtract",
        ),
        standard="HKDF mechanisms (section 6.62)",
    ),
    Rule(
        id="N5",
        title="Token objects are created and destroyed in read-write sessions",
        statement="Creating and destroying token objects needs a read-write session.",
        today="same",
        nss="NSS opens one for each.",
        expects="CKR_SESSION_READ_ONLY in a read-only session, CKR_OK in a read-write one.",
        user="A program that takes the wrong session changes the token unnoticed, or cannot change it.",
        where=("pk11wrap/pk11obj.c PK11_CreateNewObject", "dev/devtoken.c nssToken_DeleteStoredObject"),
        standard="C_CreateObject, C_DestroyObject (section 5.7)",
    ),
    Rule(
        id="N6",
        title="The password is changed in a read-write session",
        statement="Changing the password needs a read-write session.",
        today="same",
        nss="PK11_ChangePW opens one beside the default session.",
        expects="C_SetPIN works there, and only there.",
        user="The password cannot be changed.",
        where=("pk11wrap/pk11auth.c PK11_ChangePW",),
        standard="C_SetPIN (section 5.5)",
    ),
    Rule(
        id="N7",
        title="A token's PIN is initialised in a read-write session",
        statement="Initialising a token needs a read-write session.",
        today="same",
        nss="PK11_InitPin opens one beside the default session.",
        expects="C_Login(SO) and C_InitPIN work there.",
        user="A fresh token stays without a PIN.",
        where=("pk11wrap/pk11auth.c PK11_InitPin",),
        standard="C_InitPIN (section 5.5)",
    ),
    Rule(
        id="N8",
        title="Session objects are created in read-only sessions",
        statement="Session objects can be made in a read-only session.",
        today="same",
        nss="Secret keys, public keys for verifying, copies, unwrapped and derived keys.",
        expects="C_CreateObject, C_UnwrapKey, C_DeriveKey and C_CopyObject make session objects in any session.",
        user="Mail cannot be decrypted, imports fail.",
        where=(
            "pk11wrap/pk11skey.c pk11_ImportSymKeyWithTempl",
            "pk11wrap/pk11skey.c pk11_AnyUnwrapKey",
            "pk11wrap/pk11akey.c PK11_ImportPublicKey",
        ),
        standard="Sessions (section 5.6)",
    ),
    Rule(
        id="N9",
        title="An RSA private key comes with all its components",
        statement="NSS creates RSA keys with modulus, exponents, primes and the CRT values.",
        today="same",
        nss="Eight components as unsigned numbers without leading zeros.",
        expects="All are taken; nothing else is needed.",
        user="RSA keys cannot be imported.",
        where=("pk11wrap/pk11akey.c pk11_loadPrivKeyWithFlags", "pk11wrap/pk11obj.c pk11_SignedToUnsigned"),
        standard="RSA private key objects (section 6.1)",
    ),
    Rule(
        id="N10",
        title="The modulus and the ID of a private key are read back",
        statement="NSS reads a private key's modulus and the CKA_ID made of it.",
        today="same",
        nss=(
            "MODULUS before every signature, for its length; PUBLIC_EXPONENT, ID, KEY_TYPE, TOKEN, PRIVATE, "
            "ALWAYS_AUTHENTICATE and CLASS; EC_PARAMS of EC keys."
        ),
        expects="All can be read from a sensitive key.",
        user="Signatures get a wrong length, keys are not recognised.",
        where=(
            "pk11wrap/pk11obj.c PK11_SignatureLen",
            "pk11wrap/pk11akey.c pk11_MakePrivKey",
            "pk11wrap/pk11akey.c PK11_GetLowLevelKeyIDForPrivateKey",
        ),
        standard="Private key objects",
    ),
    Rule(
        id="N11",
        title="Label and subject are set after a key was created",
        statement="NSS sets label and subject of a key afterwards.",
        today="same",
        nss="{LABEL, ID, SUBJECT} in one call when the certificate is imported.",
        expects="CKA_SUBJECT of a private key can be changed, alone and with the others.",
        user="The last step of an import fails.",
        where=("pk11wrap/pk11cert.c PK11_ImportCert",),
        standard="C_SetAttributeValue (section 5.7)",
    ),
    Rule(
        id="N12",
        title="Encrypted mail: the certificate is found by issuer and serial number",
        statement="The recipient's certificate is looked up by issuer and serial number.",
        today="same",
        nss=(
            "{TOKEN, CLASS, ISSUER, SERIAL_NUMBER} on the default session; recipients by key identifier go through a "
            "map of NSS's own, then {VALUE, CLASS}."
        ),
        expects="Both searches give the certificate.",
        user='"You are not a recipient of this message."',
        where=(
            "pk11wrap/pk11cert.c PK11_FindCertByIssuerAndSNOnToken",
            "pk11wrap/pk11cert.c PK11_FindEncodedCertInSlot",
        ),
        standard="C_FindObjectsInit (section 5.7)",
    ),
    Rule(
        id="N13",
        title="Software that fills a token sets these attributes too",
        statement="Whatever initialises a token must set the attributes that NSS would set.",
        today="same",
        nss="A certificate without VALUE, ISSUER or SERIAL_NUMBER is invisible.",
        expects="Every certificate object has VALUE, ISSUER, SERIAL_NUMBER, SUBJECT and ID.",
        user="Certificates that other software put there do not show.",
        where=("pki/certificate.c nssCertificate_Create",),
        standard="X.509 certificate objects",
    ),
    Rule(
        id="N14",
        title="Keys and certificates belong together by CKA_ID",
        statement="The certificate of a key is the one with its ID.",
        today="same",
        nss="An empty ID links nothing.",
        expects="IDs that are equal and not empty.",
        user="The key is an orphan.",
        where=("pk11wrap/pk11obj.c PK11_MatchItem",),
        standard="CKA_ID",
    ),
    Rule(
        id="N15",
        title="Any unique ID will do",
        statement="Any ID serves as long as key and certificate share it.",
        today="changed",
        nss=(
            "For reading. When NSS writes a certificate its ID is always the SHA-1 of the public key, so a key with "
            "another ID loses the certificate that was just stored for it."
        ),
        expects="A key that is created without an ID gets the SHA-1 of its modulus or point.",
        user="A certificate that certutil stored has no key.",
        where=("dev/devtoken.c nssToken_ImportCertificate", "pk11wrap/pk11akey.c PK11_MakeIDFromPubKey"),
        standard="CKA_ID",
    ),
    Rule(
        id="N16",
        title="A private key may have several certificates",
        statement="More than one certificate may belong to one private key.",
        today="same",
        nss="All certificates with the key's ID are listed.",
        expects="Several certificates with one ID are stored and found.",
        user="The renewed certificate cannot be stored beside the old one.",
        where=("pk11wrap/pk11cert.c PK11_GetCertsMatchingPrivateKey",),
        standard="CKA_ID",
    ),
    Rule(
        id="N17",
        title="A key without a certificate has an ID made of its public key",
        statement="The ID of an orphan key is part of its public key.",
        today="changed",
        nss="Its SHA-1, as in O10.",
        expects="The ID that NSS sets after generating is kept.",
        user="The certificate that comes back from the authority does not find its key.",
        where=("pk11wrap/pk11akey.c pk11_MakeIDFromPublicKey", "pk11wrap/pk11akey.c PK11_GenerateKeyPairWithOpFlags"),
        standard="CKA_ID",
    ),
    Rule(
        id="N18",
        title="Public keys are on the token, with their IDs, readable before login",
        statement="Public key objects are not required, but their IDs must fit.",
        today="changed",
        nss=(
            "Practically required: before a login a certificate counts as the user's own only if a public key with "
            "its ID is visible."
        ),
        expects="For each private key a public key object with the same ID and CKA_PRIVATE false.",
        user="The token's certificates are not offered before the first login.",
        where=(
            "dev/devtoken.c nssToken_IsPrivateKeyAvailable",
            "pk11wrap/pk11akey.c PK11_ExtractPublicKey",
            "cryptohi/seckey.c SECKEY_ConvertToPublicKey",
        ),
        standard="CKA_PRIVATE, public key objects",
    ),
    Rule(
        id="N19",
        title="Session objects are seen by all sessions of the token",
        statement="A session object that one session made can be used in every other.",
        today="same",
        nss="Made in one session, used in a second, destroyed from a third; it dies with the first.",
        expects="Handles of session objects count in the whole process.",
        user="Decrypting fails with CKR_KEY_HANDLE_INVALID.",
        where=("pk11wrap/pk11skey.c pk11_CreateSymKey", "cryptohi/seckey.c SECKEY_CopyPrivateKey"),
        standard="Sessions (section 5.6)",
    ),
)
