/* libkeyfob-trace.so: stands between a program and its PKCS #11 module and writes down every call.
 *
 * KEYFOB_TRACE_MODULE   the module behind, an absolute path
 * KEYFOB_TRACE_FILE     where the lines go, one JSON object each (record.c)
 *
 * Two ways in. As LD_PRELOAD it answers dlopen() of the module with itself, so a program with the module in its own
 * configuration (a Firefox profile, pkcs11.txt) is traced as it is. Or a program is given this library as its module.
 * Interfaces of version 2.40, 3.0 and 3.2 are passed through at the module's own size; vendor interfaces as they are.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "record.h"
#include "tables.h"

#define EXPORTED __attribute__((visibility("default")))
#define WITHOUT_INTERFACES "the module has no C_GetInterface; the tracer made one of its function list"

CK_FUNCTION_LIST_3_2 *real;

static void *module;
static char module_path[PATH_MAX];
static pthread_once_t found = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

typedef CK_RV (*GetFunctionList)(CK_FUNCTION_LIST **);
typedef CK_RV (*GetInterfaceList)(CK_INTERFACE *, CK_ULONG *);
typedef CK_RV (*GetInterface)(CK_BYTE *, CK_VERSION *, CK_INTERFACE **, CK_ULONG);
typedef void *(*Dlopen)(const char *, int);

static Dlopen next_dlopen(void)
{
    static Dlopen next;
    if (next == NULL)
        next = (Dlopen)dlsym(RTLD_NEXT, "dlopen");
    return next;
}

static void find_path(void)
{
    const char *path = secure_getenv("KEYFOB_TRACE_MODULE");
    if (path == NULL || realpath(path, module_path) == NULL)
        module_path[0] = '\0';
}

static void *symbol(const char *name)
{
    pthread_once(&found, find_path);
    pthread_mutex_lock(&lock);
    if (module == NULL && module_path[0] != '\0')
        module = next_dlopen()(module_path, RTLD_NOW | RTLD_LOCAL);
    pthread_mutex_unlock(&lock);
    return module == NULL ? NULL : dlsym(module, name);
}

/* Remember the longest of the module's lists: the wrappers call through it. */
static void take(void *list)
{
    CK_VERSION *offered = list, *known = (CK_VERSION *)real;
    if (known == NULL || offered->major * 256 + offered->minor > known->major * 256 + known->minor)
        real = list;
}

/* Our list that has exactly the functions of theirs, under their version number. */
static void *wrapped(void *list)
{
    CK_VERSION version = *(CK_VERSION *)list;
    take(list);
    if (version.major >= 3 && version.minor >= 2) {
        traced_3_2.version = version;
        return &traced_3_2;
    }
    if (version.major >= 3) {
        traced_3_0.version = version;
        return &traced_3_0;
    }
    traced.version = version;
    return &traced;
}

static int is_standard(const CK_INTERFACE *interface)
{
    return interface->pInterfaceName != NULL && strcmp((const char *)interface->pInterfaceName, "PKCS 11") == 0;
}

EXPORTED CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list)
{
    GetFunctionList get = (GetFunctionList)symbol("C_GetFunctionList");
    Record record;
    record_begin(&record, "C_GetFunctionList");
    clock_gettime(CLOCK_MONOTONIC, &record.began);
    CK_RV rv = get == NULL ? CKR_GENERAL_ERROR : get(list);
    record_result(&record);
    if (rv == CKR_OK) {
        record_version(&record, "version", &(*list)->version);
        *list = wrapped(*list);
    }
    record_end(&record, rv);
    return rv;
}

#define MOST_INTERFACES 16

/* Interfaces as the module has them, with our lists in the standard ones. Made once, never changed: callers keep them. */
static CK_INTERFACE *wrapped_interface(const CK_INTERFACE *theirs)
{
    static CK_INTERFACE made[MOST_INTERFACES];
    static const CK_INTERFACE *origin[MOST_INTERFACES];
    static int count;
    CK_INTERFACE *ours = NULL;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < count && ours == NULL; i++)
        if (origin[i] == theirs)
            ours = &made[i];
    if (ours == NULL && count < MOST_INTERFACES) {
        origin[count] = theirs;
        ours = &made[count++];
        *ours = *theirs;
        ours->pFunctionList = wrapped(theirs->pFunctionList);
    }
    pthread_mutex_unlock(&lock);
    return ours;
}

static void record_interface(Record *record, const CK_INTERFACE *interface)
{
    const char *name = (const char *)interface->pInterfaceName;
    record_text(record, "name", (const CK_BYTE *)name, name == NULL ? 0 : strlen(name));
    if (is_standard(interface))
        record_version(record, "version", interface->pFunctionList);
    record_number(record, "flags", interface->flags);
}

