/*
 * Random calls of every function of PKCS #11 v3.2, their arguments of the right types: `fuzz MODULE PIN SEED CALLS THREADS`.
 *
 * The module is ended and begun again in the middle of the calls. A crash, a hang, a byte written where none may be, and
 * an error that no argument explains end the host with a status other than 0, the call being named on stderr.
 */
#include "fuzz.h"
#include "fuzz_calls.h"

#include <sched.h>
#include <signal.h>
#include <time.h>

#define THREADS 8
#define SESSIONS 6
#define PATIENCE 90 /* seconds of one call */

static struct fuzzer fuzzers[THREADS];
static __thread struct fuzzer *mine;
static _Atomic int running, failed;
static unsigned long calls;

static long now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + 1;
}

static void on_crash(int number)
{
    char text[200];
    int length = snprintf(text, sizeof text, "fuzz: signal %d in %s, call %lu of thread %d\n", number,
                          mine != NULL ? mine->call : "no call", mine != NULL ? mine->count : 0, mine != NULL ? mine->number : -1);

    if (write(STDERR_FILENO, text, (size_t)length) < 0)
        _exit(6);
    signal(number, SIG_DFL);
    raise(number);
}

/* The first beginning must go well; in later ones other threads log out, close sessions and destroy keys all the time. */
static int begun;

static int went_well(const char *call, CK_RV rv)
{
    if (!begun)
        check(call, rv);
    return rv == CKR_OK;
}

#define WELL(call) went_well(#call, (call))

static void generate(CK_ULONG session, CK_ULONG type, CK_ULONG length, int at)
{
    CK_MECHANISM mechanism = {type, NULL, 0};
    CK_ATTRIBUTE template[] = {word_of(CKA_VALUE_LEN, &length), bool_of(CKA_DERIVE, 1)};
    CK_ULONG made;

    if (WELL(p11->C_GenerateKey(session, &mechanism, template, 2, &made)))
        atomic_store(&handles[at], made);
}

static void generate_curve(CK_ULONG session, CK_ULONG type, const char *curve, CK_ULONG length, int at)
{
    CK_MECHANISM mechanism = {type, NULL, 0};
    CK_ATTRIBUTE public[] = {bytes_of(CKA_EC_PARAMS, curve, length)}, private[] = {bool_of(CKA_DERIVE, type != CKM_EC_EDWARDS_KEY_PAIR_GEN)};
    CK_ULONG made[2];

    if (!WELL(p11->C_GenerateKeyPair(session, &mechanism, public, 1, private, 1, &made[0], &made[1])))
        return;
    atomic_store(&handles[at], made[0]);
    atomic_store(&handles[at + 1], made[1]);
}

static void generate_rsa(CK_ULONG session, int at)
{
    CK_MECHANISM mechanism = {CKM_RSA_PKCS_KEY_PAIR_GEN, NULL, 0};
    CK_ULONG bits = 1024, made[2];
    CK_ATTRIBUTE public[] = {word_of(CKA_MODULUS_BITS, &bits)};

    if (!WELL(p11->C_GenerateKeyPair(session, &mechanism, public, 1, NULL, 0, &made[0], &made[1])))
        return;
    atomic_store(&handles[at], made[0]);
    atomic_store(&handles[at + 1], made[1]);
}

/* Sessions, a login, keys of every kind, some of them more than once. */
static void begin(void)
{
    CK_ULONG opened = 0;
    int i;

    if (!WELL(p11->C_Initialize(NULL)))
        return;
    if (!begun)
        slot = first_slot();
    for (i = 0; i < POOL; i++) {
        if (i < SESSIONS && !WELL(p11->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &opened)))
            return;
        atomic_store(&sessions[i], i < SESSIONS ? opened : atomic_load(&sessions[i % SESSIONS]));
    }
    if (!WELL(login(atomic_load(&sessions[0]), CKU_USER, user_pin)))
        return;
    for (i = 0; i < POOL; i += 16) {
        CK_ULONG session = atomic_load(&sessions[i]);

        generate(session, CKM_AES_KEY_GEN, 16, i);
        generate(session, CKM_AES_KEY_GEN, 32, i + 1);
        generate(session, CKM_GENERIC_SECRET_KEY_GEN, 64, i + 2);
        generate(session, CKM_GENERIC_SECRET_KEY_GEN, 24, i + 3);
        generate_curve(session, CKM_EC_KEY_PAIR_GEN, P256, 10, i + 4);
        generate_curve(session, CKM_EC_EDWARDS_KEY_PAIR_GEN, "\x06\x03\x2b\x65\x70", 5, i + 6);
        generate_curve(session, CKM_EC_MONTGOMERY_KEY_PAIR_GEN, "\x06\x03\x2b\x65\x6e", 5, i + 8);
        generate_curve(session, CKM_EC_KEY_PAIR_GEN, P256, 10, i + 12);
        generate_rsa(session, i + 10);
        atomic_store(&handles[i + 14], atomic_load(&handles[i]));
        atomic_store(&handles[i + 15], atomic_load(&handles[i + 2]));
    }
    begun = 1;
}

