/* K5, K11, N4: what a token does for NSS beside the work with private keys. */

#include "shim.h"

static CK_RV digests_wrongly_in_parts(CK_ULONG session, CK_BYTE *digest, CK_ULONG *room)
{
    CK_RV rv = real->C_DigestFinal(session, digest, room);
    /* Of SHA-384 alone: streams of SHA-256 are other rules' matter. */
    if (rv == CKR_OK && digest != NULL && *room == 48)
        digest[0] ^= 1;
    return rv;
}
MUTATION(digests_wrongly_in_parts, C_DigestFinal)

static CK_RV no_md5(CK_ULONG session, CK_MECHANISM *mechanism)
{
    return mechanism->mechanism == CKM_MD5 ? CKR_FUNCTION_FAILED : real->C_DigestInit(session, mechanism);
}
MUTATION(no_md5, C_DigestInit)

static CK_RV encrypts_wrongly_in_parts(CK_ULONG session, CK_BYTE *part, CK_ULONG length, CK_BYTE *out, CK_ULONG *room)
{
    CK_RV rv = real->C_EncryptUpdate(session, part, length, out, room);
    if (rv == CKR_OK && out != NULL && *room > 0)
        out[0] ^= 1;
    return rv;
}
MUTATION(encrypts_wrongly_in_parts, C_EncryptUpdate)

static CK_RV listed_gcm_fails(CK_ULONG session, CK_MECHANISM *mechanism, CK_ULONG key)
{
    return mechanism->mechanism == CKM_AES_GCM ? CKR_MECHANISM_PARAM_INVALID : real->C_EncryptInit(session, mechanism, key);
}
MUTATION(listed_gcm_fails, C_EncryptInit)

static CK_RV random_is_constant(CK_ULONG session, CK_BYTE *bytes, CK_ULONG length)
{
    CK_RV rv = real->C_GenerateRandom(session, bytes, length);
    if (rv == CKR_OK)
        memset(bytes, 4, length);
    return rv;
}
MUTATION(random_is_constant, C_GenerateRandom)

/* Each generated AES key is the same one. */
static CK_RV one_key_for_all(CK_ULONG session, CK_MECHANISM *mechanism, CK_ATTRIBUTE *wanted, CK_ULONG count, CK_ULONG *key)
{
    static CK_BYTE value[32];
    CK_ULONG object_class = CKO_SECRET_KEY, kind = CKK_AES;
    CK_ATTRIBUTE given[16] = {{CKA_CLASS, &object_class, sizeof object_class},
                              {CKA_KEY_TYPE, &kind, sizeof kind},
                              {CKA_VALUE, value, sizeof value}};
    if (mechanism->mechanism != CKM_AES_KEY_GEN || count > 12)
        return real->C_GenerateKey(session, mechanism, wanted, count, key);
    CK_ULONG used = 3;
    for (CK_ULONG i = 0; i < count; i++)
        if (wanted[i].type != CKA_VALUE_LEN && wanted[i].type != CKA_CLASS && wanted[i].type != CKA_KEY_TYPE)
            given[used++] = wanted[i];
    return real->C_CreateObject(session, given, used, key);
}
MUTATION(one_key_for_all, C_GenerateKey)

static CK_RV every_signature_is_right(CK_ULONG session, CK_BYTE *data, CK_ULONG length, CK_BYTE *signature, CK_ULONG size)
{
    CK_RV rv = real->C_Verify(session, data, length, signature, size);
    return rv == CKR_SIGNATURE_INVALID ? CKR_OK : rv;
}
MUTATION(every_signature_is_right, C_Verify)

static CK_RV newer_verification_fails(CK_ULONG session, CK_BYTE *data, CK_ULONG length)
{
    (void)session, (void)data, (void)length;
    return CKR_FUNCTION_FAILED;
}
MUTATION(newer_verification_fails, C_VerifySignature)

static CK_RV recovers_nothing(CK_ULONG session, CK_BYTE *signature, CK_ULONG size, CK_BYTE *data, CK_ULONG *room)
{
    CK_RV rv = real->C_VerifyRecover(session, signature, size, data, room);
    if (rv == CKR_OK && data != NULL)
        memset(data, 0, *room);
    return rv;
}
MUTATION(recovers_nothing, C_VerifyRecover)

/* N4: the secrets of a handshake, on a token that is the default for them. */

static const CK_HKDF_PARAMS *hkdf_of(const CK_MECHANISM *mechanism)
{
    int is = mechanism->mechanism == CKM_HKDF_DERIVE || mechanism->mechanism == CKM_HKDF_DATA;
    return is && mechanism->ulParameterLen == sizeof(CK_HKDF_PARAMS) ? mechanism->pParameter : NULL;
}

