/* S4, S5, S9, SE9, SE10, P31: tokens that come and go, and a PIN pad. */

#include "shim.h"

/* A token in a permanent slot that is gone after a while. */
static int times_asked;
#define ASKED_BEFORE 12

static CK_RV token_vanishes(CK_ULONG slot, CK_SLOT_INFO *info)
{
    CK_RV rv = real->C_GetSlotInfo(slot, info);
    if (rv == CKR_OK && times_asked++ >= ASKED_BEFORE)
        info->flags &= ~(CK_ULONG)CKF_TOKEN_PRESENT;
    return rv;
}
MUTATION(token_vanishes, C_GetSlotInfo)

/* What the slot said first, it says for ever. */
static CK_RV presence_is_remembered(CK_ULONG slot, CK_SLOT_INFO *info)
{
    CK_RV rv = real->C_GetSlotInfo(slot, info);
    if (rv == CKR_OK && (info->flags & CKF_REMOVABLE_DEVICE))
        info->flags |= CKF_TOKEN_PRESENT;
    return rv;
}
MUTATION(presence_is_remembered, C_GetSlotInfo)

/* Whether the token was seen to be away, in this process. */
static int away, was_away;

static CK_RV look(CK_ULONG slot, CK_SLOT_INFO *info)
{
    CK_RV rv = real->C_GetSlotInfo(slot, info);
    away = rv == CKR_OK && (info->flags & CKF_REMOVABLE_DEVICE) && !(info->flags & CKF_TOKEN_PRESENT);
    was_away |= away;
    return rv;
}

static CK_RV info_while_away(CK_ULONG session, CK_SESSION_INFO *info)
{
    CK_RV rv = real->C_GetSessionInfo(session, info);
    if (rv == CKR_OK || !away)
        return rv;
    info->state = CKS_RO_PUBLIC_SESSION;
    return CKR_OK;
}

static void apply_sessions_outlive_the_token(Functions *list)
{
    list->C_GetSlotInfo = look;
    list->C_GetSessionInfo = info_while_away;
}

static CK_RV info_when_back(CK_ULONG session, CK_SESSION_INFO *info)
{
    CK_RV rv = real->C_GetSessionInfo(session, info);
    if (rv == CKR_OK || away || !was_away)
        return rv;
    info->state = CKS_RO_PUBLIC_SESSION;
    return CKR_OK;
}

static void apply_old_sessions_come_back(Functions *list)
{
    list->C_GetSlotInfo = look;
    list->C_GetSessionInfo = info_when_back;
}

static CK_RV no_second_opening(CK_ULONG slot, CK_ULONG flags, void *application, void *notify, CK_ULONG *session)
{
    return was_away ? CKR_DEVICE_ERROR : real->C_OpenSession(slot, flags, application, notify, session);
}

static void apply_dead_after_insertion(Functions *list)
{
    list->C_GetSlotInfo = look;
    list->C_OpenSession = no_second_opening;
}

static CK_RV still_logged_in(CK_ULONG session, CK_SESSION_INFO *info)
{
    CK_RV rv = real->C_GetSessionInfo(session, info);
    if (rv == CKR_OK && was_away)
        info->state = CKS_RO_USER_FUNCTIONS;
    return rv;
}

static void apply_login_outlives_the_token(Functions *list)
{
    list->C_GetSlotInfo = look;
    list->C_GetSessionInfo = still_logged_in;
}

/* A PIN pad, on which somebody types the PIN of the tests (mutant.py). */
static CK_RV with_a_pin_pad(CK_ULONG slot, CK_TOKEN_INFO *info)
{
    CK_RV rv = real->C_GetTokenInfo(slot, info);
    if (rv == CKR_OK)
        info->flags |= CKF_PROTECTED_AUTHENTICATION_PATH;
    return rv;
}

static CK_RV typed_on_the_pad(CK_ULONG session, CK_ULONG user, CK_BYTE *pin, CK_ULONG length)
{
    return pin == NULL ? real->C_Login(session, user, (CK_BYTE *)"13572468", 8) : real->C_Login(session, user, pin, length);
}

static CK_RV refuses_null(CK_ULONG session, CK_ULONG user, CK_BYTE *pin, CK_ULONG length)
{
    return pin == NULL ? CKR_ARGUMENTS_BAD : real->C_Login(session, user, pin, length);
}

static void apply_pin_pad(Functions *list)
{
    list->C_GetTokenInfo = with_a_pin_pad;
    list->C_Login = typed_on_the_pad;
}

static void apply_pin_pad_refuses_null(Functions *list)
{
    list->C_GetTokenInfo = with_a_pin_pad;
    list->C_Login = refuses_null;
}

const Mutant removal_mutants[] = {
    ROW(token_vanishes),
    ROW(presence_is_remembered),
    ROW(sessions_outlive_the_token),
    ROW(old_sessions_come_back),
    ROW(dead_after_insertion),
    ROW(login_outlives_the_token),
    ROW(pin_pad),
    ROW(pin_pad_refuses_null),
    END,
};
