/* SE, N: sessions and what lives in them. */

#include "shim.h"

static CK_RV only_read_write_sessions(CK_ULONG slot, CK_ULONG flags, void *application, void *notify, CK_ULONG *session)
{
    if (!(flags & CKF_RW_SESSION))
        return CKR_SESSION_PARALLEL_NOT_SUPPORTED;
    return real->C_OpenSession(slot, flags, application, notify, session);
}
MUTATION(only_read_write_sessions, C_OpenSession)

static CK_RV read_write_sessions_alone(CK_ULONG slot, CK_ULONG flags, void *application, void *notify,
                                       CK_ULONG *session)
{
    CK_TOKEN_INFO token;
    if ((flags & CKF_RW_SESSION) && real->C_GetTokenInfo(slot, &token) == CKR_OK && token.ulSessionCount > 0)
        return CKR_SESSION_EXISTS;
    return real->C_OpenSession(slot, flags, application, notify, session);
}
MUTATION(read_write_sessions_alone, C_OpenSession)

static CK_ULONG shared;

/* Every session is the same one. */
static CK_RV one_handle_for_all(CK_ULONG slot, CK_ULONG flags, void *application, void *notify, CK_ULONG *session)
{
    CK_SESSION_INFO info;
    if (shared != 0 && real->C_GetSessionInfo(shared, &info) == CKR_OK) {
        *session = shared;
        return CKR_OK;
    }
    CK_RV rv = real->C_OpenSession(slot, flags | CKF_RW_SESSION, application, notify, session);
    shared = rv == CKR_OK ? *session : 0;
    return rv;
}
MUTATION(one_handle_for_all, C_OpenSession)

static CK_RV search_ends_other_operations(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count)
{
    for (CK_ULONG other = 1; other < 5000; other++)
        if (other != session)
            real->C_SessionCancel(other, CKF_SIGN | CKF_DECRYPT | CKF_DIGEST);
    return real->C_FindObjectsInit(session, template, count);
}
MUTATION(search_ends_other_operations, C_FindObjectsInit)

static CK_RV session_info_ends_the_operation(CK_ULONG session, CK_SESSION_INFO *info)
{
    for (CK_ULONG other = 1; other < 5000; other++)
        real->C_SessionCancel(other, CKF_SIGN | CKF_DECRYPT | CKF_FIND_OBJECTS);
    return real->C_GetSessionInfo(session, info);
}
MUTATION(session_info_ends_the_operation, C_GetSessionInfo)

static CK_RV close_closes_nothing(CK_ULONG session)
{
    CK_SESSION_INFO info;
    return real->C_GetSessionInfo(session, &info);
}
MUTATION(close_closes_nothing, C_CloseSession)

static CK_RV close_all_fails(CK_ULONG slot)
{
    real->C_CloseAllSessions(slot);
    return CKR_SLOT_ID_INVALID;
}
MUTATION(close_all_fails, C_CloseAllSessions)

static CK_RV handle_zero_crashes(CK_ULONG session, CK_SESSION_INFO *info)
{
    if (session == 0)
        *(volatile int *)8 = 1;
    return real->C_GetSessionInfo(session, info);
}
MUTATION(handle_zero_crashes, C_GetSessionInfo)

static CK_RV handle_zero_hangs(CK_ULONG session, CK_ULONG object)
{
    while (session == 0 || object == 0)
        ;
    return real->C_DestroyObject(session, object);
}
MUTATION(handle_zero_hangs, C_DestroyObject)

/* Token objects may be made in any session. */
static CK_RV read_only_writes(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count, CK_ULONG *object)
{
    CK_SESSION_INFO info;
    CK_ULONG writing;
    CK_RV rv = real->C_CreateObject(session, template, count, object);
    if (rv != CKR_SESSION_READ_ONLY || real->C_GetSessionInfo(session, &info) != CKR_OK)
        return rv;
    rv = real->C_OpenSession(info.slotID, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &writing);
    if (rv != CKR_OK)
        return rv;
    rv = real->C_CreateObject(writing, template, count, object);
    real->C_CloseSession(writing);
    return rv;
}
MUTATION(read_only_writes, C_CreateObject)

static CK_RV no_session_objects_read_only(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count, CK_ULONG *object)
{
    return is_read_write(session) ? real->C_CreateObject(session, template, count, object) : CKR_SESSION_READ_ONLY;
}
MUTATION(no_session_objects_read_only, C_CreateObject)

