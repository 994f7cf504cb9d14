/* SE11 to SE15, S12 to S20, P6, P11: logins and PINs. */

#include "shim.h"

static CK_RV wrong_pin_is_a_general_error(CK_ULONG session, CK_ULONG user, CK_BYTE *pin, CK_ULONG length)
{
    CK_RV rv = real->C_Login(session, user, pin, length);
    return rv == CKR_PIN_INCORRECT ? CKR_GENERAL_ERROR : rv;
}
MUTATION(wrong_pin_is_a_general_error, C_Login)

/* The right one is that of the tests (mutant.py). */
static CK_RV any_pin_is_right(CK_ULONG session, CK_ULONG user, CK_BYTE *pin, CK_ULONG length)
{
    CK_RV rv = real->C_Login(session, user, pin, length);
    return rv == CKR_PIN_INCORRECT ? real->C_Login(session, user, (CK_BYTE *)"13572468", 8) : rv;
}
MUTATION(any_pin_is_right, C_Login)

static CK_RV second_login_fails(CK_ULONG session, CK_ULONG user, CK_BYTE *pin, CK_ULONG length)
{
    CK_RV rv = real->C_Login(session, user, pin, length);
    return rv == CKR_USER_ALREADY_LOGGED_IN ? CKR_FUNCTION_FAILED : rv;
}
MUTATION(second_login_fails, C_Login)

static CK_RV login_needs_read_write(CK_ULONG session, CK_ULONG user, CK_BYTE *pin, CK_ULONG length)
{
    return is_read_write(session) ? real->C_Login(session, user, pin, length) : CKR_SESSION_READ_ONLY;
}
MUTATION(login_needs_read_write, C_Login)

/* Only the session that logged in says so. */
static CK_ULONG logged_in_session;

static CK_RV login_of_one_session(CK_ULONG session, CK_ULONG user, CK_BYTE *pin, CK_ULONG length)
{
    CK_RV rv = real->C_Login(session, user, pin, length);
    if (rv == CKR_OK)
        logged_in_session = session;
    return rv;
}

static CK_RV state_of_one_session(CK_ULONG session, CK_SESSION_INFO *info)
{
    CK_RV rv = real->C_GetSessionInfo(session, info);
    if (rv == CKR_OK && session != logged_in_session)
        info->state = info->flags & CKF_RW_SESSION ? CKS_RW_PUBLIC_SESSION : CKS_RO_PUBLIC_SESSION;
    return rv;
}

static void apply_login_of_one_session(Functions *list)
{
    list->C_Login = login_of_one_session;
    list->C_GetSessionInfo = state_of_one_session;
}

static CK_RV state_never_changes(CK_ULONG session, CK_SESSION_INFO *info)
{
    CK_RV rv = real->C_GetSessionInfo(session, info);
    if (rv == CKR_OK)
        info->state = info->flags & CKF_RW_SESSION ? CKS_RW_PUBLIC_SESSION : CKS_RO_PUBLIC_SESSION;
    return rv;
}
MUTATION(state_never_changes, C_GetSessionInfo)

static CK_RV logout_does_nothing(CK_ULONG session)
{
    CK_ULONG state = state_of(session);
    if (state == ~0UL)
        return CKR_SESSION_HANDLE_INVALID;
    return state == CKS_RO_PUBLIC_SESSION || state == CKS_RW_PUBLIC_SESSION ? CKR_USER_NOT_LOGGED_IN : CKR_OK;
}
MUTATION(logout_does_nothing, C_Logout)

static CK_RV logout_closes_the_session(CK_ULONG session)
{
    CK_RV rv = real->C_Logout(session);
    real->C_CloseSession(session);
    return rv;
}
MUTATION(logout_closes_the_session, C_Logout)

static CK_RV idle_logout_fails(CK_ULONG session)
{
    CK_RV rv = real->C_Logout(session);
    return rv == CKR_USER_NOT_LOGGED_IN ? CKR_FUNCTION_FAILED : rv;
}
MUTATION(idle_logout_fails, C_Logout)

static CK_RV so_login_beside_read_only_refused(CK_ULONG session, CK_ULONG user, CK_BYTE *pin, CK_ULONG length)
{
    CK_SESSION_INFO info;
    CK_TOKEN_INFO token;
    if (user == CKU_SO && real->C_GetSessionInfo(session, &info) == CKR_OK &&
        real->C_GetTokenInfo(info.slotID, &token) == CKR_OK && token.ulSessionCount > token.ulRwSessionCount)
        return CKR_SESSION_READ_ONLY_EXISTS;
    return real->C_Login(session, user, pin, length);
}
MUTATION(so_login_beside_read_only_refused, C_Login)

