/* O10, O13, N15 to N18, P12 to P15, P21, P33: keys made, unwrapped, wrapped and derived. */

#include "shim.h"

#define PAIR CK_ULONG session, CK_MECHANISM *mechanism, CK_ATTRIBUTE *public, CK_ULONG public_count, \
             CK_ATTRIBUTE *private, CK_ULONG private_count, CK_ULONG *public_key, CK_ULONG *private_key
#define PAIR_ARGUMENTS session, mechanism, public, public_count, private, private_count, public_key, private_key

static CK_RV derive_false_refused(PAIR)
{
    if (mechanism->mechanism == CKM_RSA_PKCS_KEY_PAIR_GEN && attribute_of(public, public_count, CKA_DERIVE) != NULL)
        return CKR_TEMPLATE_INCONSISTENT;
    return real->C_GenerateKeyPair(PAIR_ARGUMENTS);
}
MUTATION(derive_false_refused, C_GenerateKeyPair)

static CK_RV pairs_need_labels(PAIR)
{
    if (attribute_of(private, private_count, CKA_LABEL) == NULL)
        return CKR_TEMPLATE_INCOMPLETE;
    return real->C_GenerateKeyPair(PAIR_ARGUMENTS);
}
MUTATION(pairs_need_labels, C_GenerateKeyPair)

static CK_RV pairs_are_swapped(PAIR)
{
    return real->C_GenerateKeyPair(session, mechanism, public, public_count, private, private_count, private_key,
                                   public_key);
}
MUTATION(pairs_are_swapped, C_GenerateKeyPair)

static CK_ULONG without_id(CK_ATTRIBUTE *template, CK_ULONG count, CK_ATTRIBUTE *kept, CK_ULONG room)
{
    CK_ULONG number = 0;
    for (CK_ULONG i = 0; i < count && number < room; i++)
        if (template[i].type != CKA_ID)
            kept[number++] = template[i];
    return number;
}

/* Keys get an ID of the module's choice. */
static CK_RV pairs_lose_their_id(PAIR)
{
    CK_ATTRIBUTE one[32], other[32];
    CK_ULONG publics = without_id(public, public_count, one, 32), privates = without_id(private, private_count, other, 32);
    return real->C_GenerateKeyPair(session, mechanism, one, publics, other, privates, public_key, private_key);
}
MUTATION(pairs_lose_their_id, C_GenerateKeyPair)

static CK_RV public_keys_are_private(PAIR)
{
    CK_BYTE yes = 1;
    CK_ATTRIBUTE longer[32];
    if (public_count >= 32 || attribute_of(public, public_count, CKA_PRIVATE) != NULL)
        return real->C_GenerateKeyPair(PAIR_ARGUMENTS);
    memcpy(longer, public, public_count * sizeof *public);
    longer[public_count] = (CK_ATTRIBUTE){CKA_PRIVATE, &yes, 1};
    return real->C_GenerateKeyPair(session, mechanism, longer, public_count + 1, private, private_count, public_key,
                                   private_key);
}
MUTATION(public_keys_are_private, C_GenerateKeyPair)

static CK_RV no_public_keys(PAIR)
{
    CK_RV rv = real->C_GenerateKeyPair(PAIR_ARGUMENTS);
    CK_BYTE nothing[] = "";
    CK_ATTRIBUTE id = {CKA_ID, nothing, 0};
    if (rv == CKR_OK) /* it stays, and no certificate finds it */
        real->C_SetAttributeValue(session, *public_key, &id, 1);
    return rv;
}

static CK_RV fixed_public_identifier(CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *template, CK_ULONG count)
{
    if (number_of(session, object, CKA_CLASS) == CKO_PUBLIC_KEY)
        return CKR_OK;
    return real->C_SetAttributeValue(session, object, template, count);
}

static void apply_public_keys_without_id(Functions *list)
{
    list->C_GenerateKeyPair = no_public_keys;
    list->C_SetAttributeValue = fixed_public_identifier;
}

static CK_RV pairs_are_session_objects(PAIR)
{
    CK_ATTRIBUTE *token = attribute_of(private, private_count, CKA_TOKEN);
    CK_BYTE no = 0;
    void *kept = token == NULL ? NULL : token->pValue;
    if (token != NULL)
        token->pValue = &no;
    CK_RV rv = real->C_GenerateKeyPair(PAIR_ARGUMENTS);
    if (token != NULL)
        token->pValue = kept;
    return rv;
}
MUTATION(pairs_are_session_objects, C_GenerateKeyPair)

