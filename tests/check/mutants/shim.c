/* The doors: loads the module behind, copies its list, and lets the mutant change it. */

#define _GNU_SOURCE
#include "shim.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#define EXPORTED __attribute__((visibility("default")))

typedef CK_RV (*GetInterface)(CK_BYTE *, CK_VERSION *, CK_INTERFACE **, CK_ULONG);

const Functions *real;
static Functions list;
static CK_INTERFACE interface = {(CK_BYTE *)"PKCS 11", &list, 0};

static const Mutant *const tables[] = {door_mutants, slot_mutants, session_mutants, login_mutants,
                                       search_mutants, object_mutants, key_mutants, operation_mutants, multipurpose_mutants,
                                       removal_mutants, lies};

int is_mutant(const char *name)
{
    const char *wanted = getenv("KEYFOB_MUTANT");
    return wanted != NULL && strcmp(wanted, name) == 0;
}

__attribute__((constructor)) static void load(void)
{
    if (getenv("KEYFOB_MUTANT_OF") == NULL)
        return; /* only the names are asked for */
    void *module = dlopen(getenv("KEYFOB_MUTANT_OF"), RTLD_NOW);
    GetInterface get = module == NULL ? NULL : (GetInterface)dlsym(module, "C_GetInterface");
    CK_INTERFACE *found;
    if (get == NULL || get(NULL, NULL, &found, 0) != CKR_OK) {
        fprintf(stderr, "the mutant cannot load the module behind it: %s\n", dlerror());
        abort();
    }
    real = found->pFunctionList;
    list = *real;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        for (const Mutant *row = tables[i]; row->name != NULL; row++)
            if (is_mutant(row->name)) {
                if (row->apply != NULL)
                    row->apply(&list);
                return;
            }
    if (getenv("KEYFOB_MUTANT") != NULL) {
        fprintf(stderr, "there is no mutant %s\n", getenv("KEYFOB_MUTANT"));
        abort();
    }
}

/* The names of all mutants, for the test that goes through them. */
EXPORTED const char *mutant_name(size_t number)
{
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        for (const Mutant *row = tables[i]; row->name != NULL; row++)
            if (number-- == 0)
                return row->name;
    return NULL;
}

EXPORTED CK_RV C_GetFunctionList(CK_FUNCTION_LIST **found)
{
    *found = (CK_FUNCTION_LIST *)&list;
    return CKR_OK;
}

EXPORTED CK_RV C_GetInterface(CK_BYTE *name, CK_VERSION *version, CK_INTERFACE **found, CK_ULONG flags)
{
    if (is_mutant("interface_needs_a_version") && version == NULL)
        return CKR_ARGUMENTS_BAD;
    if (name != NULL && strcmp((const char *)name, "PKCS 11") != 0)
        return CKR_FUNCTION_FAILED;
    if (version != NULL && memcmp(version, &list.version, sizeof *version) != 0)
        return CKR_FUNCTION_FAILED;
    if (flags & ~(CK_ULONG)CKF_INTERFACE_FORK_SAFE)
        return CKR_FUNCTION_FAILED;
    *found = &interface;
    return CKR_OK;
}

EXPORTED CK_RV C_GetInterfaceList(CK_INTERFACE *found, CK_ULONG *count)
{
    CK_ULONG room = *count;
    *count = 1;
    if (found == NULL)
        return CKR_OK;
    if (room < 1)
        return CKR_BUFFER_TOO_SMALL;
    *found = interface;
    return CKR_OK;
}