static CK_RV empty_so_pin_refused(CK_ULONG session, CK_ULONG user, CK_BYTE *pin, CK_ULONG length)
{
    return user == CKU_SO && length == 0 ? CKR_PIN_LEN_RANGE : real->C_Login(session, user, pin, length);
}
MUTATION(empty_so_pin_refused, C_Login)

static CK_RV empty_so_pin_is_wrong(CK_ULONG session, CK_ULONG user, CK_BYTE *pin, CK_ULONG length)
{
    return user == CKU_SO && length == 0 ? CKR_PIN_INCORRECT : real->C_Login(session, user, pin, length);
}
MUTATION(empty_so_pin_is_wrong, C_Login)

static CK_RV init_pin_changes_nothing(CK_ULONG session, CK_BYTE *pin, CK_ULONG length)
{
    (void)pin, (void)length;
    return state_of(session) == CKS_RW_SO_FUNCTIONS ? CKR_OK : CKR_USER_NOT_LOGGED_IN;
}
MUTATION(init_pin_changes_nothing, C_InitPIN)

static CK_RV init_pin_fails(CK_ULONG session, CK_BYTE *pin, CK_ULONG length)
{
    (void)session, (void)pin, (void)length;
    return CKR_FUNCTION_FAILED;
}
MUTATION(init_pin_fails, C_InitPIN)

static CK_RV set_pin_fails(CK_ULONG session, CK_BYTE *old, CK_ULONG old_length, CK_BYTE *new, CK_ULONG length)
{
    (void)session, (void)old, (void)old_length, (void)new, (void)length;
    return CKR_FUNCTION_FAILED;
}
MUTATION(set_pin_fails, C_SetPIN)

static CK_RV set_pin_changes_nothing(CK_ULONG session, CK_BYTE *old, CK_ULONG old_length, CK_BYTE *new, CK_ULONG length)
{
    (void)old, (void)old_length, (void)new, (void)length;
    return is_read_write(session) ? CKR_OK : CKR_SESSION_READ_ONLY;
}
MUTATION(set_pin_changes_nothing, C_SetPIN)

static CK_RV set_pin_logs_out(CK_ULONG session, CK_BYTE *old, CK_ULONG old_length, CK_BYTE *new, CK_ULONG length)
{
    CK_RV rv = real->C_SetPIN(session, old, old_length, new, length);
    real->C_Logout(session);
    return rv;
}
MUTATION(set_pin_logs_out, C_SetPIN)

static CK_RV init_token_loses_the_label(CK_ULONG slot, CK_BYTE *pin, CK_ULONG length, CK_BYTE *label)
{
    (void)label;
    return real->C_InitToken(slot, pin, length, (CK_BYTE *)"another label                   ");
}
MUTATION(init_token_loses_the_label, C_InitToken)

static CK_RV no_login_for_one_key(CK_ULONG session, CK_ULONG user, CK_BYTE *pin, CK_ULONG length)
{
    return user == CKU_CONTEXT_SPECIFIC ? CKR_USER_TYPE_INVALID : real->C_Login(session, user, pin, length);
}
MUTATION(no_login_for_one_key, C_Login)

/* A login that follows a C_Logout, as before each use of a key, works twice and then no more. */
static int logouts;

static CK_RV count_logouts(CK_ULONG session)
{
    CK_RV rv = real->C_Logout(session);
    logouts += rv == CKR_OK;
    return rv;
}

static CK_RV tires_of_logins(CK_ULONG session, CK_ULONG user, CK_BYTE *pin, CK_ULONG length)
{
    return logouts > 3 ? CKR_FUNCTION_FAILED : real->C_Login(session, user, pin, length);
}

static void apply_tires_of_logins(Functions *list)
{
    list->C_Logout = count_logouts;
    list->C_Login = tires_of_logins;
}

const Mutant login_mutants[] = {
    ROW(wrong_pin_is_a_general_error),
    ROW(any_pin_is_right),
    ROW(second_login_fails),
    ROW(login_needs_read_write),
    ROW(login_of_one_session),
    ROW(state_never_changes),
    ROW(logout_does_nothing),
    ROW(logout_closes_the_session),
    ROW(idle_logout_fails),
    ROW(so_login_beside_read_only_refused),
    ROW(empty_so_pin_refused),
    ROW(empty_so_pin_is_wrong),
    ROW(init_pin_changes_nothing),
    ROW(init_pin_fails),
    ROW(set_pin_fails),
    ROW(set_pin_changes_nothing),
    ROW(set_pin_logs_out),
    ROW(init_token_loses_the_label),
    ROW(no_login_for_one_key),
    ROW(tires_of_logins),
    END,
};