#define UNWRAP CK_ULONG session, CK_MECHANISM *mechanism, CK_ULONG key, CK_BYTE *wrapped, CK_ULONG length, \
               CK_ATTRIBUTE *template, CK_ULONG count, CK_ULONG *unwrapped
#define UNWRAP_ARGUMENTS session, mechanism, key, wrapped, length, template, count, unwrapped

static CK_RV no_private_key_unwrap(UNWRAP)
{
    if (number_in(template, count, CKA_CLASS) == CKO_PRIVATE_KEY)
        return CKR_MECHANISM_INVALID;
    return real->C_UnwrapKey(UNWRAP_ARGUMENTS);
}
MUTATION(no_private_key_unwrap, C_UnwrapKey)

static CK_RV no_pkcs1_unwrap(UNWRAP)
{
    return mechanism->mechanism == CKM_RSA_PKCS ? CKR_MECHANISM_INVALID : real->C_UnwrapKey(UNWRAP_ARGUMENTS);
}
MUTATION(no_pkcs1_unwrap, C_UnwrapKey)

static CK_RV unwrap_is_a_device_error(UNWRAP)
{
    return mechanism->mechanism == CKM_RSA_PKCS ? CKR_DEVICE_ERROR : real->C_UnwrapKey(UNWRAP_ARGUMENTS);
}
MUTATION(unwrap_is_a_device_error, C_UnwrapKey)

static CK_RV no_pkcs1_key_decryption(CK_ULONG session, CK_MECHANISM *mechanism, CK_ULONG key)
{
    return mechanism->mechanism == CKM_RSA_PKCS ? CKR_MECHANISM_INVALID : real->C_DecryptInit(session, mechanism, key);
}

static void apply_opens_no_mail_to_rsa(Functions *list)
{
    list->C_UnwrapKey = no_pkcs1_unwrap;
    list->C_DecryptInit = no_pkcs1_key_decryption;
}

static CK_RV unwrap_needs_read_write(UNWRAP)
{
    return is_read_write(session) ? real->C_UnwrapKey(UNWRAP_ARGUMENTS) : CKR_SESSION_READ_ONLY;
}
MUTATION(unwrap_needs_read_write, C_UnwrapKey)

/* Usages that a template does not name are false. */
static CK_RV strict_usages(UNWRAP)
{
    static const CK_ULONG usages[] = {CKA_ENCRYPT, CKA_DECRYPT, CKA_WRAP, CKA_UNWRAP, CKA_SIGN, CKA_VERIFY, CKA_DERIVE};
    CK_BYTE no = 0;
    CK_ATTRIBUTE longer[32];
    if (number_in(template, count, CKA_CLASS) != CKO_SECRET_KEY || count > 20)
        return real->C_UnwrapKey(UNWRAP_ARGUMENTS);
    memcpy(longer, template, count * sizeof *template);
    CK_ULONG number = count;
    for (size_t i = 0; i < sizeof usages / sizeof *usages; i++)
        if (attribute_of(template, count, usages[i]) == NULL)
            longer[number++] = (CK_ATTRIBUTE){usages[i], &no, 1};
    return real->C_UnwrapKey(session, mechanism, key, wrapped, length, longer, number, unwrapped);
}
MUTATION(strict_usages, C_UnwrapKey)

static CK_RV oaep_with_sha1_only(UNWRAP)
{
    const CK_RSA_PKCS_OAEP_PARAMS *parameter = mechanism->pParameter;
    if (mechanism->mechanism == CKM_RSA_PKCS_OAEP && parameter != NULL && parameter->hashAlg != CKM_SHA_1)
        return CKR_ARGUMENTS_BAD;
    return real->C_UnwrapKey(UNWRAP_ARGUMENTS);
}

static CK_RV oaep_with_sha1_only_decrypt(CK_ULONG session, CK_MECHANISM *mechanism, CK_ULONG key)
{
    const CK_RSA_PKCS_OAEP_PARAMS *parameter = mechanism->pParameter;
    if (mechanism->mechanism == CKM_RSA_PKCS_OAEP && parameter != NULL && parameter->hashAlg != CKM_SHA_1)
        return CKR_ARGUMENTS_BAD;
    return real->C_DecryptInit(session, mechanism, key);
}

static void apply_oaep_with_sha1_only(Functions *list)
{
    list->C_UnwrapKey = oaep_with_sha1_only;
    list->C_DecryptInit = oaep_with_sha1_only_decrypt;
}

