/* S: slots, tokens, mechanisms. */

#include "shim.h"

#include <stdio.h>
#include <unistd.h>

static int times_listed;

/* A few listings are as they should be, so that it shows only to those who look again (S2), not while NSS loads (S1). */
#define LISTED_BEFORE 3

static CK_RV slots_shrink(CK_BYTE present, CK_ULONG *slots, CK_ULONG *count)
{
    CK_RV rv = real->C_GetSlotList(present, slots, count);
    if (rv == CKR_OK && slots != NULL && times_listed++ >= LISTED_BEFORE)
        *count = 0;
    return rv;
}
MUTATION(slots_shrink, C_GetSlotList)

static CK_RV slots_are_renumbered(CK_BYTE present, CK_ULONG *slots, CK_ULONG *count)
{
    CK_RV rv = real->C_GetSlotList(present, slots, count);
    if (rv == CKR_OK && slots != NULL && times_listed++ >= LISTED_BEFORE)
        for (CK_ULONG i = 0; i < *count; i++)
            slots[i] += 100;
    return rv;
}
MUTATION(slots_are_renumbered, C_GetSlotList)

static CK_RV slot_count_needs_a_buffer(CK_BYTE present, CK_ULONG *slots, CK_ULONG *count)
{
    CK_RV rv = real->C_GetSlotList(present, slots, count);
    return rv == CKR_OK && slots == NULL ? CKR_ARGUMENTS_BAD : rv;
}
MUTATION(slot_count_needs_a_buffer, C_GetSlotList)

static CK_RV no_slot_info(CK_ULONG slot, CK_SLOT_INFO *info)
{
    (void)slot, (void)info;
    return CKR_DEVICE_ERROR;
}
MUTATION(no_slot_info, C_GetSlotInfo)

static CK_RV token_absent(CK_ULONG slot, CK_SLOT_INFO *info)
{
    CK_RV rv = real->C_GetSlotInfo(slot, info);
    info->flags &= ~(CK_ULONG)CKF_TOKEN_PRESENT;
    return rv;
}
MUTATION(token_absent, C_GetSlotInfo)

static CK_RV hardware_slot(CK_ULONG slot, CK_SLOT_INFO *info)
{
    CK_RV rv = real->C_GetSlotInfo(slot, info);
    info->flags |= CKF_HW_SLOT;
    return rv;
}
MUTATION(hardware_slot, C_GetSlotInfo)

static CK_RV slot_padded_with_nul(CK_ULONG slot, CK_SLOT_INFO *info)
{
    CK_RV rv = real->C_GetSlotInfo(slot, info);
    if (rv == CKR_OK)
        for (size_t i = sizeof info->slotDescription; i > 0 && info->slotDescription[i - 1] == ' '; i--)
            info->slotDescription[i - 1] = '\0';
    return rv;
}
MUTATION(slot_padded_with_nul, C_GetSlotInfo)

static CK_RV description_of_the_run(CK_ULONG slot, CK_SLOT_INFO *info)
{
    char text[32];
    CK_RV rv = real->C_GetSlotInfo(slot, info);
    int length = snprintf(text, sizeof text, "slot of process %d", (int)getpid());
    memcpy(info->slotDescription, text, (size_t)length);
    return rv;
}
MUTATION(description_of_the_run, C_GetSlotInfo)

static CK_RV with_token_info(CK_ULONG slot, CK_TOKEN_INFO *info, const char *label, CK_ULONG set, CK_ULONG cleared)
{
    CK_RV rv = real->C_GetTokenInfo(slot, info);
    if (rv == CKR_OK) {
        if (label != NULL)
            memcpy(info->label, label, sizeof info->label);
        info->flags = (info->flags | set) & ~cleared;
    }
    return rv;
}

/* What it shows is not what it is called: a token that gets its label back when it is erased is erased as it was. */
static CK_RV init_token_as_it_was(CK_ULONG slot, CK_BYTE *pin, CK_ULONG length, CK_BYTE *label)
{
    CK_TOKEN_INFO info;
    CK_RV rv = real->C_GetTokenInfo(slot, &info);
    return real->C_InitToken(slot, pin, length, rv == CKR_OK ? info.label : label);
}

