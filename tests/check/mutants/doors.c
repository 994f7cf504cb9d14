/* G: loading, C_Initialize, C_Finalize, C_GetInfo. */

#include "shim.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int finalized;

static CK_RV no_second_life(void *arguments)
{
    return finalized ? CKR_GENERAL_ERROR : real->C_Initialize(arguments);
}

static CK_RV remember_finalize(void *reserved)
{
    finalized = 1;
    return real->C_Finalize(reserved);
}

static void apply_no_second_life(Functions *list)
{
    list->C_Initialize = no_second_life;
    list->C_Finalize = remember_finalize;
}

static CK_RV wants_threads(void *arguments)
{
    const CK_C_INITIALIZE_ARGS *given = arguments;
    if (given != NULL && (given->flags & CKF_LIBRARY_CANT_CREATE_OS_THREADS))
        return CKR_NEED_TO_CREATE_THREADS;
    return real->C_Initialize(arguments);
}
MUTATION(wants_threads, C_Initialize)

static CK_RV needs_arguments(void *arguments)
{
    return arguments == NULL ? CKR_ARGUMENTS_BAD : real->C_Initialize(arguments);
}
MUTATION(needs_arguments, C_Initialize)

static CK_RV needs_callbacks_only(void *arguments)
{
    const CK_C_INITIALIZE_ARGS *given = arguments;
    if (given != NULL && given->CreateMutex != NULL && (given->flags & CKF_OS_LOCKING_OK))
        return CKR_CANT_LOCK;
    return real->C_Initialize(arguments);
}
MUTATION(needs_callbacks_only, C_Initialize)

static CK_RV finalize_fails(void *reserved)
{
    real->C_Finalize(reserved);
    return CKR_FUNCTION_FAILED;
}
MUTATION(finalize_fails, C_Finalize)

/* C_GetInfo that works at any time, with what the module said last. */
static CK_INFO last_info;

static CK_RV info_without_initialize(CK_INFO *info)
{
    CK_INFO fresh;
    CK_RV rv = real->C_GetInfo(&fresh);
    if (rv == CKR_OK)
        last_info = fresh;
    *info = last_info;
    return CKR_OK;
}
MUTATION(info_without_initialize, C_GetInfo)

static CK_RV session_calls_after_finalize(CK_ULONG session, CK_SESSION_INFO *info)
{
    CK_RV rv = real->C_GetSessionInfo(session, info);
    return rv == CKR_CRYPTOKI_NOT_INITIALIZED ? CKR_OK : rv;
}
MUTATION(session_calls_after_finalize, C_GetSessionInfo)

static void apply_hole_in_the_list(Functions *list)
{
    list->C_WaitForSlotEvent = NULL;
}

static CK_RV info_padded_with_nul(CK_INFO *info)
{
    CK_RV rv = real->C_GetInfo(info);
    if (rv == CKR_OK)
        for (size_t i = sizeof info->manufacturerID; i > 0 && info->manufacturerID[i - 1] == ' '; i--)
            info->manufacturerID[i - 1] = '\0';
    return rv;
}
MUTATION(info_padded_with_nul, C_GetInfo)

static CK_RV version_one(CK_INFO *info)
{
    CK_RV rv = real->C_GetInfo(info);
    info->cryptokiVersion.major = 1;
    return rv;
}
MUTATION(version_one, C_GetInfo)

static CK_RV quotes_in_description(CK_INFO *info)
{
    CK_RV rv = real->C_GetInfo(info);
    memcpy(info->libraryDescription, "the \"best\" module               ", 32);
    return rv;
}
MUTATION(quotes_in_description, C_GetInfo)

static CK_RV blank_description(CK_INFO *info)
{
    CK_RV rv = real->C_GetInfo(info);
    memset(info->libraryDescription, ' ', sizeof info->libraryDescription);
    return rv;
}
MUTATION(blank_description, C_GetInfo)

static CK_RV prints(CK_INFO *info)
{
    puts("C_GetInfo was called");
    fflush(stdout);
    return real->C_GetInfo(info);
}
MUTATION(prints, C_GetInfo)

const Mutant door_mutants[] = {
    {"interface_needs_a_version", NULL},
    ROW(no_second_life),
    ROW(wants_threads),
    ROW(needs_arguments),
    ROW(needs_callbacks_only),
    ROW(finalize_fails),
    ROW(info_without_initialize),
    ROW(session_calls_after_finalize),
    ROW(hole_in_the_list),
    ROW(info_padded_with_nul),
    ROW(version_one),
    ROW(quotes_in_description),
    ROW(blank_description),
    ROW(prints),
    END,
};
