"""Builds keyfob._abi: the PKCS #11 function lists as static C tables whose slots are Python functions.

C_GetFunctionList, C_GetInterfaceList and C_GetInterface are C alone: they answer without the interpreter (G4, G5, P8).
The default interface is "PKCS 11" 3.2; CKF_INTERFACE_FORK_SAFE holds, because a forked child answers
CKR_CRYPTOKI_NOT_INITIALIZED until it calls C_Initialize again (P39).
"""

from __future__ import annotations

import sys
from pathlib import Path

from cffi import FFI

sys.path.insert(0, str(Path(__file__).resolve().parent))
from cryptoki import DECLARATIONS, PROTOTYPES, TABLES

INTERFACES = """
#define CKR_OK 0UL
#define CKR_FUNCTION_FAILED 6UL
#define CKR_ARGUMENTS_BAD 7UL
#define CKR_BUFFER_TOO_SMALL 0x150UL
#define CKF_INTERFACE_FORK_SAFE 1UL

static CK_BYTE keyfob_name[] = "PKCS 11";

/* Newest first: the first one is the default interface. */
static CK_INTERFACE keyfob_interfaces[] = {
    {keyfob_name, &keyfob_list_3_2, CKF_INTERFACE_FORK_SAFE},
    {keyfob_name, &keyfob_list_3_0, CKF_INTERFACE_FORK_SAFE},
    {keyfob_name, &keyfob_list, CKF_INTERFACE_FORK_SAFE},
};
#define KEYFOB_INTERFACES (sizeof keyfob_interfaces / sizeof keyfob_interfaces[0])

static CK_RV keyfob_C_GetFunctionList(CK_FUNCTION_LIST **ppFunctionList)
{
    if (ppFunctionList == NULL)
        return CKR_ARGUMENTS_BAD;
    *ppFunctionList = &keyfob_list;
    return CKR_OK;
}

static CK_RV keyfob_C_GetInterfaceList(CK_INTERFACE *pInterfacesList, CK_ULONG *pulCount)
{
    CK_ULONG room;

    if (pulCount == NULL)
        return CKR_ARGUMENTS_BAD;
    room = *pulCount;
    *pulCount = KEYFOB_INTERFACES;
    if (pInterfacesList == NULL)
        return CKR_OK;
    if (room < KEYFOB_INTERFACES)
        return CKR_BUFFER_TOO_SMALL;
    memcpy(pInterfacesList, keyfob_interfaces, sizeof keyfob_interfaces);
    return CKR_OK;
}

static CK_RV keyfob_C_GetInterface(CK_BYTE *pInterfaceName, CK_VERSION *pVersion, CK_INTERFACE **ppInterface,
                                   CK_ULONG flags)
{
    size_t i;

    if (ppInterface == NULL)
        return CKR_ARGUMENTS_BAD;
    for (i = 0; i < KEYFOB_INTERFACES; i++) {
        CK_INTERFACE *candidate = &keyfob_interfaces[i];
        CK_VERSION *version = (CK_VERSION *)candidate->pFunctionList; /* every list starts with its version */

        if (pInterfaceName != NULL && strcmp((char *)pInterfaceName, (char *)candidate->pInterfaceName) != 0)
            continue;
        if (pVersion != NULL && (pVersion->major != version->major || pVersion->minor != version->minor))
            continue;
        if ((candidate->flags & flags) != flags)
            continue;
        *ppInterface = candidate;
        return CKR_OK;
    }
    return CKR_FUNCTION_FAILED;
}

/* What loader.c takes, and what it gives. */
static const int keyfob_enough_memory; /* in a Python host nobody knows better */
static struct keyfob_tables keyfob_tables = {
    keyfob_C_GetFunctionList, keyfob_C_GetInterfaceList, keyfob_C_GetInterface, keyfob_present_call,
    &keyfob_enough_memory, NULL, NULL,
};

static CK_ULONG keyfob_tables_address(void)
{
    Py_AtExit(keyfob_end);
    return (CK_ULONG)&keyfob_tables;
}
"""
# A Python host ends its interpreter before the C library runs exit handlers and destructors, which may call C_Finalize.
# cffi would then call into an interpreter that is gone; so every slot asks first. And it counts who is inside: gate.py.
CALLS = """
/* Structs call and tables of door.h. */
struct keyfob_call {
    const char *entry;
    int is_urgent;
};
struct keyfob_tables {
    CK_RV (*get_function_list)(CK_FUNCTION_LIST **);
    CK_RV (*get_interface_list)(CK_INTERFACE *, CK_ULONG *);
    CK_RV (*get_interface)(CK_BYTE *, CK_VERSION *, CK_INTERFACE **, CK_ULONG);
    struct keyfob_call *(*present_call)(void);
    const int *short_of_memory;
    int (*may_begin)(const char *);
    void (*keep_libraries_clean)(void);
};
static struct keyfob_tables keyfob_tables;

static volatile int keyfob_ended;

static void keyfob_end(void) { keyfob_ended = 1; }

static atomic_int keyfob_inside;                                /* threads inside a call that did not step aside */
static atomic_int keyfob_closed;                                /* a fork is near: nobody enters */
static pthread_mutex_t keyfob_gate = PTHREAD_MUTEX_INITIALIZER; /* held while it is closed */
static __thread int keyfob_depth;                               /* calls of this thread, one within another */
static __thread int keyfob_forking;                             /* this thread closed the gate */

static __thread struct keyfob_call keyfob_call;

static struct keyfob_call *keyfob_present_call(void) { return &keyfob_call; }

static void keyfob_keep_libraries_clean(void)
{
    if (keyfob_tables.keep_libraries_clean != NULL)
        keyfob_tables.keep_libraries_clean();
}

/* Whether the process may have so much more memory. */
static int keyfob_has_room(size_t bytes)
{
    void *probe = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return probe != MAP_FAILED && munmap(probe, bytes) == 0;
}

/* In a Python host the caller may hold the GIL (ctypes.PyDLL), which the thread that forks needs. */
static void keyfob_wait_at_gate(void)
{
    PyThreadState *thread = PyGILState_Check() ? PyEval_SaveThread() : NULL;

    pthread_mutex_lock(&keyfob_gate);
    pthread_mutex_unlock(&keyfob_gate);
    if (thread != NULL)
        PyEval_RestoreThread(thread);
}

static void keyfob_enter(void)
{
    for (;;) {
        atomic_fetch_add(&keyfob_inside, 1);
        if (!atomic_load(&keyfob_closed) || keyfob_forking)
            return;
        atomic_fetch_sub(&keyfob_inside, 1);
        keyfob_wait_at_gate();
    }
}

static void keyfob_leave(void) { atomic_fetch_sub(&keyfob_inside, 1); }

static void keyfob_step_aside(void)
{
    if (keyfob_depth > 0)
        keyfob_leave();
}

static void keyfob_step_back(void)
{
    if (keyfob_depth > 0)
        keyfob_enter();
}

static void keyfob_close_gate(int milliseconds)
{
    struct timespec pause = {0, 100000};
    int here = keyfob_depth > 0, left;

    pthread_mutex_lock(&keyfob_gate);
    keyfob_forking = 1;
    atomic_store(&keyfob_closed, 1);
    for (left = milliseconds * 10; atomic_load(&keyfob_inside) > here && left > 0; left--)
        nanosleep(&pause, NULL);
}

static void keyfob_open_gate(void)
{
    keyfob_forking = 0;
    atomic_store(&keyfob_closed, 0);
    pthread_mutex_unlock(&keyfob_gate);
}

static void keyfob_new_gate(void)
{
    pthread_mutex_init(&keyfob_gate, NULL);
    keyfob_forking = 0;
    atomic_store(&keyfob_inside, keyfob_depth > 0);
    atomic_store(&keyfob_closed, 0);
}

static void keyfob_call_python(struct _cffi_externpy_s *entry, char *arguments_and_result)
{
    if (keyfob_ended) {
        *(CK_RV *)arguments_and_result = 0x190UL; /* CKR_CRYPTOKI_NOT_INITIALIZED */
        return;
    }
    if (keyfob_depth == 0) {
        keyfob_call.entry = entry->name;
        keyfob_call.is_urgent = 0;
        if (*keyfob_tables.short_of_memory && !keyfob_tables.may_begin(entry->name)) {
            *(CK_RV *)arguments_and_result = 2UL; /* CKR_HOST_MEMORY */
            return;
        }
    }
    if (keyfob_depth++ == 0)
        keyfob_enter();
    _cffi_call_python(entry, arguments_and_result);
    if (--keyfob_depth == 0)
        keyfob_leave();
}
#undef _cffi_call_python
#define _cffi_call_python keyfob_call_python
"""
# Around what a call loads: imports.py.
PROCESS = (
    Path(__file__).with_name("process.h").read_text(encoding="utf-8")
    + """
static int keyfob_is_inside(void) { return keyfob_depth > 0; }
static void *keyfob_note_process(void) { return process_note(); }
static void keyfob_put_back_process(void *noted) { process_put_back(noted); }
"""
)
# What marshal.py reads where a caller may mean an address or not: no wrong guess ends the host. The kernel is asked by
# a call that copies 8 bytes before it refuses the rest: process_vm_readv is forbidden in some services (systemd's
# @ipc), and a pipe needs free descriptors.
PEEK = """
static int keyfob_peek(CK_ULONG address, CK_ULONG *word)
{
    if (syscall(SYS_rt_sigprocmask, -1, address, NULL, sizeof *word) == 0 || errno != EINVAL)
        return 0;
    memcpy(word, (void *)address, sizeof *word);
    return 1;
}
"""
# Whether the kernel gave the process rights that its caller has not got.
SECURE = """
static int keyfob_is_secure(void) { return getauxval(AT_SECURE) != 0; }
"""
# SQLite's descriptors: descriptors.py.
DESCRIPTORS = """
CK_ULONG keyfob_system_call(const char *name);
int keyfob_name_own(const char *path);
int keyfob_descriptor_of(const char *path);
int keyfob_are_ours(const int *numbers, int count);
char *keyfob_map(int number, CK_ULONG size);
void keyfob_unmap(char *mapping, CK_ULONG size);
long keyfob_write_file(int number, const char *data, CK_ULONG size, long place);
int keyfob_reserve_file(int number, long size);
"""
OWN_PROTOTYPES = """
static CK_RV keyfob_C_GetFunctionList(CK_FUNCTION_LIST **);
static CK_RV keyfob_C_GetInterfaceList(CK_INTERFACE *, CK_ULONG *);
static CK_RV keyfob_C_GetInterface(CK_BYTE *, CK_VERSION *, CK_INTERFACE **, CK_ULONG);
"""