/* NSS looks for C_GetFunctionList only where C_GetInterface is no symbol at all (G4). This library has the symbol, so for
 * a module without it the one interface is made here of the list that it has. */
static CK_INTERFACE *made_interface(void)
{
    static CK_INTERFACE made = {(CK_BYTE *)"PKCS 11", NULL, 0};
    CK_FUNCTION_LIST *list;
    GetFunctionList get = (GetFunctionList)symbol("C_GetFunctionList");
    if (made.pFunctionList == NULL && get != NULL && get(&list) == CKR_OK)
        made.pFunctionList = list;
    return made.pFunctionList == NULL ? NULL : &made;
}

static CK_RV make_interface(CK_BYTE *name, CK_VERSION *version, CK_INTERFACE **interface, CK_ULONG flags)
{
    if (interface == NULL)
        return CKR_ARGUMENTS_BAD;
    if (flags != 0 || (name != NULL && strcmp((const char *)name, "PKCS 11") != 0))
        return CKR_FUNCTION_FAILED;
    *interface = made_interface();
    if (*interface == NULL)
        return CKR_GENERAL_ERROR;
    const CK_VERSION *made = (*interface)->pFunctionList;
    return version == NULL || memcmp(version, made, sizeof *made) == 0 ? CKR_OK : CKR_FUNCTION_FAILED;
}

EXPORTED CK_RV C_GetInterface(CK_BYTE *name, CK_VERSION *version, CK_INTERFACE **interface, CK_ULONG flags)
{
    GetInterface get = (GetInterface)symbol("C_GetInterface");
    Record record;
    record_begin(&record, "C_GetInterface");
    record_text(&record, "pInterfaceName", name, name == NULL ? 0 : strlen((const char *)name));
    record_version(&record, "pVersion", version);
    record_number(&record, "flags", flags);
    clock_gettime(CLOCK_MONOTONIC, &record.began);
    CK_RV rv = get == NULL ? make_interface(name, version, interface, flags) : get(name, version, interface, flags);
    record_result(&record);
    if (get == NULL)
        record_text(&record, "note", (const CK_BYTE *)WITHOUT_INTERFACES, sizeof WITHOUT_INTERFACES - 1);
    if (rv == CKR_OK) {
        record_interface(&record, *interface);
        if (is_standard(*interface)) {
            CK_INTERFACE *ours = wrapped_interface(*interface);
            if (ours != NULL)
                *interface = ours;
        }
    }
    record_end(&record, rv);
    return rv;
}

static CK_RV make_interface_list(CK_INTERFACE *interfaces, CK_ULONG *count)
{
    const CK_INTERFACE *made = made_interface();
    if (count == NULL)
        return CKR_ARGUMENTS_BAD;
    if (made == NULL)
        return CKR_GENERAL_ERROR;
    CK_ULONG room = *count;
    *count = 1;
    if (interfaces == NULL)
        return CKR_OK;
    if (room < 1)
        return CKR_BUFFER_TOO_SMALL;
    *interfaces = *made;
    return CKR_OK;
}

EXPORTED CK_RV C_GetInterfaceList(CK_INTERFACE *interfaces, CK_ULONG *count)
{
    GetInterfaceList get = (GetInterfaceList)symbol("C_GetInterfaceList");
    Record record;
    record_begin(&record, "C_GetInterfaceList");
    clock_gettime(CLOCK_MONOTONIC, &record.began);
    CK_RV rv = get == NULL ? make_interface_list(interfaces, count) : get(interfaces, count);
    record_result(&record);
    if (rv == CKR_OK) {
        record_number(&record, "pulCount", *count);
        for (CK_ULONG i = 0; interfaces != NULL && i < *count; i++)
            if (is_standard(&interfaces[i]))
                interfaces[i].pFunctionList = wrapped(interfaces[i].pFunctionList);
    }
    record_end(&record, rv);
    return rv;
}

/* The module's path, by whatever name, opens this library. Anything else goes on to the C library by a tail call, which
 * finds the caller's own search path in the return address. */
EXPORTED __attribute__((optimize("O2"))) void *dlopen(const char *path, int flags)
{
    if (path != NULL && strchr(path, '/') != NULL) {
        char resolved[PATH_MAX];
        pthread_once(&found, find_path);
        if (module_path[0] != '\0' && realpath(path, resolved) != NULL && strcmp(resolved, module_path) == 0) {
            Dl_info self;
            /* NSS enters its own softoken by other doors, which this library has not. */
            if (symbol("C_GetFunctionList") != NULL && symbol("NSC_GetFunctionList") == NULL && dladdr((void *)C_GetFunctionList, &self) != 0)
                return next_dlopen()(self.dli_fname, RTLD_NOW | RTLD_NOLOAD);
        }
    }
    return next_dlopen()(path, flags);
}