#define WRAP CK_ULONG session, CK_MECHANISM *mechanism, CK_ULONG wrapping, CK_ULONG key, CK_BYTE *wrapped, CK_ULONG *length

static CK_RV wrap_needs_read_write(WRAP)
{
    return is_read_write(session) ? real->C_WrapKey(session, mechanism, wrapping, key, wrapped, length)
                                  : CKR_SESSION_READ_ONLY;
}
MUTATION(wrap_needs_read_write, C_WrapKey)

/* A key that only the token knows leaves it neither by its value nor under RSA. */
static CK_RV no_rsa_wrap(WRAP)
{
    if (mechanism->mechanism == CKM_RSA_PKCS)
        return CKR_MECHANISM_INVALID;
    return real->C_WrapKey(session, mechanism, wrapping, key, wrapped, length);
}

static CK_RV no_secret_values(CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *template, CK_ULONG count)
{
    CK_RV rv = real->C_GetAttributeValue(session, object, template, count);
    CK_ATTRIBUTE *value = attribute_of(template, count, CKA_VALUE);
    if (value == NULL || number_of(session, object, CKA_CLASS) != CKO_SECRET_KEY)
        return rv;
    value->ulValueLen = ~0UL;
    return CKR_ATTRIBUTE_SENSITIVE;
}

static void apply_session_keys_stay(Functions *list)
{
    list->C_WrapKey = no_rsa_wrap;
    list->C_GetAttributeValue = no_secret_values;
}

static CK_RV generic_secrets_wrap_nothing(WRAP)
{
    if (number_of(session, wrapping, CKA_KEY_TYPE) == CKK_GENERIC_SECRET)
        return CKR_WRAPPING_KEY_TYPE_INCONSISTENT;
    return real->C_WrapKey(session, mechanism, wrapping, key, wrapped, length);
}
MUTATION(generic_secrets_wrap_nothing, C_WrapKey)

#define DERIVE CK_ULONG session, CK_MECHANISM *mechanism, CK_ULONG key, CK_ATTRIBUTE *template, CK_ULONG count, \
               CK_ULONG *derived
#define DERIVE_ARGUMENTS session, mechanism, key, template, count, derived

static CK_RV no_kdf(DERIVE)
{
    const CK_ECDH1_DERIVE_PARAMS *parameter = mechanism->pParameter;
    if (mechanism->mechanism == CKM_ECDH1_DERIVE && parameter != NULL && parameter->kdf != CKD_NULL)
        return CKR_MECHANISM_PARAM_INVALID;
    return real->C_DeriveKey(DERIVE_ARGUMENTS);
}
MUTATION(no_kdf, C_DeriveKey)

static CK_RV points_in_der_only(DERIVE)
{
    const CK_ECDH1_DERIVE_PARAMS *parameter = mechanism->pParameter;
    if (mechanism->mechanism == CKM_ECDH1_DERIVE && parameter != NULL && parameter->ulPublicDataLen == 65)
        return CKR_MECHANISM_PARAM_INVALID;
    return real->C_DeriveKey(DERIVE_ARGUMENTS);
}
MUTATION(points_in_der_only, C_DeriveKey)

static CK_RV shared_info_is_ignored(DERIVE)
{
    CK_ECDH1_DERIVE_PARAMS *parameter = mechanism->pParameter;
    if (mechanism->mechanism == CKM_ECDH1_DERIVE && parameter != NULL)
        parameter->ulSharedDataLen = 0;
    return real->C_DeriveKey(DERIVE_ARGUMENTS);
}
MUTATION(shared_info_is_ignored, C_DeriveKey)

const Mutant key_mutants[] = {
    ROW(derive_false_refused),
    ROW(pairs_need_labels),
    ROW(pairs_are_swapped),
    ROW(pairs_lose_their_id),
    ROW(public_keys_are_private),
    ROW(public_keys_without_id),
    ROW(pairs_are_session_objects),
    ROW(no_private_key_unwrap),
    ROW(no_pkcs1_unwrap),
    ROW(unwrap_is_a_device_error),
    ROW(opens_no_mail_to_rsa),
    ROW(unwrap_needs_read_write),
    ROW(strict_usages),
    ROW(oaep_with_sha1_only),
    ROW(wrap_needs_read_write),
    ROW(session_keys_stay),
    ROW(generic_secrets_wrap_nothing),
    ROW(no_kdf),
    ROW(points_in_der_only),
    ROW(shared_info_is_ignored),
    END,
};