# What gate.py, answers.py and start.py use.
GATE = """
struct keyfob_call {
    ...;
    int is_urgent;
};
struct keyfob_call *keyfob_present_call(void);
int keyfob_has_room(size_t bytes);
void keyfob_keep_libraries_clean(void);
void keyfob_step_aside(void);
void keyfob_step_back(void);
void keyfob_close_gate(int milliseconds);
void keyfob_open_gate(void);
void keyfob_new_gate(void);
"""

HEADERS = (
    *("dirent", "errno", "fcntl", "pthread", "signal", "stdarg", "stdatomic", "stdlib", "string", "time", "unistd"),
    *("sys/auxv", "sys/mman", "sys/resource", "sys/stat", "sys/syscall"),
)

ffibuilder = FFI()
ffibuilder.cdef(
    DECLARATIONS
    + 'extern "Python" {\n'
    + PROTOTYPES
    + "}\nCK_ULONG keyfob_tables_address(void);\nchar *secure_getenv(const char *name);\nint keyfob_is_secure(void);\n"
    + "int keyfob_peek(CK_ULONG address, CK_ULONG *word);\n"
    + "int keyfob_is_inside(void);\nvoid *keyfob_note_process(void);\nvoid keyfob_put_back_process(void *noted);\n"
    + GATE
    + DESCRIPTORS,
)
# _abi is built for one version of Python, so the whole API is declared: the gate calls PyGILState_Check, which the
# limited API that cffi chooses by itself lacks.
ffibuilder.set_source(
    "keyfob._abi",
    "".join(f"#include <{name}.h>\n" for name in HEADERS)
    + DECLARATIONS
    + "".join(f"static {line}\n" for line in PROTOTYPES.splitlines())
    + CALLS
    + PEEK
    + PROCESS
    + SECURE
    + Path(__file__).with_name("descriptors.c").read_text(encoding="ascii")
    + OWN_PROTOTYPES
    + TABLES
    + INTERFACES,
    define_macros=[("_CFFI_NO_LIMITED_API", None)],
    libraries=["m"],
)

if __name__ == "__main__":
    ffibuilder.compile(tmpdir=str(Path(__file__).resolve().parents[2]), verbose=True)
