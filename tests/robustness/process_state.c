/*
 * A host that has arranged its process in its own way, and looks after the start, after everything that can be asked of
 * each mechanism, and after each function whether all is as it was. Says what is not.
 *
 *     process_state MODULE PIN
 */
#include "host.h"

#include <dirent.h>
#include <fenv.h>
#include <locale.h>
#include <signal.h>
#include <sys/stat.h>

#define SIGNALS 65
#define ROOM 65536

typedef struct {
    struct sigaction actions[SIGNALS];
    sigset_t mask;
    stack_t stack;
    int rounding, exceptions;
    unsigned int mxcsr;
    char umask[16];
    char locale[256];
    locale_t of_thread;
    char environment[ROOM];
    int threads;
    char descriptors[4096];
} State;

static State ours;

static void handler(int number)
{
    if (number == SIGSEGV || number == SIGBUS || number == SIGILL || number == SIGABRT)
        _exit(4);
}

static int entries(const char *path, char *names, size_t room)
{
    DIR *folder = opendir(path);
    struct dirent *entry;
    int count = 0;

    if (folder == NULL)
        exit(2);
    while ((entry = readdir(folder)) != NULL)
        if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(folder)) {
            count++;
            if (names != NULL && strlen(names) + strlen(entry->d_name) + 2 < room)
                strcat(strcat(names, entry->d_name), " ");
        }
    closedir(folder);
    return count;
}

static void look(State *state)
{
    char text[4096] = "", *line;
    FILE *status = fopen("/proc/self/status", "re");
    size_t length = fread(text, 1, sizeof text - 1, status);

    fclose(status);
    memset(state, 0, sizeof *state);
    text[length] = '\0';
    line = strstr(text, "Umask:");
    snprintf(state->umask, sizeof state->umask, "%.4s", line != NULL ? line + 7 : "");
    for (int number = 1; number < SIGNALS; number++)
        sigaction(number, NULL, &state->actions[number]);
    sigprocmask(SIG_SETMASK, NULL, &state->mask);
    sigaltstack(NULL, &state->stack);
    state->rounding = fegetround();
    state->exceptions = fetestexcept(FE_ALL_EXCEPT);
#ifdef __x86_64__
    state->mxcsr = __builtin_ia32_stmxcsr() & ~0x3fU; /* without the flags of what has happened */
#endif
    snprintf(state->locale, sizeof state->locale, "%s", setlocale(LC_ALL, NULL));
    state->of_thread = uselocale((locale_t)0);
    for (char **variable = environ; *variable != NULL; variable++)
        strncat(strncat(state->environment, *variable, ROOM - strlen(state->environment) - 2), "\n", 2);
    state->threads = entries("/proc/self/task", NULL, 0);
    entries("/proc/self/fd", state->descriptors, sizeof state->descriptors);
}

static void compare(const char *after, CK_ULONG what)
{
    static State now;

    look(&now);
    for (int number = 1; number < SIGNALS; number++)
        if (now.actions[number].sa_handler != ours.actions[number].sa_handler ||
            now.actions[number].sa_flags != ours.actions[number].sa_flags ||
            memcmp(&now.actions[number].sa_mask, &ours.actions[number].sa_mask, SIGNALS / 8) != 0)
            say("%s 0x%lx: the disposition of signal %d has changed", after, what, number);
    if (memcmp(&now.mask, &ours.mask, sizeof now.mask) != 0)
        say("%s 0x%lx: the signal mask has changed", after, what);
    if (now.stack.ss_sp != ours.stack.ss_sp || now.stack.ss_flags != ours.stack.ss_flags)
        say("%s 0x%lx: the alternate stack has changed", after, what);
    if (now.rounding != ours.rounding || now.mxcsr != ours.mxcsr)
        say("%s 0x%lx: the floating point's control has changed", after, what);
    if (strcmp(now.umask, ours.umask) != 0)
        say("%s 0x%lx: the umask has changed to %s", after, what, now.umask);
    if (strcmp(now.locale, ours.locale) != 0 || now.of_thread != ours.of_thread)
        say("%s 0x%lx: the locale has changed to %s", after, what, now.locale);
    if (strcmp(now.environment, ours.environment) != 0)
        say("%s 0x%lx: the environment has changed", after, what);
    if (now.threads != ours.threads)
        say("%s 0x%lx: there are %d threads, and were %d", after, what, now.threads, ours.threads);
}

