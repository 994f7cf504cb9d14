/* K3, K4, P4, P5, P22, P29, P39: signing and decrypting. */

#include "shim.h"

#include <unistd.h>

static CK_RV no_digest_info(CK_ULONG session, CK_BYTE *data, CK_ULONG length, CK_BYTE *signature, CK_ULONG *room)
{
    if (length == 51)
        return CKR_DATA_LEN_RANGE;
    return real->C_Sign(session, data, length, signature, room);
}
MUTATION(no_digest_info, C_Sign)

/* The room must be larger than the signature. */
static CK_RV exact_room_is_too_small(CK_ULONG session, CK_BYTE *data, CK_ULONG length, CK_BYTE *signature,
                                     CK_ULONG *room)
{
    CK_ULONG needed = 0;
    if (signature != NULL && real->C_Sign(session, data, length, NULL, &needed) == CKR_OK && *room <= needed) {
        *room = needed + 1;
        return CKR_BUFFER_TOO_SMALL;
    }
    return real->C_Sign(session, data, length, signature, room);
}
MUTATION(exact_room_is_too_small, C_Sign)

static CK_RV wrong_signatures(CK_ULONG session, CK_BYTE *data, CK_ULONG length, CK_BYTE *signature, CK_ULONG *room)
{
    CK_RV rv = real->C_Sign(session, data, length, signature, room);
    if (rv == CKR_OK && signature != NULL && *room > 0)
        signature[*room - 1] ^= 1;
    return rv;
}
MUTATION(wrong_signatures, C_Sign)

/* ECDSA as DER, as in X.509, where PKCS #11 has r and s alone. */
static CK_RV der_signatures(CK_ULONG session, CK_BYTE *data, CK_ULONG length, CK_BYTE *signature, CK_ULONG *room)
{
    CK_BYTE raw[64];
    CK_ULONG size = 0;
    CK_RV rv = real->C_Sign(session, data, length, NULL, &size);
    if (rv != CKR_OK || size != sizeof raw)
        return real->C_Sign(session, data, length, signature, room);
    if (signature == NULL || *room < 72) {
        *room = 72;
        return signature == NULL ? CKR_OK : CKR_BUFFER_TOO_SMALL;
    }
    rv = real->C_Sign(session, data, length, raw, &size);
    static const CK_BYTE head[] = {0x30, 70, 0x02, 33, 0};
    memcpy(signature, head, 5);
    memcpy(signature + 5, raw, 32);
    memcpy(signature + 37, "\x02\x21\x00", 3);
    memcpy(signature + 40, raw + 32, 32);
    *room = 72;
    return rv;
}
MUTATION(der_signatures, C_Sign)

static CK_RV refuse_mechanism(CK_ULONG refused, CK_ULONG session, CK_MECHANISM *mechanism, CK_ULONG key)
{
    return mechanism->mechanism == refused ? CKR_MECHANISM_INVALID : real->C_SignInit(session, mechanism, key);
}

static CK_RV no_pss(CK_ULONG session, CK_MECHANISM *mechanism, CK_ULONG key)
{
    return refuse_mechanism(CKM_RSA_PKCS_PSS, session, mechanism, key);
}
MUTATION(no_pss, C_SignInit)

static CK_RV no_raw_ecdsa(CK_ULONG session, CK_MECHANISM *mechanism, CK_ULONG key)
{
    return refuse_mechanism(CKM_ECDSA, session, mechanism, key);
}
MUTATION(no_raw_ecdsa, C_SignInit)

static CK_RV lists_combined_signs_not(CK_ULONG session, CK_MECHANISM *mechanism, CK_ULONG key)
{
    return refuse_mechanism(CKM_SHA256_RSA_PKCS_PSS, session, mechanism, key);
}
MUTATION(lists_combined_signs_not, C_SignInit)

/* Hash-and-sign is offered even while a key asks for its PIN each time. */
static CK_RV always_offers_combined(CK_ULONG slot, CK_ULONG mechanism, CK_MECHANISM_INFO *info)
{
    CK_RV rv = real->C_GetMechanismInfo(slot, mechanism, info);
    if (rv == CKR_OK && mechanism == CKM_SHA256_RSA_PKCS_PSS)
        info->flags |= CKF_SIGN;
    return rv;
}
MUTATION(always_offers_combined, C_GetMechanismInfo)

static CK_RV unknown_mechanism_is_a_general_error(CK_ULONG session, CK_MECHANISM *mechanism, CK_ULONG key)
{
    CK_RV rv = real->C_SignInit(session, mechanism, key);
    return rv == CKR_MECHANISM_INVALID ? CKR_GENERAL_ERROR : rv;
}
MUTATION(unknown_mechanism_is_a_general_error, C_SignInit)

/* Keys are only good in a read-write session. */
static CK_RV signing_needs_read_write(CK_ULONG session, CK_MECHANISM *mechanism, CK_ULONG key)
{
    return is_read_write(session) ? real->C_SignInit(session, mechanism, key) : CKR_SESSION_READ_ONLY;
}
MUTATION(signing_needs_read_write, C_SignInit)

static CK_RV no_pkcs1_decryption(CK_ULONG session, CK_MECHANISM *mechanism, CK_ULONG key)
{
    return mechanism->mechanism == CKM_RSA_PKCS ? CKR_MECHANISM_INVALID : real->C_DecryptInit(session, mechanism, key);
}
MUTATION(no_pkcs1_decryption, C_DecryptInit)

/* A forked child is taken for its parent. */
static pid_t first_process;

static CK_RV initialize_once(void *arguments)
{
    first_process = getpid();
    return real->C_Initialize(arguments);
}

static CK_RV answers_in_the_child(CK_BYTE present, CK_ULONG *slots, CK_ULONG *count)
{
    CK_RV rv = real->C_GetSlotList(present, slots, count);
    if (rv == CKR_CRYPTOKI_NOT_INITIALIZED && first_process != 0 && first_process != getpid()) {
        *count = 1;
        if (slots != NULL)
            slots[0] = 1;
        return CKR_OK;
    }
    return rv;
}

static void apply_child_is_initialised(Functions *list)
{
    list->C_Initialize = initialize_once;
    list->C_GetSlotList = answers_in_the_child;
}

const Mutant operation_mutants[] = {
    ROW(no_digest_info),
    ROW(exact_room_is_too_small),
    ROW(wrong_signatures),
    ROW(der_signatures),
    ROW(no_pss),
    ROW(no_raw_ecdsa),
    ROW(lists_combined_signs_not),
    ROW(always_offers_combined),
    ROW(unknown_mechanism_is_a_general_error),
    ROW(signing_needs_read_write),
    ROW(no_pkcs1_decryption),
    ROW(child_is_initialised),
    END,
};