static CK_RV salt_is_no_key(CK_ULONG session, CK_MECHANISM *mechanism, CK_ULONG base, CK_ATTRIBUTE *wanted, CK_ULONG count,
                            CK_ULONG *key)
{
    const CK_HKDF_PARAMS *given = hkdf_of(mechanism);
    if (given != NULL && given->bExtract && given->ulSaltType == CKF_HKDF_SALT_KEY)
        return CKR_MECHANISM_PARAM_INVALID;
    return real->C_DeriveKey(session, mechanism, base, wanted, count, key);
}
MUTATION(salt_is_no_key, C_DeriveKey)

static CK_RV unset_salt_is_read(CK_ULONG session, CK_MECHANISM *mechanism, CK_ULONG base, CK_ATTRIBUTE *wanted,
                                CK_ULONG count, CK_ULONG *key)
{
    const CK_HKDF_PARAMS *given = hkdf_of(mechanism);
    if (given != NULL && given->pSalt != NULL && given->ulSaltLen > 0)
        (void)*(volatile CK_BYTE *)given->pSalt;
    return real->C_DeriveKey(session, mechanism, base, wanted, count, key);
}
MUTATION(unset_salt_is_read, C_DeriveKey)

static CK_RV data_is_no_key(CK_ULONG session, CK_MECHANISM *mechanism, CK_ULONG base, CK_ATTRIBUTE *wanted, CK_ULONG count,
                            CK_ULONG *key)
{
    CK_ULONG object_class = CKO_SECRET_KEY;
    CK_ATTRIBUTE asked = {CKA_CLASS, &object_class, sizeof object_class};
    real->C_GetAttributeValue(session, base, &asked, 1);
    if (object_class == CKO_DATA)
        return CKR_KEY_HANDLE_INVALID;
    return real->C_DeriveKey(session, mechanism, base, wanted, count, key);
}
MUTATION(data_is_no_key, C_DeriveKey)

static CK_RV data_of_keys_is_refused(CK_ULONG session, CK_MECHANISM *mechanism, CK_ULONG base, CK_ATTRIBUTE *wanted,
                                     CK_ULONG count, CK_ULONG *key)
{
    if (mechanism->mechanism == CKM_HKDF_DATA && attribute_of(wanted, count, CKA_KEY_TYPE) != NULL)
        return CKR_TEMPLATE_INCONSISTENT;
    return real->C_DeriveKey(session, mechanism, base, wanted, count, key);
}
MUTATION(data_of_keys_is_refused, C_DeriveKey)

static CK_RV hkdf_forgets_the_salt(CK_ULONG session, CK_MECHANISM *mechanism, CK_ULONG base, CK_ATTRIBUTE *wanted,
                                   CK_ULONG count, CK_ULONG *key)
{
    const CK_HKDF_PARAMS *given = hkdf_of(mechanism);
    if (given == NULL || !given->bExtract)
        return real->C_DeriveKey(session, mechanism, base, wanted, count, key);
    CK_HKDF_PARAMS without = *given;
    CK_MECHANISM other = {mechanism->mechanism, &without, sizeof without};
    without.ulSaltType = CKF_HKDF_SALT_NULL;
    return real->C_DeriveKey(session, &other, base, wanted, count, key);
}
MUTATION(hkdf_forgets_the_salt, C_DeriveKey)

/* What ECDH gives is no key that HKDF takes. */
static CK_RV agrees_on_no_hkdf_key(CK_ULONG session, CK_MECHANISM *mechanism, CK_ULONG base, CK_ATTRIBUTE *wanted,
                                   CK_ULONG count, CK_ULONG *key)
{
    if (mechanism->mechanism == CKM_ECDH1_DERIVE && number_in(wanted, count, CKA_KEY_TYPE) == CKK_HKDF)
        return CKR_TEMPLATE_INCONSISTENT;
    return real->C_DeriveKey(session, mechanism, base, wanted, count, key);
}
MUTATION(agrees_on_no_hkdf_key, C_DeriveKey)

const Mutant multipurpose_mutants[] = {
    ROW(salt_is_no_key),
    ROW(unset_salt_is_read),
    ROW(data_is_no_key),
    ROW(data_of_keys_is_refused),
    ROW(hkdf_forgets_the_salt),
    ROW(agrees_on_no_hkdf_key),
    ROW(digests_wrongly_in_parts),
    ROW(no_md5),
    ROW(encrypts_wrongly_in_parts),
    ROW(listed_gcm_fails),
    ROW(random_is_constant),
    ROW(one_key_for_all),
    ROW(every_signature_is_right),
    ROW(newer_verification_fails),
    ROW(recovers_nothing),
    END,
};