static void arrange(void)
{
    static char stack[65536];
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART | SA_ONSTACK};
    stack_t other = {.ss_sp = stack, .ss_size = sizeof stack};
    sigset_t blocked;

    for (int number = 1; number < SIGNALS; number++)
        sigaction(number, &action, NULL);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR2);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    sigaltstack(&other, NULL);
    umask(0027);
    setlocale(LC_ALL, "C.UTF-8");
    setenv("OF_THE_HOST", "1", 1);
    fesetround(FE_UPWARD);
    look(&ours);
}

static CK_ULONG session, keys[6], key_count;

static void make(CK_RV rv, CK_ULONG key)
{
    OK(rv);
    keys[key_count++] = key;
}

static void make_keys(void)
{
    CK_BYTE yes = 1, no = 0;
    CK_ULONG bits = 1024, aes = 32, secret = 32, public_key, private_key, made, object_class = CKO_SECRET_KEY;
    CK_ULONG hkdf = CKK_HKDF;
    CK_ATTRIBUTE rsa[] = {{CKA_MODULUS_BITS, &bits, sizeof bits}};
    CK_ATTRIBUTE curve[] = {bytes_of(CKA_EC_PARAMS, P256, 10)};
    CK_ATTRIBUTE session_key[] = {{CKA_TOKEN, &no, 1}, {CKA_DERIVE, &yes, 1}};
    CK_ATTRIBUTE of_aes[] = {{CKA_VALUE_LEN, &aes, sizeof aes}};
    CK_ATTRIBUTE of_secret[] = {{CKA_VALUE_LEN, &secret, sizeof secret}};
    CK_ATTRIBUTE of_hkdf[] = {{CKA_CLASS, &object_class, 8}, {CKA_KEY_TYPE, &hkdf, 8}, bytes_of(CKA_VALUE, P256, 10)};
    CK_MECHANISM mechanism = {CKM_RSA_PKCS_KEY_PAIR_GEN, NULL, 0};

    OK(p11->C_GenerateKeyPair(session, &mechanism, rsa, 1, session_key, 1, &public_key, &private_key));
    make(CKR_OK, public_key);
    make(CKR_OK, private_key);
    mechanism.mechanism = CKM_EC_KEY_PAIR_GEN;
    OK(p11->C_GenerateKeyPair(session, &mechanism, curve, 1, session_key, 2, &public_key, &private_key));
    make(CKR_OK, private_key);
    mechanism.mechanism = CKM_AES_KEY_GEN;
    make(p11->C_GenerateKey(session, &mechanism, of_aes, 1, &made), made);
    mechanism.mechanism = CKM_GENERIC_SECRET_KEY_GEN;
    make(p11->C_GenerateKey(session, &mechanism, of_secret, 1, &made), made);
    make(p11->C_CreateObject(session, of_hkdf, 3, &made), made);
}

