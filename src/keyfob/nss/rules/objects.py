"""Objects: keys and certificates, their IDs, labels and searches."""

from __future__ import annotations

from keyfob.nss.rules.rule import Rule

RULES: tuple[Rule, ...] = (
    Rule(
        id="O1",
        title="Private keys and certificates are loaded by C_CreateObject",
        statement="NSS uses C_CreateObject to load private keys and certificates.",
        today="same",
        nss=(
            "In a read-write session of its own for token objects; certificates by nine attributes, keys by all "
            "their components."
        ),
        expects="The templates of NSS are taken as they come.",
        user="Importing a certificate or a key fails.",
        where=(
            "pk11wrap/pk11obj.c PK11_CreateNewObject",
            "dev/devtoken.c nssToken_ImportCertificate",
            "pk11wrap/pk11akey.c pk11_loadPrivKeyWithFlags",
            "pk11wrap/pk11pk12.c PK11_ImportAndReturnPrivateKey",
        ),
        standard="C_CreateObject (section 5.7)",
    ),
    Rule(
        id="O2",
        title="Private keys are created for PKCS #12 and where nothing generates",
        statement="A private key comes by C_CreateObject from a PKCS #12 file or where C_GenerateKeyPair is missing.",
        today="same",
        nss=(
            "Also after C_UnwrapKey failed during an import. A generation mechanism that is not listed is not even "
            "tried."
        ),
        expects="C_CreateObject takes the full set of components of an RSA or EC key.",
        user="pk12util -i says that the key cannot be imported.",
        where=("pk11wrap/pk11akey.c PK11_GenerateKeyPairWithOpFlags", "pk11wrap/pk11akey.c pk11_loadPrivKeyWithFlags"),
        standard="C_CreateObject (section 5.7)",
    ),
    Rule(
        id="O3",
        title="PKCS #12 files go onto any token",
        statement="The guide says that PKCS #12 files cannot be imported onto a token.",
        today="gone",
        nss=(
            "pk12util -h and Firefox import onto any token: the key is unwrapped there, and created only if that fails."
        ),
        expects="One of the two ways works, C_UnwrapKey with CKM_AES_CBC_PAD best.",
        user="A backup cannot be restored to the token.",
        where=(
            "pk11wrap/pk11akey.c PK11_ImportEncryptedPrivateKeyInfoAndReturnKey",
            "pk11wrap/pk11pk12.c PK11_ImportAndReturnPrivateKey",
        ),
        standard="C_UnwrapKey, C_CreateObject (sections 5.7 and 5.18)",
    ),
    Rule(
        id="O4",
        title="Session keys are created from raw data",
        statement="NSS makes session keys from raw key data by C_CreateObject.",
        today="same",
        nss="{CLASS, KEY_TYPE, one usage, VALUE} in a read-only session.",
        expects="The object is created without a read-write session and works for what the template says.",
        user="Imports and exports of PKCS #12 fail early; a token made default breaks TLS.",
        where=("pk11wrap/pk11skey.c pk11_ImportSymKeyWithTempl",),
        standard="C_CreateObject, secret key objects (section 5.7)",
    ),
    Rule(
        id="O5",
        title="Keys are moved between slots",
        statement="NSS moves symmetric keys from one slot to another when an operation needs it.",
        today="same",
        nss="By reading CKA_VALUE, else by wrapping for an RSA exchange between the slots.",
        expects="Session keys that may be read give their value; those that may not can be wrapped.",
        user="An operation that needs two tokens fails.",
        where=("pk11wrap/pk11skey.c pk11_CopyToSlotPerm", "pk11wrap/pk11skey.c pk11_ForceSlot"),
    ),
    Rule(
        id="O6",
        title="Certificates are token objects",
        statement="Certificates are created as token objects.",
        today="same",
        nss="{TOKEN = true, CLASS, ...}; session certificates exist in NSS's own token only.",
        expects="The certificate is there after a restart.",
        user="The imported certificate is gone the next day.",
        where=("dev/devtoken.c nssToken_ImportCertificate",),
        standard="CKA_TOKEN, certificate objects",
    ),
    Rule(
        id="O7",
        title="Certificates without a private key are stored too",
        statement="The guide says that a certificate is loaded only where its private key is.",
        today="gone",
        nss="PK11_ImportCert stores any certificate on any token: authorities, peers, servers.",
        expects="A certificate is taken whether or not its key is here.",
        user="CA chains cannot be kept on the token.",
        where=("pk11wrap/pk11cert.c PK11_ImportCert", "pk11wrap/pk11cert.c PK11_ImportCertForKey"),
        standard="C_CreateObject (section 5.7)",
    ),
    Rule(
        id="O8",
        title="A certificate comes with nine attributes",
        statement="NSS sets all fields of the standard's certificate object.",
        today="same",
        nss="Just TOKEN, CLASS, CERTIFICATE_TYPE, ID, LABEL, VALUE, ISSUER, SUBJECT and SERIAL_NUMBER (DER).",
        expects="This set is enough; the object is then public and modifiable.",
        user="Imports fail with CKR_TEMPLATE_INCOMPLETE, or the certificate hides behind the PIN.",
        where=("dev/devtoken.c nssToken_ImportCertificate",),
        standard="X.509 certificate objects",
    ),
    Rule(
        id="O9",
        title="CKA_ID and CKA_LABEL are set by NSS",
        statement="NSS sets CKA_ID and CKA_LABEL of what it loads.",
        today="same",
        nss=(
            "In the certificate's template; for the key by C_SetAttributeValue {LABEL, ID, SUBJECT} when a "
            "certificate is imported for it."
        ),
        expects="Both are stored byte for byte and can be changed later.",
        user="Certificate and key are not recognised as a pair.",
        where=("dev/devtoken.c nssToken_ImportCertificate", "pk11wrap/pk11cert.c PK11_ImportCert"),
        standard="C_SetAttributeValue (section 5.7)",
    ),
    Rule(
        id="O10",
        title="CKA_ID is made of the public key and stays what it is",
        statement="The guide takes the public key's value for CKA_ID, perhaps its hash in future; it must not change.",
        today="changed",
        nss=(
            "The SHA-1 of the modulus, the public value or the EC point; values of up to 20 bytes are taken as they "
            "are."
        ),
        expects="IDs are kept byte for byte, across logins and restarts.",
        user="After a while the key of a certificate is not found.",
        where=("pk11wrap/pk11akey.c PK11_MakeIDFromPubKey", "pk11wrap/pk11akey.c pk11_MakeIDFromPublicKey"),
        standard="CKA_ID",
    ),
    Rule(
        id="O11",
        title="A certificate and its private key have the same CKA_ID",
        statement="The ID is what links certificate and private key.",
        today="same",
        nss="Still the only link: the ID of one is read and searched for with the other's class.",
        expects="{CLASS, ID} finds the partner, at once and at any size.",
        user="The certificate is shown without its key: no signature, no client authentication.",
        where=("pk11wrap/pk11obj.c PK11_MatchItem",),
        standard="CKA_ID",
    ),
    Rule(
        id="O12",
        title="A certificate and its private key have the same label",
        statement="The guide links them by CKA_LABEL too.",
        today="changed",
        nss="NSS sets the key's label; it is shown and filters lists, and links nothing any more.",
        expects="The label of a key can be set and read.",
        user='certutil -K shows "orphan" or no name.',
        where=("pk11wrap/pk11cert.c PK11_ImportCert", "pk11wrap/pk11akey.c PK11_GetPrivateKeyNickname"),
        standard="CKA_LABEL",
    ),
    Rule(
        id="O13",
        title="A key without a certificate has no label",
        statement="A key that has no certificate yet has an empty label or none.",
        today="same",
        nss="Templates for key generation hold neither LABEL nor ID; the ID is set right afterwards.",
        expects="C_GenerateKeyPair works without both; both can be set later.",
        user="Key generation fails with CKR_TEMPLATE_INCOMPLETE.",
        where=("pk11wrap/pk11akey.c PK11_GenerateKeyPairWithOpFlags",),
        standard="C_GenerateKeyPair (section 5.18)",
    ),
    Rule(
        id="O14",
        title="C_CopyObject serves TLS servers",
        statement="C_CopyObject is used rarely, for private keys that are no token objects.",
        today="changed",
        nss=(
            "A TLS server copies its token key with {TOKEN = false} (a failure is tolerated), then the copy with no "
            "template at all (a failure is not). {TOKEN = true} stores temporary keys."
        ),
        expects="Both copies work and sign; or the first is refused cleanly.",
        user="A server with an RSA key on the token does not start.",
        where=(
            "pk11wrap/pk11akey.c PK11_CopyTokenPrivKeyToSessionPrivKey",
            "ssl/sslcert.c ssl_MakeKeyPairForCert",
            "cryptohi/seckey.c SECKEY_CopyPrivateKey",
        ),
        standard="C_CopyObject (section 5.7)",
    ),
    Rule(
        id="O15",
        title="C_DestroyObject removes certificates and keys",
        statement="NSS deletes certificates and keys by C_DestroyObject.",
        today="same",
        nss="Token objects in a new read-write session; session objects in theirs.",
        expects="The object is gone for all sessions; its handle is invalid from then on.",
        user="Deleted certificates come back.",
        where=(
            "pk11wrap/pk11obj.c PK11_DestroyTokenObject",
            "pk11wrap/pk11obj.c PK11_DestroyObject",
            "dev/devtoken.c nssToken_DeleteStoredObject",
        ),
        standard="C_DestroyObject (section 5.7)",
    ),
    Rule(
        id="O16",
        title="C_GetObjectSize is not called",
        statement="NSS never calls C_GetObjectSize.",
        today="same",
        nss="Only its test tools do.",
        expects="A stub is enough; a size, CK_UNAVAILABLE_INFORMATION or CKR_FUNCTION_NOT_SUPPORTED are all fine.",
        user="Nothing.",
        where=("pk11wrap/pk11load.c secmod_DetermineModuleFunctionList",),
        standard="C_GetObjectSize (section 5.7)",
        unchecked="NSS does not call it: no answer could be wrong.",
    ),
    Rule(
        id="O17",
        title="C_GetAttributeValue reads one attribute and many",
        statement="NSS reads attributes singly and several at once.",
        today="same",
        nss="A size pass and a value pass over several; numbers and booleans directly into a buffer of their size.",
        expects=(
            "Every attribute is answered for itself; a missing or sensitive one gets the length -1 and does not keep "
            "the others from being read."
        ),
        user="Certificates vanish from lists because an optional attribute is missing.",
        where=(
            "pk11wrap/pk11obj.c PK11_GetAttributes",
            "dev/ckhelper.c nssCKObject_GetAttributes",
            "pk11wrap/pk11obj.c PK11_ReadULongAttribute",
        ),
        standard="C_GetAttributeValue (section 5.7)",
    ),
    Rule(
        id="O18",
        title="C_SetAttributeValue changes labels, IDs and subjects",
        statement="The guide uses C_SetAttributeValue for the label of private keys.",
        today="changed",
        nss=(
            "Also for CKA_ID of both keys after generation, {LABEL, ID, SUBJECT} of a private key when its "
            "certificate comes, and LABEL and ID of certificates. The first two must succeed."
        ),
        expects=(
            "LABEL, ID and SUBJECT of token objects can be changed in a read-write session, whatever the key's "
            "sensitivity."
        ),
        user="A generated key is destroyed again at once; an import fails at its end.",
        where=(
            "pk11wrap/pk11akey.c PK11_GenerateKeyPairWithOpFlags",
            "pk11wrap/pk11cert.c PK11_ImportCert",
            "pk11wrap/pk11akey.c PK11_SetPrivateKeyNickname",
        ),
        standard="C_SetAttributeValue (section 5.7)",
    ),
    Rule(
        id="O19",
        title="Objects are looked for by CKA_ID or CKA_LABEL, often",
        statement="NSS searches by ID or label again and again.",
        today="same",
        nss=(
            "Also by subject, issuer and serial number, value, class alone, and by modulus or EC point without a class."
        ),
        expects="Each search is exact and quick at any number of objects.",
        user="Listing a token takes minutes, or a certificate is not found by one of its names.",
        where=(
            "dev/devtoken.c find_objects",
            "pk11wrap/pk11obj.c pk11_FindObjectsByTemplate",
            "pk11wrap/pk11cert.c PK11_IsUserCert",
        ),
        standard="C_FindObjectsInit (section 5.7)",
    ),
    Rule(
        id="O20",
        title="IDs and labels are unique among key pairs",
        statement="No two key pairs of a token have the same ID or label.",
        today="same",
        nss=(
            "The first hit counts. NSS itself makes the same public key twice when it imports PKCS #12, so a module "
            "must not insist on uniqueness."
        ),
        expects="Duplicates are stored and found.",
        user="pk12util -i fails at its second public key.",
        where=("pk11wrap/pk11obj.c PK11_MatchItem", "pk11wrap/pk11akey.c PK11_ImportPublicKey"),
        standard="CKA_ID, CKA_LABEL",
    ),
    Rule(
        id="O21",
        title="Certificates are found by issuer and serial number",
        statement="Without the look-up by issuer and serial number encrypted mail cannot be read.",
        today="same",
        nss="First with the serial number as DER INTEGER, then with its raw bytes.",
        expects="Both attributes are stored as they were given, and searches compare their bytes.",
        user="S/MIME mail cannot be decrypted; a certificate is imported twice.",
        where=("dev/devtoken.c nssToken_FindCertificateByIssuerAndSerialNumber",),
        standard="CKA_ISSUER, CKA_SERIAL_NUMBER",
    ),
)
