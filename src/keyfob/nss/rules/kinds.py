"""The four kinds of tokens, and the functions that each needs."""

from __future__ import annotations

from keyfob.nss.rules.rule import Rule

RULES: tuple[Rule, ...] = (
    Rule(
        id="K1",
        title="Tokens are of four kinds",
        statement=(
            "There are external key distribution tokens, signing tokens, signing and decrypting tokens, and "
            "multipurpose tokens."
        ),
        today="same",
        nss="NSS knows no kinds: mechanism lists and flags decide for each operation.",
        expects="Mechanisms and flags show just what the token's kind can do.",
        user="NSS hands the token work that it cannot do, or none at all.",
        where=("pk11wrap/pk11slot.c PK11_DoesMechanism", "pk11wrap/pk11slot.c pk11_filterSlot"),
        standard="C_GetMechanismList (section 5.5)",
    ),
    Rule(
        id="K2",
        title="External key distribution tokens serve plug-ins",
        statement="Tokens whose keys come from outside are used through plug-ins that NSS offers.",
        today="gone",
        nss="There is no such interface any more; the token is a signing and decrypting one that generates no keys.",
        expects="Sign and decrypt with keys that were put there by other means.",
        user="The token is of no use beyond signing and decrypting.",
        where=("pk11wrap/pk11slot.c PK11_DoesMechanism",),
        unchecked="The interface for such plug-ins is gone from NSS; what is left is checked as K7.",
    ),
    Rule(
        id="K3",
        title="Signing tokens sign objects and messages and authenticate TLS clients",
        statement="A signing token signs and authenticates; encrypted mail needs more.",
        today="same",
        nss="TLS 1.3 needs ECDSA, or RSA with CKM_RSA_PKCS_PSS.",
        expects="C_Sign with CKM_RSA_PKCS, CKM_RSA_PKCS_PSS and CKM_ECDSA as the keys are.",
        user="No client certificate is offered to a server.",
        where=("pk11wrap/pk11obj.c PK11_SignWithMechanism", "ssl/ssl3con.c ssl_PrivateKeySupportsRsaPss"),
        standard="C_Sign (section 5.13)",
    ),
    Rule(
        id="K4",
        title="Signing and decrypting tokens read encrypted mail",
        statement="A token that signs and decrypts serves S/MIME completely.",
        today="same",
        nss="RSA by C_UnwrapKey with CKM_RSA_PKCS or OAEP, EC by CKM_ECDH1_DERIVE with a key derivation function.",
        expects="The content key comes out as an object that decrypts on the token, or whose value can be read.",
        user="Encrypted mail cannot be opened.",
        where=("smime/cmspubkey.c NSS_CMSUtil_DecryptSymKey_RSA", "smime/cmspubkey.c NSS_CMSUtil_DecryptSymKey_ECDH"),
        standard="C_UnwrapKey, C_Decrypt (sections 5.10 and 5.18)",
    ),
    Rule(
        id="K5",
        title="Multipurpose tokens can do all of NSS's cryptography",
        statement="A multipurpose token is an accelerator for everything that NSS does.",
        today="same",
        nss="Only when the user made it the default for a mechanism; otherwise it serves its own keys.",
        expects="Digests, ciphers, MACs, key generation and random numbers beside the work with private keys.",
        user="A token that was made the default breaks TLS of the whole program.",
        where=("pk11wrap/pk11slot.c PK11_GetBestSlotMultipleWithAttributes", "pk11wrap/pk11slot.c PK11_LoadSlotList"),
    ),
    Rule(
        id="K6",
        title="FIPS tokens are multipurpose tokens with something more",
        statement="The guide expects multipurpose tokens for FIPS 140 in future.",
        today="changed",
        nss=(
            'NSS asks for the interface "Vendor NSS FIPS Interface" and, from 3.2 on, for validation objects and '
            "flags; without them nothing is lost."
        ),
        expects="Refuse the unknown interface cleanly; answer the search for validation objects with none.",
        user="The module does not load, or a wrong claim of validation is shown.",
        where=(
            "pk11wrap/pk11load.c secmod_DetermineModuleFunctionList",
            "pk11wrap/pk11slot.c pk11slot_GetFIPSStatus",
            "pk11wrap/pk11slot.c pk11_GetValidationFlags",
        ),
        standard="Interfaces (section 5.4)",
    ),
    Rule(
        id="K7",
        title="External key distribution tokens need C_Decrypt and C_Sign",
        statement="A token of that kind needs nothing but C_Decrypt and C_Sign.",
        today="same",
        nss="Unwrapping falls back to C_Decrypt when the token cannot unwrap.",
        expects="C_Sign and C_Decrypt with CKM_RSA_PKCS.",
        user="The token's keys can be seen and not used.",
        where=("pk11wrap/pk11skey.c pk11_HandUnwrap", "pk11wrap/pk11obj.c PK11_SignWithMechanism"),
        standard="C_Decrypt, C_Sign (sections 5.10 and 5.13)",
    ),
    Rule(
        id="K8",
        title="Keys for a token that cannot generate them are created",
        statement=(
            "For a writable token without C_GenerateKeyPair NSS generates the key itself and loads it with "
            "C_CreateObject."
        ),
        today="same",
        nss=(
            "Still so, when the mechanism is not in the token's list. NSS 3.116 to 3.124 then send a template that "
            "strict modules refuse (P1)."
        ),
        expects="C_CreateObject takes a private key with all its components and a public key.",
        user="A certificate request fails on the token.",
        where=("pk11wrap/pk11akey.c PK11_GenerateKeyPairWithOpFlags", "pk11wrap/pk11akey.c pk11_loadPrivKeyWithFlags"),
        standard="C_CreateObject (section 5.7)",
    ),
    Rule(
        id="K9",
        title="Signing tokens: C_Sign, perhaps C_GenerateKeyPair",
        statement="A signing token needs C_Sign, and C_GenerateKeyPair if it makes its keys.",
        today="same",
        nss=(
            "NSS 3.87 signs with CKM_RSA_PKCS and CKM_ECDSA; from 3.101 on the mechanisms that hash and sign come "
            "first where the token's flags allow it."
        ),
        expects="Both the raw and the combined mechanism make the same signature.",
        user="Signing works with one version of NSS and not with the next.",
        where=("cryptohi/secsign.c sgn_CreateCombinedContext", "cryptohi/secsign.c sgn_SingleShot"),
        standard="C_Sign, C_GenerateKeyPair (sections 5.13 and 5.18)",
    ),
    Rule(
        id="K10",
        title="Signing and decrypting tokens: C_Decrypt, optionally C_UnwrapKey",
        statement="C_Decrypt is a must for such a token, C_UnwrapKey is not.",
        today="same",
        nss="C_UnwrapKey is tried first; any error but CKR_DEVICE_ERROR leads to C_Decrypt.",
        expects="An unwrap that is not possible fails with an honest code, and C_Decrypt does it.",
        user="Mail cannot be decrypted although C_Decrypt works.",
        where=("pk11wrap/pk11skey.c pk11_AnyUnwrapKey", "pk11wrap/pk11skey.c pk11_HandUnwrap"),
        standard="C_Decrypt, C_UnwrapKey (sections 5.10 and 5.18)",
    ),
    Rule(
        id="K11",
        title="Multipurpose tokens: everything of table 1.2",
        statement=(
            "A multipurpose token implements all functions of the guide's table; wrapping and unwrapping are optional."
        ),
        today="same",
        nss="NSS tries whatever the token's mechanism list promises.",
        expects="Each function of the table works with the mechanisms that the list names.",
        user="An operation fails that another token in the same place would have done.",
        where=("pk11wrap/pk11slot.c PK11_DoesMechanism",),
    ),
    Rule(
        id="K12",
        title="NSS wraps and unwraps first, encrypts and decrypts second",
        statement="NSS always tries C_WrapKey or C_UnwrapKey and falls back to C_Encrypt or C_Decrypt.",
        today="changed",
        nss=(
            "C_Decrypt is used at once where the flags say DECRYPT and the token lacks the key's own mechanism. The "
            "export of private keys has no fallback."
        ),
        expects="Flags and behaviour agree, and a failed C_WrapKey leaves nothing behind.",
        user="pk12util -o cannot export; bulk keys cannot be moved.",
        where=(
            "pk11wrap/pk11skey.c pk11_AnyUnwrapKey",
            "pk11wrap/pk11skey.c PK11_WrapSymKey",
            "pk11wrap/pk11akey.c PK11_ExportEncryptedPrivKeyInfoV2",
        ),
        standard="C_WrapKey, C_UnwrapKey (section 5.18)",
    ),
)