/* What threads that end the module under each other's feet may meet at any moment. */
static int is_about_the_end(CK_RV rv)
{
    return rv == CKR_CRYPTOKI_NOT_INITIALIZED || rv == CKR_CRYPTOKI_ALREADY_INITIALIZED;
}

static void end_and_begin(void)
{
    CK_RV rv = p11->C_Finalize(NULL);

    if (rv != CKR_OK && !is_about_the_end(rv))
        check("C_Finalize", rv);
    begin();
}

/* The next call: one of the operation that was begun, or any. */
static const struct call *next(struct fuzzer *fuzzer)
{
    const struct call *call = &CALLS[draw(fuzzer, MANY(CALLS))];
    int tries;

    if (fuzzer->begun != NULL && chance(fuzzer, 15))
        fuzzer->begun = NULL;
    if (fuzzer->begun != NULL && chance(fuzzer, 60))
        for (tries = 0; tries < 500; tries++, call = &CALLS[draw(fuzzer, MANY(CALLS))])
            if (strstr(call->name, fuzzer->begun) != NULL && strstr(call->name, "Init") == NULL)
                break;
    return call;
}

static void *work(void *argument)
{
    struct fuzzer *fuzzer = mine = argument;
    stack_t stack = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
    CK_RV rv;

    sigaltstack(&stack, NULL);
    for (fuzzer->count = 0; fuzzer->count < calls; fuzzer->count++) {
        const struct call *call = next(fuzzer);

        fuzzer->call = call->name;
        atomic_store(&fuzzer->began, now());
        if (fuzzer->number == 0 && draw(fuzzer, 1000) == 0)
            end_and_begin();
        rv = call->make(fuzzer);
        atomic_store(&fuzzer->began, 0);
        look_at_guards(fuzzer, rv);
        if (rv == CKR_GENERAL_ERROR || rv == CKR_DEVICE_ERROR || (rv == CKR_FUNCTION_FAILED && !call->may_fail)) {
            fprintf(stderr, "fuzz: %s answered 0x%lx, call %lu of thread %d\n", call->name, rv, fuzzer->count, fuzzer->number);
            atomic_store(&failed, 1);
        }
        atomic_fetch_add(&answers[call - CALLS][rv == CKR_OK], 1);
    }
    free(stack.ss_sp);
    atomic_fetch_sub(&running, 1);
    return NULL;
}

/* The host's own thread: nobody may take longer than PATIENCE. */
static void watch(int threads)
{
    struct timespec pause = {0, 20000000};
    int i;

    while (atomic_load(&running) > 0) {
        nanosleep(&pause, NULL);
        for (i = 0; i < threads; i++) {
            long began = atomic_load(&fuzzers[i].began);

            if (began != 0 && now() - began > PATIENCE) {
                fprintf(stderr, "fuzz: %s hangs, call %lu of thread %d\n", fuzzers[i].call, fuzzers[i].count, i);
                _exit(5);
            }
        }
    }
}

int main(int count, char **arguments)
{
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGABRT, SIGILL};
    struct sigaction action = {.sa_handler = on_crash, .sa_flags = SA_ONSTACK};
    pthread_t threads[THREADS];
    int i, wanted = count == 6 ? atoi(arguments[5]) : 0;
    size_t each;

    if (wanted < 1 || wanted > THREADS)
        return 2;
    user_pin = arguments[2];
    calls = strtoul(arguments[4], NULL, 10);
    for (i = 0; i < (int)MANY(crashes); i++)
        sigaction(crashes[i], &action, NULL);
    load_newest(arguments[1]);
    begin();
    atomic_store(&running, wanted);
    for (i = 0; i < wanted; i++) {
        fuzzers[i].state = strtoull(arguments[3], NULL, 10) * 2654435761ULL + (uint64_t)i * 40503 + 88172645463325252ULL;
        fuzzers[i].number = i;
        make_buffers(&fuzzers[i]);
    }
    for (i = 0; i < wanted; i++)
        if (pthread_create(&threads[i], NULL, work, &fuzzers[i]) != 0)
            return 3;
    watch(wanted);
    for (i = 0; i < wanted; i++)
        pthread_join(threads[i], NULL);
    OK(p11->C_Finalize(NULL));
    begin();
    OK(p11->C_Finalize(NULL));
    for (each = 0; each < MANY(CALLS); each++)
        say("%s %lu %lu", CALLS[each].name, atomic_load(&answers[each][1]), atomic_load(&answers[each][0]));
    return atomic_load(&failed) ? 1 : 0;
}