#define LABEL_MUTATION(name)                     \
    static void apply_##name(Functions *list)    \
    {                                            \
        list->C_GetTokenInfo = name;             \
        list->C_InitToken = init_token_as_it_was; \
    }

static CK_RV label_with_colon(CK_ULONG slot, CK_TOKEN_INFO *info)
{
    return with_token_info(slot, info, "my:token                        ", 0, 0);
}
LABEL_MUTATION(label_with_colon)

static CK_RV label_with_nul(CK_ULONG slot, CK_TOKEN_INFO *info)
{
    static const char label[33] = "token\0                          ";
    return with_token_info(slot, info, label, 0, 0);
}
LABEL_MUTATION(label_with_nul)

static CK_RV blank_label(CK_ULONG slot, CK_TOKEN_INFO *info)
{
    return with_token_info(slot, info, "                                ", 0, 0);
}
LABEL_MUTATION(blank_label)

static CK_RV says_write_protected(CK_ULONG slot, CK_TOKEN_INFO *info)
{
    return with_token_info(slot, info, NULL, CKF_WRITE_PROTECTED, 0);
}
MUTATION(says_write_protected, C_GetTokenInfo)

static CK_RV hides_the_login(CK_ULONG slot, CK_TOKEN_INFO *info)
{
    return with_token_info(slot, info, NULL, 0, CKF_LOGIN_REQUIRED);
}
MUTATION(hides_the_login, C_GetTokenInfo)

static CK_RV flags_change_each_time(CK_ULONG slot, CK_TOKEN_INFO *info)
{
    static int times;
    return with_token_info(slot, info, NULL, times++ % 2 ? CKF_CLOCK_ON_TOKEN : 0, 0);
}
MUTATION(flags_change_each_time, C_GetTokenInfo)

static CK_ULONG sessions_opened;

static CK_RV count_session(CK_ULONG slot, CK_ULONG flags, void *application, void *notify, CK_ULONG *session)
{
    sessions_opened++;
    return real->C_OpenSession(slot, flags, application, notify, session);
}

static CK_RV count_of_sessions_grows(CK_ULONG slot, CK_TOKEN_INFO *info)
{
    CK_RV rv = real->C_GetTokenInfo(slot, info);
    info->ulSessionCount = sessions_opened;
    return rv;
}

static void apply_closed_sessions_count(Functions *list)
{
    list->C_OpenSession = count_session;
    list->C_GetTokenInfo = count_of_sessions_grows;
}

static CK_RV pin_never_initialised(CK_ULONG slot, CK_TOKEN_INFO *info)
{
    return with_token_info(slot, info, NULL, 0, CKF_USER_PIN_INITIALIZED);
}
MUTATION(pin_never_initialised, C_GetTokenInfo)

static CK_RV one_session_reported(CK_ULONG slot, CK_TOKEN_INFO *info)
{
    CK_RV rv = real->C_GetTokenInfo(slot, info);
    info->ulMaxSessionCount = info->ulMaxRwSessionCount = 4;
    return rv;
}

static CK_RV few_sessions(CK_ULONG slot, CK_ULONG flags, void *application, void *notify, CK_ULONG *session)
{
    CK_TOKEN_INFO info;
    if (real->C_GetTokenInfo(slot, &info) == CKR_OK && info.ulSessionCount >= 4)
        return CKR_SESSION_COUNT;
    return real->C_OpenSession(slot, flags, application, notify, session);
}
MUTATION(few_sessions, C_OpenSession)

static void apply_few_sessions_and_says_so(Functions *list)
{
    list->C_OpenSession = few_sessions;
    list->C_GetTokenInfo = one_session_reported;
}

static CK_RV lists_what_it_lacks(CK_ULONG slot, CK_ULONG mechanism, CK_MECHANISM_INFO *info)
{
    return mechanism == CKM_ECDSA ? CKR_MECHANISM_INVALID : real->C_GetMechanismInfo(slot, mechanism, info);
}
MUTATION(lists_what_it_lacks, C_GetMechanismInfo)

static CK_RV knows_every_mechanism(CK_ULONG slot, CK_ULONG mechanism, CK_MECHANISM_INFO *info)
{
    CK_RV rv = real->C_GetMechanismInfo(slot, mechanism, info);
    if (rv != CKR_MECHANISM_INVALID)
        return rv;
    memset(info, 0, sizeof *info);
    return CKR_OK;
}
MUTATION(knows_every_mechanism, C_GetMechanismInfo)

