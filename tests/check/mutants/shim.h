/* A module that forwards to another one (KEYFOB_MUTANT_OF) and breaks one rule of NSS (KEYFOB_MUTANT names how). */

#ifndef SHIM_H
#define SHIM_H

#include <stddef.h>
#include <string.h>

#include "cryptoki.h"

typedef CK_FUNCTION_LIST_3_2 Functions;

/* The module behind. */
extern const Functions *real;

typedef struct {
    const char *name;
    void (*apply)(Functions *list); /* NULL: the mutant lives at the doors, see shim.c */
} Mutant;

/* One table per file, ended by a row without a name. */
extern const Mutant door_mutants[], slot_mutants[], session_mutants[], login_mutants[], search_mutants[],
    object_mutants[], key_mutants[], operation_mutants[], multipurpose_mutants[],
    removal_mutants[], lies[];

/* Whether the shim is this mutant: for the doors and for what a mutant shares. */
int is_mutant(const char *name);

/* MUTANT(copy_needs_template, C_CopyObject): the row of a mutant that replaces one function by the one of its name. */
#define MUTATION(name, slot) \
    static void apply_##name(Functions *list) { list->slot = name; }
#define ROW(name) {#name, apply_##name}
#define END {NULL, NULL}

/* The attribute in a template, or NULL. */
static inline CK_ATTRIBUTE *attribute_of(CK_ATTRIBUTE *list, CK_ULONG count, CK_ULONG type)
{
    for (CK_ULONG i = 0; list != NULL && i < count; i++)
        if (list[i].type == type)
            return &list[i];
    return NULL;
}

/* A CK_ULONG attribute of a template; ~0 without it. */
static inline CK_ULONG number_in(CK_ATTRIBUTE *list, CK_ULONG count, CK_ULONG type)
{
    CK_ATTRIBUTE *found = attribute_of(list, count, type);
    CK_ULONG value = ~0UL;
    if (found != NULL && found->pValue != NULL && found->ulValueLen == sizeof value)
        memcpy(&value, found->pValue, sizeof value);
    return value;
}

static inline int truth_in(CK_ATTRIBUTE *list, CK_ULONG count, CK_ULONG type)
{
    CK_ATTRIBUTE *found = attribute_of(list, count, type);
    return found != NULL && found->pValue != NULL && *(CK_BYTE *)found->pValue != 0;
}

/* A CK_ULONG attribute of an object; ~0 without it. */
static inline CK_ULONG number_of(CK_ULONG session, CK_ULONG object, CK_ULONG type)
{
    CK_ULONG value = ~0UL;
    CK_ATTRIBUTE wanted = {type, &value, sizeof value};
    return real->C_GetAttributeValue(session, object, &wanted, 1) == CKR_OK ? value : ~0UL;
}

static inline int is_token_object(CK_ULONG session, CK_ULONG object)
{
    CK_BYTE yes = 0;
    CK_ATTRIBUTE wanted = {CKA_TOKEN, &yes, 1};
    return real->C_GetAttributeValue(session, object, &wanted, 1) == CKR_OK && yes;
}

static inline CK_ULONG state_of(CK_ULONG session)
{
    CK_SESSION_INFO info;
    return real->C_GetSessionInfo(session, &info) == CKR_OK ? info.state : ~0UL;
}

static inline int logged_in(CK_ULONG session)
{
    CK_ULONG state = state_of(session);
    return state == CKS_RO_USER_FUNCTIONS || state == CKS_RW_USER_FUNCTIONS;
}

static inline int is_read_write(CK_ULONG session)
{
    CK_SESSION_INFO info;
    return real->C_GetSessionInfo(session, &info) == CKR_OK && (info.flags & CKF_RW_SESSION);
}

#endif
