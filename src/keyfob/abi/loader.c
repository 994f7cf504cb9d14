/*
 * libkeyfob.so: the door that hosts open with dlopen.
 *
 * It exports C_GetFunctionList, C_GetInterfaceList and C_GetInterface. The first call of any of them starts keyfob
 * (interpreter.c) and gets the three real functions; from then on calls go straight through, without Python.
 *
 * A start that fails stays failed and says why, once, in one line on stderr; every entry then answers
 * CKR_GENERAL_ERROR. Nothing but Python's own word makes it CKR_OK. The interpreter is never ended: hosts call
 * C_Finalize from exit handlers.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "door.h"
#include "process.h"

#define CKR_GENERAL_ERROR 5UL
#define EXPORTED __attribute__((visibility("default")))

enum { UNTRIED, READY, FAILED };
static atomic_int state = UNTRIED;
static struct tables tables;                                   /* filled before READY */
static pthread_mutex_t start_lock = PTHREAD_MUTEX_INITIALIZER; /* held by the one thread that starts */
static __thread int starting_here;                             /* this thread is that one */
static int fork_handlers_missing;
static int cut_off_by_fork;

/* In one write, past the streams of the host. */
int complain(const char *format, ...)
{
    char line[2048] = "keyfob: ";
    size_t length = strlen(line);
    va_list arguments;
    ssize_t written;

    va_start(arguments, format);
    vsnprintf(line + length, sizeof line - length - 1, format, arguments);
    va_end(arguments);
    length = strlen(line);
    line[length] = '\n';
    written = write(STDERR_FILENO, line, length + 1);
    (void)written; /* there is nobody else to tell */
    return 0;
}

static int start(void)
{
    struct process *noted;
    int started;

    if (fork_handlers_missing)
        return complain("not enough memory to prepare for fork");
    if (cut_off_by_fork)
        return complain("this process was forked while its parent was starting the module, which cannot go on here");
    noted = process_note();
    started = start_keyfob(&tables);
    process_put_back(noted);
    return started;
}

/* In a Python host the caller may hold the GIL (ctypes.PyDLL), which the thread that starts needs. */
static void lock_for_start(void)
{
    void *thread;

    if (pthread_mutex_trylock(&start_lock) == 0)
        return;
    thread = holds_gil() ? let_go_of_gil() : NULL;
    pthread_mutex_lock(&start_lock);
    take_gil_back(thread);
}

static int is_ready(void)
{
    int now = atomic_load_explicit(&state, memory_order_acquire);

    if (now != UNTRIED || starting_here) /* keyfob's own start came back to us: that is no way to get ready */
        return now == READY;
    lock_for_start();
    now = atomic_load(&state);
    if (now == UNTRIED) {
        starting_here = 1;
        now = start() ? READY : FAILED;
        starting_here = 0;
        atomic_store_explicit(&state, now, memory_order_release);
    }
    pthread_mutex_unlock(&start_lock);
    return now == READY;
}

EXPORTED unsigned long C_GetFunctionList(void *list)
{
    return is_ready() ? tables.get_function_list(list) : CKR_GENERAL_ERROR;
}

EXPORTED unsigned long C_GetInterfaceList(void *interfaces, unsigned long *count)
{
    return is_ready() ? tables.get_interface_list(interfaces, count) : CKR_GENERAL_ERROR;
}

EXPORTED unsigned long C_GetInterface(unsigned char *name, void *version, void *interface, unsigned long flags)
{
    return is_ready() ? tables.get_interface(name, version, interface, flags) : CKR_GENERAL_ERROR;
}

/* ---- Fork ------------------------------------------------------------------------------------------------------ */

/* What before_fork did, for the two handlers after it: they run in the same thread, or its copy. */
static __thread struct {
    int locked;
    int python;
    int gil;
} forking;

/*
 * A start in another thread ends first, so that the child gets a module that works. It cannot end where the forking
 * thread has something that it needs: the GIL or the import lock of a Python host; the C library's lock of fork
 * handlers before glibc 2.36. Hence the limit; without the lock the child refuses to start instead of hanging.
 */
static int wait_for_start(void)
{
    struct timespec limit;

    if (pthread_mutex_trylock(&start_lock) == 0)
        return 1;
    if (holds_gil())
        return 0;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += 2;
    return pthread_mutex_timedlock(&start_lock, &limit) == 0;
}

static void before_fork(void)
{
    forking.locked = forking.python = 0;
    if (starting_here)
        return;
    if (atomic_load(&state) == UNTRIED)
        forking.locked = wait_for_start();
    if (atomic_load(&state) != UNTRIED)
        forking.python = prepare_python_for_fork(&forking.gil);
}

static void after_fork_in_parent(void)
{
    if (forking.python)
        resume_python_in_parent(forking.gil);
    if (forking.locked)
        pthread_mutex_unlock(&start_lock);
}

static void after_fork_in_child(void)
{
    if (starting_here)
        return;
    if (forking.python)
        resume_python_in_child();
    if (atomic_load(&state) == UNTRIED && !forking.locked)
        cut_off_by_fork = 1;
    pthread_mutex_init(&start_lock, NULL);
}

/* Here and not in start(): a fork must find its handlers even when a start has just begun. */
__attribute__((constructor)) static void prepare_for_fork(void)
{
    fork_handlers_missing = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) != 0;
}