static CK_RV no_mechanism_flags(CK_ULONG slot, CK_ULONG mechanism, CK_MECHANISM_INFO *info)
{
    CK_RV rv = real->C_GetMechanismInfo(slot, mechanism, info);
    if (rv == CKR_OK)
        info->flags = 0;
    return rv;
}
MUTATION(no_mechanism_flags, C_GetMechanismInfo)

static CK_RV mechanisms_without(CK_ULONG left_out, CK_ULONG slot, CK_ULONG *mechanisms, CK_ULONG *count)
{
    CK_RV rv = real->C_GetMechanismList(slot, mechanisms, count);
    if (rv == CKR_OK && mechanisms != NULL)
        for (CK_ULONG i = 0; i < *count; i++)
            if (mechanisms[i] == left_out)
                mechanisms[i--] = mechanisms[--*count];
    return rv;
}

static CK_RV another_list_each_time(CK_ULONG slot, CK_ULONG *mechanisms, CK_ULONG *count)
{
    static int times;
    if (mechanisms != NULL && times++ % 2)
        return mechanisms_without(CKM_SHA512_HMAC, slot, mechanisms, count);
    return real->C_GetMechanismList(slot, mechanisms, count);
}
MUTATION(another_list_each_time, C_GetMechanismList)

static CK_RV hides_raw_pss(CK_ULONG slot, CK_ULONG *mechanisms, CK_ULONG *count)
{
    return mechanisms_without(CKM_RSA_PKCS_PSS, slot, mechanisms, count);
}

static CK_RV no_raw_pss(CK_ULONG slot, CK_ULONG mechanism, CK_MECHANISM_INFO *info)
{
    return mechanism == CKM_RSA_PKCS_PSS ? CKR_MECHANISM_INVALID : real->C_GetMechanismInfo(slot, mechanism, info);
}

static void apply_only_combined_pss(Functions *list)
{
    list->C_GetMechanismList = hides_raw_pss;
    list->C_GetMechanismInfo = no_raw_pss;
}

static CK_RV mechanism_count_needs_a_buffer(CK_ULONG slot, CK_ULONG *mechanisms, CK_ULONG *count)
{
    return mechanisms == NULL ? CKR_ARGUMENTS_BAD : real->C_GetMechanismList(slot, mechanisms, count);
}
MUTATION(mechanism_count_needs_a_buffer, C_GetMechanismList)

static CK_RV random_needs_login(CK_ULONG session, CK_BYTE *data, CK_ULONG length)
{
    return logged_in(session) ? real->C_GenerateRandom(session, data, length) : CKR_USER_NOT_LOGGED_IN;
}
MUTATION(random_needs_login, C_GenerateRandom)

static CK_RV random_of_sixteen_bytes(CK_ULONG session, CK_BYTE *data, CK_ULONG length)
{
    return length > 16 ? CKR_DATA_LEN_RANGE : real->C_GenerateRandom(session, data, length);
}
MUTATION(random_of_sixteen_bytes, C_GenerateRandom)

static CK_RV digest_needs_login(CK_ULONG session, CK_MECHANISM *mechanism)
{
    return logged_in(session) ? real->C_DigestInit(session, mechanism) : CKR_USER_NOT_LOGGED_IN;
}
MUTATION(digest_needs_login, C_DigestInit)

static CK_RV writes_behind_the_buffer(CK_ULONG session, CK_BYTE *data, CK_ULONG length)
{
    CK_RV rv = real->C_GenerateRandom(session, data, length);
    if (rv == CKR_OK)
        data[length] ^= 0x55;
    return rv;
}
MUTATION(writes_behind_the_buffer, C_GenerateRandom)

static CK_RV waits_beyond_the_end(CK_ULONG flags, CK_ULONG *slot, void *reserved)
{
    CK_RV rv = real->C_WaitForSlotEvent(flags, slot, reserved);
    if (!(flags & CKF_DONT_BLOCK))
        for (;;)
            pause();
    return rv;
}
MUTATION(waits_beyond_the_end, C_WaitForSlotEvent)

