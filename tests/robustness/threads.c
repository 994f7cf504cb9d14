/*
 * Eight POSIX threads on one token: `threads MODULE PIN work ROUNDS` (sessions, signatures, searches, objects),
 * `threads MODULE PIN finalize ROUNDS` (one thread ends the module while the others sign, and starts it again).
 * Prints what was answered that should not have been. A hang ends in SIGALRM.
 */
#include "host.h"

#include <pthread.h>

#define THREADS 8
#define LIMIT 100 /* seconds for everything */

static const char *pin;
static CK_ULONG slot;
static int rounds, finished;

static void unexpected(const char *call, CK_RV rv)
{
    if (rv != CKR_OK)
        say("unexpected %s 0x%lx", call, rv);
}

#define EXPECT_OK(call) unexpected(#call, (call))

static CK_ULONG private_key(CK_ULONG session)
{
    CK_ULONG found[4];

    if (find(session, CKO_PRIVATE_KEY, found, 4) != 1)
        say("unexpected number of private keys");
    return found[0];
}

static void use_session_objects(CK_ULONG session)
{
    CK_ULONG object_class = CKO_DATA, handle;
    CK_ATTRIBUTE template[] = {word_of(CKA_CLASS, &object_class), text_of(CKA_LABEL, "mine"),
                               text_of(CKA_VALUE, "value")};
    char value[16];

    EXPECT_OK(p11->C_CreateObject(session, template, 3, &handle));
    EXPECT_OK(read_text(session, handle, CKA_VALUE, value, sizeof value));
    if (strcmp(value, "value") != 0)
        say("unexpected value %s", value);
    EXPECT_OK(p11->C_DestroyObject(session, handle));
}

static void *work(void *ignored)
{
    CK_BYTE digest[32] = {0}, signature[SIGNATURE_SIZE];
    CK_ULONG object_class;
    CK_ATTRIBUTE attribute = bytes_of(CKA_CLASS, &object_class, sizeof object_class);
    CK_TOKEN_INFO info;
    int round, i;

    for (round = 0; round < rounds; round++) {
        CK_ULONG session, key;

        EXPECT_OK(p11->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session));
        EXPECT_OK(p11->C_GetTokenInfo(slot, &info));
        key = private_key(session);
        EXPECT_OK(p11->C_GetAttributeValue(session, key, &attribute, 1));
        if (object_class != CKO_PRIVATE_KEY)
            say("unexpected class %lu", object_class);
        for (i = 0; i < 50; i++)
            EXPECT_OK(sign(session, key, digest, signature));
        use_session_objects(session);
        EXPECT_OK(p11->C_CloseSession(session));
    }
    return ignored;
}

/* What a call may answer while another thread ends the module or has begun anew. */
static int is_sane(CK_RV rv)
{
    return rv == CKR_OK || rv == CKR_CRYPTOKI_NOT_INITIALIZED || rv == CKR_SESSION_HANDLE_INVALID
           || rv == CKR_USER_NOT_LOGGED_IN || rv == CKR_KEY_HANDLE_INVALID || rv == CKR_OPERATION_NOT_INITIALIZED
           || rv == CKR_USER_ALREADY_LOGGED_IN || rv == CKR_SESSION_CLOSED;
}

static void *sign_while_it_ends(void *ignored)
{
    CK_BYTE digest[32] = {0}, signature[SIGNATURE_SIZE];
    CK_ULONG object_class = CKO_PRIVATE_KEY;
    CK_ATTRIBUTE wanted = word_of(CKA_CLASS, &object_class);

    while (!__atomic_load_n(&finished, __ATOMIC_ACQUIRE)) {
        CK_ULONG session = 0, key = 0, count = 0;
        CK_RV rv = p11->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &session);

        if (rv == CKR_OK)
            rv = login(session, CKU_USER, pin);
        if (rv == CKR_OK || rv == CKR_USER_ALREADY_LOGGED_IN)
            rv = p11->C_FindObjectsInit(session, &wanted, 1);
        if (rv == CKR_OK)
            rv = p11->C_FindObjects(session, &key, 1, &count);
        if (rv == CKR_OK)
            rv = p11->C_FindObjectsFinal(session);
        while (rv == CKR_OK && count == 1 && !__atomic_load_n(&finished, __ATOMIC_ACQUIRE))
            rv = sign(session, key, digest, signature);
        if (!is_sane(rv))
            say("unexpected answer 0x%lx", rv);
    }
    return ignored;
}

static void end_and_begin(void)
{
    int round;

    for (round = 0; round < rounds; round++) {
        usleep(60000);
        EXPECT_OK(p11->C_Finalize(NULL));
        usleep(2000);
        EXPECT_OK(p11->C_Initialize(NULL));
        first_slot();
    }
}

int main(int count, char **arguments)
{
    pthread_t threads[THREADS];
    int i, ends;

    if (count != 5)
        return 2;
    alarm(LIMIT);
    pin = arguments[2];
    rounds = atoi(arguments[4]);
    ends = strcmp(arguments[3], "finalize") == 0;
    load(arguments[1]);
    OK(p11->C_Initialize(NULL));
    slot = first_slot();
    OK(login(open_session(), CKU_USER, pin));
    for (i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, ends ? sign_while_it_ends : work, NULL);
    if (ends) {
        end_and_begin();
        __atomic_store_n(&finished, 1, __ATOMIC_RELEASE);
    }
    for (i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    EXPECT_OK(p11->C_Finalize(NULL));
    say("ended");
    return 0;
}
