/*
 * Forks while two threads sign: `fork MODULE PIN FORKS`. The children start anew, log in and sign; what they draw at
 * random and what they sign goes to stdout, a line each, for test_fork.py to compare. A hang ends in SIGALRM.
 */
#include "host.h"

#include <pthread.h>
#include <sys/wait.h>

#define SIGNATURES 20
#define LIMIT 20 /* seconds that a child may take */
/* The threads sign so many times, then pause. Without pauses a signing host and its server can keep all others of a busy
 * machine waiting for seconds, the kernel's own threads among them, and each fork and each exit then takes as long. */
#define BURST 20
#define PAUSE_US 2000

static const char *pin;
static const CK_BYTE digest[32];
static int finished;

struct worker {
    CK_ULONG session, key;
    unsigned long signatures;
};

static CK_ULONG private_key(CK_ULONG session)
{
    CK_ULONG found[4];

    if (find(session, CKO_PRIVATE_KEY, found, 4) != 1)
        check("find the private key", CKR_GENERAL_ERROR);
    return found[0];
}

static void show(const char *who, const CK_BYTE *bytes, size_t length)
{
    char text[2 * SIGNATURE_SIZE + 1];

    hex_of(bytes, length, text);
    say("%s %s", who, text);
}

static void *keep_signing(void *argument)
{
    struct worker *worker = argument;
    CK_BYTE signature[SIGNATURE_SIZE];

    while (!__atomic_load_n(&finished, __ATOMIC_ACQUIRE)) {
        OK(sign(worker->session, worker->key, digest, signature));
        __atomic_add_fetch(&worker->signatures, 1, __ATOMIC_RELAXED);
        if (worker->signatures % BURST == 0)
            usleep(PAUSE_US);
    }
    return NULL;
}

/* In the child: the status that it exits with. */
static int work_in_child(CK_ULONG session_of_parent)
{
    CK_BYTE signature[SIGNATURE_SIZE], drawn[16];
    CK_SESSION_INFO info_of_session;
    CK_ULONG session, key;
    CK_INFO info;
    int i;

    alarm(LIMIT);
    if (p11->C_GetInfo(&info) != CKR_CRYPTOKI_NOT_INITIALIZED)
        return 101;
    if (p11->C_GetSessionInfo(session_of_parent, &info_of_session) != CKR_CRYPTOKI_NOT_INITIALIZED)
        return 102;
    if (p11->C_Finalize(NULL) != CKR_CRYPTOKI_NOT_INITIALIZED)
        return 103;
    OK(p11->C_Initialize(NULL));
    if (p11->C_GetSessionInfo(session_of_parent, &info_of_session) != CKR_SESSION_HANDLE_INVALID)
        return 104;
    session = open_session();
    OK(login(session, CKU_USER, pin));
    key = private_key(session);
    for (i = 0; i < SIGNATURES; i++)
        OK(sign(session, key, digest, signature));
    show("signature", signature, SIGNATURE_SIZE);
    OK(p11->C_GenerateRandom(session, drawn, sizeof drawn));
    show("random", drawn, sizeof drawn);
    if (getpid() % 2 == 0) /* the others end without it, as programs do */
        OK(p11->C_Finalize(NULL));
    return 0;
}

static unsigned long signed_by(struct worker *workers)
{
    return __atomic_load_n(&workers[0].signatures, __ATOMIC_RELAXED)
           + __atomic_load_n(&workers[1].signatures, __ATOMIC_RELAXED);
}

/* Whether the threads sign on. */
static int go_on(struct worker *workers)
{
    unsigned long first = __atomic_load_n(&workers[0].signatures, __ATOMIC_RELAXED);
    unsigned long second = __atomic_load_n(&workers[1].signatures, __ATOMIC_RELAXED);
    int i;

    for (i = 0; i < 10000; i++) {
        if (__atomic_load_n(&workers[0].signatures, __ATOMIC_RELAXED) > first
            && __atomic_load_n(&workers[1].signatures, __ATOMIC_RELAXED) > second)
            return 1;
        usleep(1000);
    }
    return 0;
}

int main(int count, char **arguments)
{
    struct worker workers[2] = {{0}};
    pthread_t threads[2];
    CK_BYTE drawn[16];
    CK_ULONG session;
    int i, forks;

    if (count != 4)
        return 2;
    pin = arguments[2];
    forks = atoi(arguments[3]);
    load(arguments[1]);
    OK(p11->C_Initialize(NULL));
    session = open_session();
    OK(login(session, CKU_USER, pin));
    for (i = 0; i < 2; i++) {
        workers[i].session = open_session();
        workers[i].key = private_key(workers[i].session);
        pthread_create(&threads[i], NULL, keep_signing, &workers[i]);
    }
    if (!go_on(workers))
        say("stopped before the first fork");
    for (i = 0; i < forks; i++) {
        int status;
        pid_t child = fork();

        if (child == 0)
            _exit(work_in_child(session));
        waitpid(child, &status, 0);
        if (status != 0)
            say("failed child %d: exit status %d, signal %d", i, WEXITSTATUS(status), WTERMSIG(status));
        OK(p11->C_GenerateRandom(session, drawn, sizeof drawn));
        show("random", drawn, sizeof drawn);
        if (!go_on(workers))
            say("stopped after fork %d", i);
    }
    __atomic_store_n(&finished, 1, __ATOMIC_RELEASE);
    for (i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    OK(p11->C_Finalize(NULL));
    say("signed %lu", signed_by(workers));
    return 0;
}