/* Validated, it says, and by nobody. */
static CK_RV claims_validation(CK_ULONG session, CK_ULONG type, CK_ULONG *flags)
{
    (void)session, (void)type;
    *flags = 1;
    return CKR_OK;
}
MUTATION(claims_validation, C_GetSessionValidationFlags)

/* An object that claims a level, and nothing by which the claim could be looked up. */
#define CLAIM 0x7F1F5
static int claim_wanted;

static CK_RV search_for_claims(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count)
{
    claim_wanted = number_in(template, count, CKA_CLASS) == CKO_VALIDATION;
    return real->C_FindObjectsInit(session, template, count);
}

static CK_RV find_claim(CK_ULONG session, CK_ULONG *objects, CK_ULONG room, CK_ULONG *count)
{
    CK_RV rv = real->C_FindObjects(session, objects, room, count);
    if (rv == CKR_OK && claim_wanted && room > 0 && *count == 0) {
        objects[0] = CLAIM;
        *count = 1;
        claim_wanted = 0;
    }
    return rv;
}

static CK_RV read_claim(CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *template, CK_ULONG count)
{
    CK_RV rv = CKR_OK;
    if (object != CLAIM)
        return real->C_GetAttributeValue(session, object, template, count);
    for (CK_ULONG i = 0; i < count; i++) {
        if (template[i].type != CKA_CLASS && template[i].type != CKA_VALIDATION_LEVEL) {
            template[i].ulValueLen = ~0UL;
            rv = CKR_ATTRIBUTE_TYPE_INVALID;
        } else if (template[i].pValue != NULL && template[i].ulValueLen >= sizeof(CK_ULONG)) {
            CK_ULONG value = template[i].type == CKA_CLASS ? CKO_VALIDATION : 3;
            memcpy(template[i].pValue, &value, sizeof value);
            template[i].ulValueLen = sizeof value;
        } else {
            template[i].ulValueLen = sizeof(CK_ULONG);
        }
    }
    return rv;
}

static void apply_claims_a_level(Functions *list)
{
    list->C_FindObjectsInit = search_for_claims;
    list->C_FindObjects = find_claim;
    list->C_GetAttributeValue = read_claim;
}

/* The list is as it should be until somebody has logged in. */
static int somebody_was_there;

static CK_RV note_the_login(CK_ULONG session, CK_ULONG user, CK_BYTE *pin, CK_ULONG length)
{
    CK_RV rv = real->C_Login(session, user, pin, length);
    somebody_was_there |= rv == CKR_OK;
    return rv;
}

static CK_RV list_until_a_login(CK_BYTE present, CK_ULONG *slots, CK_ULONG *count)
{
    CK_RV rv = real->C_GetSlotList(present, slots, count);
    if (rv == CKR_OK && somebody_was_there)
        *count = 0;
    return rv;
}

static void apply_slots_vanish_after_a_login(Functions *list)
{
    list->C_Login = note_the_login;
    list->C_GetSlotList = list_until_a_login;
}

const Mutant slot_mutants[] = {
    ROW(claims_validation),
    ROW(claims_a_level),
    ROW(slots_vanish_after_a_login),
    ROW(slots_shrink),
    ROW(slots_are_renumbered),
    ROW(slot_count_needs_a_buffer),
    ROW(no_slot_info),
    ROW(token_absent),
    ROW(hardware_slot),
    ROW(slot_padded_with_nul),
    ROW(description_of_the_run),
    ROW(label_with_colon),
    ROW(label_with_nul),
    ROW(blank_label),
    ROW(says_write_protected),
    ROW(hides_the_login),
    ROW(pin_never_initialised),
    ROW(flags_change_each_time),
    ROW(closed_sessions_count),
    ROW(few_sessions),
    ROW(few_sessions_and_says_so),
    ROW(lists_what_it_lacks),
    ROW(knows_every_mechanism),
    ROW(no_mechanism_flags),
    ROW(only_combined_pss),
    ROW(another_list_each_time),
    ROW(mechanism_count_needs_a_buffer),
    ROW(random_needs_login),
    ROW(random_of_sixteen_bytes),
    ROW(digest_needs_login),
    ROW(writes_behind_the_buffer),
    ROW(waits_beyond_the_end),
    END,
};