static CK_ULONG owned_object, owner;

static CK_RV remember_owner(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count, CK_ULONG *object)
{
    CK_RV rv = real->C_CreateObject(session, template, count, object);
    if (rv == CKR_OK && !is_token_object(session, *object)) {
        owned_object = *object;
        owner = session;
    }
    return rv;
}

static int is_foreign(CK_ULONG session, CK_ULONG object)
{
    return object == owned_object && object != 0 && session != owner;
}

static CK_RV attributes_of_own_objects(CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *template, CK_ULONG count)
{
    return is_foreign(session, object) ? CKR_OBJECT_HANDLE_INVALID
                                       : real->C_GetAttributeValue(session, object, template, count);
}

static CK_RV destroy_own_objects(CK_ULONG session, CK_ULONG object)
{
    return is_foreign(session, object) ? CKR_OBJECT_HANDLE_INVALID : real->C_DestroyObject(session, object);
}

static CK_RV encrypt_with_own_objects(CK_ULONG session, CK_MECHANISM *mechanism, CK_ULONG key)
{
    return is_foreign(session, key) ? CKR_KEY_HANDLE_INVALID : real->C_EncryptInit(session, mechanism, key);
}

static CK_RV decrypt_with_own_objects(CK_ULONG session, CK_MECHANISM *mechanism, CK_ULONG key)
{
    return is_foreign(session, key) ? CKR_KEY_HANDLE_INVALID : real->C_DecryptInit(session, mechanism, key);
}

static void apply_session_objects_of_one_session(Functions *list)
{
    list->C_CreateObject = remember_owner;
    list->C_GetAttributeValue = attributes_of_own_objects;
    list->C_DestroyObject = destroy_own_objects;
    list->C_EncryptInit = encrypt_with_own_objects;
    list->C_DecryptInit = decrypt_with_own_objects;
}

/* C_SetOperationState that leaves the state where it was: the operation goes on from a wrong place. */
static CK_RV state_is_not_restored(CK_ULONG session, CK_BYTE *state, CK_ULONG length, CK_ULONG key, CK_ULONG other)
{
    (void)session, (void)state, (void)length, (void)key, (void)other;
    return CKR_OK;
}
MUTATION(state_is_not_restored, C_SetOperationState)

/* Whoever restores a state a second time shares the operation of whoever was first. */
static CK_BYTE first_state[256];
static CK_ULONG first_length, first_session, times_restored, sharing;

static CK_RV states_are_shared(CK_ULONG session, CK_BYTE *state, CK_ULONG length, CK_ULONG key, CK_ULONG other)
{
    if (length != first_length || memcmp(state, first_state, length) != 0 || session == first_session) {
        first_length = length < sizeof first_state ? length : 0;
        memcpy(first_state, state, first_length);
        first_session = session;
        times_restored = 0;
    }
    if (first_length == 0 || times_restored++ == 0 || session == first_session)
        return real->C_SetOperationState(session, state, length, key, other);
    sharing = session;
    return CKR_OK;
}

static CK_RV digest_in_the_shared(CK_ULONG session, CK_BYTE *data, CK_ULONG length)
{
    return real->C_DigestUpdate(session == sharing ? first_session : session, data, length);
}

static CK_RV end_of_the_shared(CK_ULONG session, CK_BYTE *digest, CK_ULONG *length)
{
    CK_RV rv = real->C_DigestFinal(session == sharing ? first_session : session, digest, length);
    if (session == sharing)
        sharing = 0;
    return rv;
}

static void apply_states_are_shared(Functions *list)
{
    list->C_SetOperationState = states_are_shared;
    list->C_DigestUpdate = digest_in_the_shared;
    list->C_DigestFinal = end_of_the_shared;
}

const Mutant session_mutants[] = {
    ROW(only_read_write_sessions),
    ROW(read_write_sessions_alone),
    ROW(one_handle_for_all),
    ROW(search_ends_other_operations),
    ROW(session_info_ends_the_operation),
    ROW(close_closes_nothing),
    ROW(close_all_fails),
    ROW(handle_zero_crashes),
    ROW(handle_zero_hangs),
    ROW(read_only_writes),
    ROW(no_session_objects_read_only),
    ROW(session_objects_of_one_session),
    ROW(state_is_not_restored),
    ROW(states_are_shared),
    END,
};