/* All that a mechanism can be begun with: no parameter, or 16 bytes; with each key; and one use of what begins. */
static void use(CK_ULONG kind)
{
    CK_BYTE data[256] = {1}, out[4096], iv[16] = {0};
    CK_ULONG length, made, other, size = 16;
    CK_ATTRIBUTE asked[] = {{CKA_VALUE_LEN, &size, sizeof size}};
    CK_MECHANISM mechanisms[] = {{kind, NULL, 0}, {kind, iv, sizeof iv}};

    for (int i = 0; i < 2; i++) {
        CK_MECHANISM *mechanism = &mechanisms[i];

        if (p11->C_DigestInit(session, mechanism) == CKR_OK)
            length = sizeof out, p11->C_Digest(session, data, 32, out, &length);
        if (kind != CKM_RSA_PKCS_KEY_PAIR_GEN)
            p11->C_GenerateKeyPair(session, mechanism, NULL, 0, NULL, 0, &made, &other);
        p11->C_GenerateKey(session, mechanism, asked, 1, &made);
        for (CK_ULONG k = 0; k < key_count; k++) {
            if (p11->C_EncryptInit(session, mechanism, keys[k]) == CKR_OK)
                length = sizeof out, p11->C_Encrypt(session, data, 32, out, &length);
            if (p11->C_DecryptInit(session, mechanism, keys[k]) == CKR_OK)
                length = sizeof out, p11->C_Decrypt(session, data, 128, out, &length);
            if (p11->C_SignInit(session, mechanism, keys[k]) == CKR_OK)
                length = sizeof out, p11->C_Sign(session, data, 32, out, &length);
            if (p11->C_VerifyInit(session, mechanism, keys[k]) == CKR_OK)
                p11->C_Verify(session, data, 32, data, 128);
            length = sizeof out;
            p11->C_WrapKey(session, mechanism, keys[k], keys[3], out, &length);
            p11->C_UnwrapKey(session, mechanism, keys[k], data, 128, asked, 1, &made);
            p11->C_DeriveKey(session, mechanism, keys[k], asked, 1, &made);
        }
    }
}

/* Functions by their place in the list, which starts with its version. */
static CK_ULONG call_all(const char *module)
{
    typedef CK_RV (*Any)(CK_ULONG, CK_ULONG, CK_ULONG, CK_ULONG, CK_ULONG, CK_ULONG, CK_ULONG, CK_ULONG, CK_ULONG);
    CK_INTERFACE *interface;
    CK_RV (*get)(CK_BYTE *, CK_VERSION *, CK_INTERFACE **, CK_ULONG) =
        (CK_RV (*)(CK_BYTE *, CK_VERSION *, CK_INTERFACE **, CK_ULONG))dlsym(dlopen(module, RTLD_NOW), "C_GetInterface");
    CK_ULONG count = sizeof(CK_FUNCTION_LIST_3_2) / sizeof(void *) - 1;

    if (get == NULL)
        exit(2);
    OK(get(NULL, NULL, &interface, 0));
    CK_FUNCTION_LIST_3_2 *list = interface->pFunctionList;
    Any *functions = (Any *)((char *)list + sizeof(void *));
    for (CK_ULONG i = 0; i < count; i++) {
        if ((void *)functions[i] == (void *)list->C_Finalize)
            continue;
        void *function = (void *)functions[i];
        int no_session = function == (void *)list->C_Initialize || function == (void *)list->C_GetInfo ||
                         function == (void *)list->C_GetFunctionList || function == (void *)list->C_GetInterface ||
                         function == (void *)list->C_GetInterfaceList;
        if (function == (void *)list->C_WaitForSlotEvent)
            functions[i](CKF_DONT_BLOCK, 0, 0, 0, 0, 0, 0, 0, 0);
        else
            functions[i](no_session ? 0 : session, 0, 0, 0, 0, 0, 0, 0, 0);
        compare("function", i);
        CK_SESSION_INFO info;
        if (p11->C_GetSessionInfo(session, &info) != CKR_OK) /* it closed the session */
            session = open_session();
    }
    return count;
}

int main(int count, char **arguments)
{
    CK_ULONG kinds[512], number = 512;
    State at_end;

    if (count != 3)
        return 2;
    arrange();
    load(arguments[1]);
    compare("load", 0);
    OK(p11->C_Initialize(NULL));
    compare("C_Initialize", 0);
    session = open_session();
    OK(login(session, CKU_USER, arguments[2]));
    compare("C_Login", 0);
    make_keys();
    compare("keys", 0);
    OK(p11->C_GetMechanismList(first_slot(), kinds, &number));
    for (CK_ULONG i = 0; i < number; i++) {
        use(kinds[i]);
        compare("mechanism", kinds[i]);
    }
    CK_ULONG functions = call_all(arguments[1]);
    OK(p11->C_Finalize(NULL));
    compare("C_Finalize", 0);
    look(&at_end);
    if (strcmp(at_end.descriptors, ours.descriptors) != 0)
        say("descriptors are %s, and were %s", at_end.descriptors, ours.descriptors);
    say("%lu mechanisms and %lu functions", number, functions);
    return 0;
}
