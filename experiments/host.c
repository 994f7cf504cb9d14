/*
 * The host of every experiment: a C program that uses any PKCS #11 module through dlopen, as NSS does.
 *
 *     host MODULE LABEL PARAMETERS COMMAND ARGUMENTS...
 *
 * LABEL names the token, PARAMETERS is softoken's string for C_Initialize ("-": none). Each call that changes the token
 * is announced (`try WHAT`) before it is made and acknowledged (`done`) after it has answered CKR_OK; a call that fails
 * where it must not ends the host with `failed CALL CK_RV` and status 1. Lines are written at once, in one write each.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cryptoki.h"

#define P256 "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"
#define SIGNATURE_SIZE 64
#define MOST 20000
#define LIMIT 60 /* seconds for a command that ends by itself; then SIGALRM: the module hangs */
#define OK(call) check(#call, (call))

typedef CK_RV (*GetFunctionList)(CK_FUNCTION_LIST **);

static CK_FUNCTION_LIST *p11;
static const char *label, *parameters;
static CK_ULONG slot, session;
static const CK_BYTE digest[32] = {1, 2, 3};

static void say(const char *format, ...)
{
    char line[2048];
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (length > (int)sizeof line - 2)
        length = sizeof line - 2;
    line[length++] = '\n';
    if (write(STDOUT_FILENO, line, (size_t)length) != length)
        _exit(3);
}

static void check(const char *call, CK_RV rv)
{
    if (rv == CKR_OK)
        return;
    call += strncmp(call, "p11->", 5) == 0 ? 5 : 0;
    say("failed %.*s %lu", (int)strcspn(call, "("), call, rv);
    _exit(1);
}

/* With softoken's string where it looks for it, and the NULL that it expects behind the standard's structure. */
static CK_RV initialize(void)
{
    struct {
        CK_C_INITIALIZE_ARGS standard;
        void *behind;
    } arguments;

    memset(&arguments, 0, sizeof arguments);
    arguments.standard.flags = CKF_OS_LOCKING_OK;
    arguments.standard.pReserved = strcmp(parameters, "-") == 0 ? NULL : (void *)parameters;
    return p11->C_Initialize(&arguments);
}

static int find_slot(void)
{
    CK_ULONG slots[64], count = 64, i;
    CK_TOKEN_INFO info;

    if (p11->C_GetSlotList(1, slots, &count) != CKR_OK)
        return 0;
    for (i = 0; i < count; i++)
        if (p11->C_GetTokenInfo(slots[i], &info) == CKR_OK && memcmp(info.label, label, strlen(label)) == 0) {
            slot = slots[i];
            return 1;
        }
    return 0;
}

static CK_RV open_session(CK_ULONG *opened)
{
    CK_RV rv = p11->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, opened);

    return rv == CKR_OK ? rv : p11->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, opened);
}

static CK_RV login(CK_ULONG user, const char *pin)
{
    return p11->C_Login(session, user, (CK_BYTE *)pin, strlen(pin));
}

static void begin(const char *pin)
{
    check("C_Initialize(", initialize());
    if (!find_slot()) {
        say("failed no-slot 0");
        _exit(1);
    }
    check("p11->C_OpenSession(", open_session(&session));
    if (pin != NULL)
        check("p11->C_Login(", login(CKU_USER, pin));
}

static CK_ATTRIBUTE bytes_of(CK_ULONG type, const void *value, CK_ULONG length)
{
    CK_ATTRIBUTE attribute = {type, (void *)value, length};

    return attribute;
}

static CK_ATTRIBUTE text_of(CK_ULONG type, const char *text)
{
    return bytes_of(type, text, strlen(text));
}

static CK_ATTRIBUTE bool_of(CK_ULONG type, int value)
{
    static const CK_BYTE both[2] = {0, 1};

    return bytes_of(type, &both[value], 1);
}

/* An AES key whose value follows from its name. */
static CK_RV create(const char *name, CK_ULONG *object)
{
    static const CK_ULONG class = CKO_SECRET_KEY, type = CKK_AES;
    char value[33];
    CK_ATTRIBUTE template[] = {
        bytes_of(CKA_CLASS, &class, sizeof class), bytes_of(CKA_KEY_TYPE, &type, sizeof type),
        bool_of(CKA_TOKEN, 1), bool_of(CKA_PRIVATE, 1), bool_of(CKA_SENSITIVE, 0), bool_of(CKA_EXTRACTABLE, 1),
        bool_of(CKA_ENCRYPT, 1), bool_of(CKA_MODIFIABLE, 1), text_of(CKA_ID, name), text_of(CKA_LABEL, name),
        bytes_of(CKA_VALUE, value, 32)};

    snprintf(value, sizeof value, "%-32s", name);
    return p11->C_CreateObject(session, template, sizeof template / sizeof *template, object);
}

/* A P-256 pair on the token: handles[0] is the public key, handles[1] the private one. */
static CK_RV generate_pair(const char *name, CK_ULONG *handles)
{
    CK_MECHANISM mechanism = {CKM_EC_KEY_PAIR_GEN, NULL, 0};
    CK_ATTRIBUTE public[] = {bytes_of(CKA_EC_PARAMS, P256, 10), bool_of(CKA_TOKEN, 1), bool_of(CKA_VERIFY, 1),
                             text_of(CKA_ID, name), text_of(CKA_LABEL, name)};
    CK_ATTRIBUTE private[] = {bool_of(CKA_TOKEN, 1), bool_of(CKA_PRIVATE, 1), bool_of(CKA_SIGN, 1),
                              bool_of(CKA_SENSITIVE, 1), text_of(CKA_ID, name), text_of(CKA_LABEL, name)};

    return p11->C_GenerateKeyPair(session, &mechanism, public, 5, private, 6, &handles[0], &handles[1]);
}

static CK_RV sign(CK_ULONG in, CK_ULONG key, CK_BYTE *signature)
{
    CK_MECHANISM mechanism = {CKM_ECDSA, NULL, 0};
    CK_ULONG length = SIGNATURE_SIZE;
    CK_RV rv = p11->C_SignInit(in, &mechanism, key);

    return rv != CKR_OK ? rv : p11->C_Sign(in, (CK_BYTE *)digest, sizeof digest, signature, &length);
}

static CK_RV verify(CK_ULONG key, const CK_BYTE *signature)
{
    CK_MECHANISM mechanism = {CKM_ECDSA, NULL, 0};
    CK_RV rv = p11->C_VerifyInit(session, &mechanism, key);

    return rv != CKR_OK ? rv
                        : p11->C_Verify(session, (CK_BYTE *)digest, sizeof digest, (CK_BYTE *)signature, SIGNATURE_SIZE);
}

static CK_RV find(CK_ULONG class, const char *id, CK_ULONG *found, CK_ULONG room, CK_ULONG *count)
{
    CK_ATTRIBUTE wanted[] = {bytes_of(CKA_CLASS, &class, sizeof class), bool_of(CKA_TOKEN, 1),
                             text_of(CKA_ID, id == NULL ? "" : id)};
    CK_RV rv = p11->C_FindObjectsInit(session, wanted, id == NULL ? 2 : 3);

    *count = 0;
    if (rv != CKR_OK)
        return rv;
    rv = p11->C_FindObjects(session, found, room, count);
    p11->C_FindObjectsFinal(session);
    return rv;
}

static void hex_of(const CK_BYTE *bytes, size_t length, char *text)
{
    size_t i;

    text[0] = '\0';
    for (i = 0; i < length; i++)
        sprintf(text + 2 * i, "%02x", bytes[i]);
}

/* What the token answers: `initialize RV`, `slot`, `login RV`, `find CLASS RV`, a line for each object, `end`. */

static const CK_ULONG shown[] = {CKA_LABEL, CKA_VALUE,  CKA_EC_POINT, CKA_PRIVATE,    CKA_SENSITIVE,   CKA_EXTRACTABLE,
                                 CKA_SIGN,  CKA_VERIFY, CKA_ENCRYPT,  CKA_MODIFIABLE, CKA_DESTROYABLE, CKA_COPYABLE};

static void look_at(CK_ULONG class, CK_ULONG object)
{
    char line[1500], id[130];
    CK_BYTE value[256], signature[SIGNATURE_SIZE];
    CK_ATTRIBUTE attribute = bytes_of(CKA_ID, value, 64);
    CK_RV rv = p11->C_GetAttributeValue(session, object, &attribute, 1);
    CK_ULONG others[2], count;
    size_t i, used;

    hex_of(value, rv == CKR_OK ? attribute.ulValueLen : 0, id);
    used = (size_t)sprintf(line, "object %lu id=%s:%lu", class, id, rv);
    for (i = 0; i < sizeof shown / sizeof *shown; i++) {
        if (shown[i] == CKA_VALUE && class != CKO_SECRET_KEY)
            continue;
        attribute = bytes_of(shown[i], value, sizeof value);
        rv = p11->C_GetAttributeValue(session, object, &attribute, 1);
        used += (size_t)sprintf(line + used, " %lx=", shown[i]);
        if (rv == CKR_OK) {
            hex_of(value, attribute.ulValueLen < 80 ? attribute.ulValueLen : 80, line + used);
            used += strlen(line + used);
        }
        used += (size_t)sprintf(line + used, ":%lu", rv);
    }
    if (class == CKO_SECRET_KEY) {
        CK_MECHANISM mechanism = {CKM_AES_ECB, NULL, 0};
        CK_ULONG length = sizeof value;

        rv = p11->C_EncryptInit(session, &mechanism, object);
        if (rv == CKR_OK)
            rv = p11->C_Encrypt(session, (CK_BYTE *)digest, 16, value, &length);
        hex_of(value, rv == CKR_OK ? length : 0, id);
        used += (size_t)sprintf(line + used, " encrypt=%s:%lu", id, rv);
    }
    if (class == CKO_PRIVATE_KEY) {
        char name[65] = "";
        for (i = 0; i < 64 && id[2 * i] != '\0'; i++) {
            unsigned byte;
            sscanf(id + 2 * i, "%2x", &byte);
            name[i] = (char)byte;
            name[i + 1] = '\0';
        }
        rv = sign(session, object, signature);
        used += (size_t)sprintf(line + used, " sign=:%lu", rv);
        if (rv == CKR_OK && find(CKO_PUBLIC_KEY, name, others, 2, &count) == CKR_OK && count > 0)
            used += (size_t)sprintf(line + used, " verify=:%lu", verify(others[0], signature));
    }
    say("%s", line);
}

static void look(const char *pin, const char *other_pin)
{
    static const CK_ULONG classes[] = {CKO_SECRET_KEY, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY};
    static CK_ULONG found[MOST];
    CK_ULONG count, i, j;
    CK_RV rv = initialize();

    say("initialize %lu", rv);
    if (rv != CKR_OK)
        return;
    if (!find_slot()) {
        say("no-slot");
        return;
    }
    rv = open_session(&session);
    say("open %lu", rv);
    if (rv != CKR_OK)
        return;
    rv = login(CKU_USER, pin);
    say("login %lu", rv);
    if (rv != CKR_OK && strcmp(other_pin, "-") != 0)
        say("login-other %lu", login(CKU_USER, other_pin));
    for (i = 0; i < sizeof classes / sizeof *classes; i++) {
        rv = find(classes[i], NULL, found, MOST, &count);
        say("find %lu %lu", classes[i], rv);
        for (j = 0; j < count; j++)
            look_at(classes[i], found[j]);
    }
    p11->C_Finalize(NULL);
    say("end");
}

/* Changes without end, for the parent to kill. */

static void loop(const char *kind, const char *pin, const char *so_pin)
{
    static CK_ULONG handles[MOST];
    const char *pins[2] = {pin, "another-pin-2"};
    char name[64];
    CK_ULONG i, fresh[2];

    begin(strcmp(kind, "login") == 0 || strcmp(kind, "init") == 0 ? NULL : pin);
    if (strcmp(kind, "modify") == 0 || strcmp(kind, "copy") == 0)
        for (i = 0; i < 3; i++) {
            snprintf(name, sizeof name, "first-%lu", i);
            say("try create %s", name);
            OK(create(name, &handles[i]));
            say("done");
        }
    say("ready");
    for (i = 0; i < MOST; i++) {
        snprintf(name, sizeof name, "%s-%lu", kind, i);
        if (strcmp(kind, "create") == 0) {
            say("try create %s", name);
            OK(create(name, &handles[0]));
        } else if (strcmp(kind, "modify") == 0) {
            CK_ATTRIBUTE change = text_of(CKA_LABEL, name);
            say("try modify first-%lu %s", i % 3, name);
            OK(p11->C_SetAttributeValue(session, handles[i % 3], &change, 1));
        } else if (strcmp(kind, "copy") == 0) {
            CK_ATTRIBUTE change[] = {text_of(CKA_LABEL, name), text_of(CKA_ID, name)};
            say("try copy %s first-%lu", name, i % 3);
            OK(p11->C_CopyObject(session, handles[i % 3], change, 2, &fresh[0]));
        } else if (strcmp(kind, "destroy") == 0) {
            say("try create %s", name);
            OK(create(name, &handles[i]));
            if (i >= 4) {
                say("done");
                say("try destroy destroy-%lu", i - 4);
                OK(p11->C_DestroyObject(session, handles[i - 4]));
            }
        } else if (strcmp(kind, "pair") == 0) {
            say("try pair %s", name);
            OK(generate_pair(name, fresh));
        } else if (strcmp(kind, "login") == 0) {
            say("try login");
            check("p11->C_Login(", login(CKU_USER, pin));
            OK(p11->C_Logout(session));
        } else if (strcmp(kind, "pin") == 0) {
            const char *old = pins[i % 2], *new = pins[(i + 1) % 2];
            say("try pin %s", new);
            OK(p11->C_SetPIN(session, (CK_BYTE *)old, strlen(old), (CK_BYTE *)new, strlen(new)));
        } else { /* init */
            CK_BYTE padded[32];
            memset(padded, ' ', sizeof padded);
            memcpy(padded, label, strlen(label));
            OK(p11->C_CloseAllSessions(slot));
            say("try init");
            OK(p11->C_InitToken(slot, (CK_BYTE *)so_pin, strlen(so_pin), padded));
            say("done");
            check("p11->C_OpenSession(", open_session(&session));
            check("p11->C_Login(", login(CKU_SO, so_pin));
            say("try first-pin");
            OK(p11->C_InitPIN(session, (CK_BYTE *)pin, strlen(pin)));
            OK(p11->C_Logout(session));
            say("done");
            check("p11->C_Login(", login(CKU_USER, pin));
            say("try create %s", name);
            OK(create(name, &handles[0]));
        }
        say("done");
    }
}

/* Objects to damage. */
static void populate(const char *pin, const char *prefix, int count)
{
    CK_ULONG handles[2];
    char name[64];
    int i;

    begin(pin);
    for (i = 0; i < count; i++) {
        snprintf(name, sizeof name, "%s-pair-%d", prefix, i);
        check("p11->C_GenerateKeyPair(", generate_pair(name, handles));
        say("made %s", name);
        snprintf(name, sizeof name, "%s-key-%d", prefix, i);
        check("p11->C_CreateObject(", create(name, handles));
        say("made %s", name);
    }
    OK(p11->C_Finalize(NULL));
}

/* Pairs beside other writers and readers; each signs once, each is found again. */
static void read_on(const char *pin)
{
    static CK_ULONG found[MOST];
    CK_BYTE signature[SIGNATURE_SIZE];
    CK_ULONG count, reads = 0;

    begin(pin);
    say("ready");
    for (;;) {
        check("p11->C_FindObjects(", find(CKO_PRIVATE_KEY, NULL, found, MOST, &count));
        if (count > 0)
            check("p11->C_Sign(", sign(session, found[reads % count], signature));
        say("read %lu", ++reads);
    }
}

static void rename_one(const char *pin, const char *id, const char *name)
{
    CK_ATTRIBUTE change = text_of(CKA_LABEL, name);
    CK_ULONG found[1], count;

    begin(pin);
    check("p11->C_FindObjects(", find(CKO_SECRET_KEY, id, found, 1, &count));
    OK(p11->C_SetAttributeValue(session, found[0], &change, 1));
    OK(p11->C_Finalize(NULL));
    say("end");
}

static void guess(const char *pin, const char *wrong, int count)
{
    int i;

    begin(NULL);
    for (i = 0; i < count; i++)
        say("guess %lu", login(CKU_USER, wrong));
    say("right %lu", login(CKU_USER, pin));
}

/* Objects until the place is full; `created N RV`, then signing, then whether the module goes on. */
static void fill(const char *pin)
{
    CK_BYTE signature[SIGNATURE_SIZE];
    CK_ULONG handle, found[1], count, i;
    char name[64];
    CK_RV rv = CKR_OK;

    begin(pin);
    say("ready");
    getchar();
    for (i = 0; i < MOST && rv == CKR_OK; i++) {
        snprintf(name, sizeof name, "fill-%lu", i);
        say("try create %s", name);
        rv = create(name, &handle);
        if (rv == CKR_OK)
            say("done");
    }
    say("created %lu", rv);
    rv = find(CKO_PRIVATE_KEY, NULL, found, 1, &count);
    say("sign %lu", rv != CKR_OK || count == 0 ? CKR_KEY_HANDLE_INVALID : sign(session, found[0], signature));
    p11->C_Finalize(NULL);
    say("end");
}

/* One object, one signature and a search, after the parent has changed the place (it writes a line). */
static void use(const char *pin)
{
    CK_BYTE signature[SIGNATURE_SIZE];
    CK_ULONG handle, found[1], count, first[1];
    CK_RV rv;

    begin(pin);
    check("p11->C_FindObjects(", find(CKO_PRIVATE_KEY, NULL, first, 1, &count));
    say("ready");
    getchar();
    rv = create("after", &handle);
    say("created %lu", rv);
    say("sign %lu", sign(session, first[0], signature));
    say("found %lu", find(CKO_PRIVATE_KEY, NULL, found, 1, &count));
    p11->C_Finalize(NULL);
    say("end");
}

static void init_wrong(const char *so_pin)
{
    CK_BYTE padded[32];

    begin(NULL);
    OK(p11->C_CloseAllSessions(slot));
    memset(padded, ' ', sizeof padded);
    memcpy(padded, label, strlen(label));
    say("init %lu", p11->C_InitToken(slot, (CK_BYTE *)so_pin, strlen(so_pin), padded));
    p11->C_Finalize(NULL);
}

/* Forks while two threads sign. r of every signature, with the process that made it, goes to stdout. */

#define PER_CHILD 4
#define CHILD_LIMIT 8 /* seconds */
/* Signatures between pauses: a host that never pauses keeps others from the processor, its own children too. */
#define BURST 20
#define PAUSE_US 2000

static int finished;

struct worker {
    CK_ULONG session, key, count;
    CK_BYTE r[MOST][8];
};

static void show_r(const CK_BYTE *r)
{
    char text[17];

    hex_of(r, 8, text);
    say("r %d %s", getpid(), text);
}

static void *keep_signing(void *argument)
{
    struct worker *worker = argument;
    CK_BYTE signature[SIGNATURE_SIZE];

    while (!__atomic_load_n(&finished, __ATOMIC_ACQUIRE)) {
        if (sign(worker->session, worker->key, signature) != CKR_OK)
            return NULL;
        if (worker->count < MOST)
            memcpy(worker->r[worker->count], signature, 8);
        __atomic_add_fetch(&worker->count, 1, __ATOMIC_RELAXED);
        if (worker->count % BURST == 0)
            usleep(PAUSE_US);
    }
    return NULL;
}

static int work_in_child(const char *pin)
{
    CK_BYTE signature[SIGNATURE_SIZE];
    CK_ULONG found[1], count;
    CK_INFO info;
    int i;

    alarm(CHILD_LIMIT);
    if (p11->C_GetInfo(&info) != CKR_OK) {
        CK_RV rv = initialize();
        if (rv != CKR_OK && (p11->C_Finalize(NULL), initialize()) != CKR_OK) {
            say("failed C_Initialize %lu", rv);
            return 1;
        }
    }
    if (!find_slot()) {
        say("failed C_GetSlotList 0");
        return 1;
    }
    check("p11->C_OpenSession(", open_session(&session));
    CK_RV rv = login(CKU_USER, pin);
    check("p11->C_Login(", rv == CKR_USER_ALREADY_LOGGED_IN ? CKR_OK : rv);
    check("p11->C_FindObjects(", find(CKO_PRIVATE_KEY, NULL, found, 1, &count));
    for (i = 0; i < PER_CHILD; i++) {
        check("p11->C_Sign(", sign(session, found[0], signature));
        show_r(signature);
    }
    return 0;
}

static void forks(const char *pin, int how_many)
{
    static struct worker workers[2];
    pthread_t threads[2];
    CK_ULONG found[1], count;
    int i;

    alarm(0);
    begin(pin);
    check("p11->C_FindObjects(", find(CKO_PRIVATE_KEY, NULL, found, 1, &count));
    for (i = 0; i < 2; i++) {
        check("p11->C_OpenSession(", open_session(&workers[i].session));
        workers[i].key = found[0];
        pthread_create(&threads[i], NULL, keep_signing, &workers[i]);
    }
    for (i = 0; i < how_many; i++) {
        int status;
        pid_t child;

        usleep(2000);
        child = fork();
        if (child == 0)
            _exit(work_in_child(pin));
        waitpid(child, &status, 0);
        say("child %d %d", WIFEXITED(status) ? WEXITSTATUS(status) : 0, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    }
    __atomic_store_n(&finished, 1, __ATOMIC_RELEASE);
    alarm(CHILD_LIMIT);
    for (i = 0; i < 2; i++) {
        CK_ULONG j;
        pthread_join(threads[i], NULL);
        for (j = 0; j < workers[i].count && j < MOST; j++)
            show_r(workers[i].r[j]);
        say("signed %lu", workers[i].count);
    }
    say("end");
}

int main(int count, char **arguments)
{
    const char *command, *first, *second;
    GetFunctionList get_list;
    void *library;

    if (count < 6)
        return 2;
    label = arguments[2];
    parameters = arguments[3];
    command = arguments[4];
    first = arguments[5];
    second = count > 6 ? arguments[6] : "-";
    library = dlopen(arguments[1], RTLD_NOW);
    get_list = library == NULL ? NULL : (GetFunctionList)dlsym(library, "C_GetFunctionList");
    if (get_list == NULL || get_list(&p11) != CKR_OK) {
        say("failed dlopen 0");
        return 2;
    }
    alarm(LIMIT);
    if (strcmp(command, "look") == 0)
        look(first, second);
    else if (strcmp(command, "loop") == 0 && count == 8)
        loop(first, second, arguments[7]);
    else if (strcmp(command, "populate") == 0 && count == 8) {
        alarm(1200);
        populate(first, second, atoi(arguments[7]));
    } else if (strcmp(command, "read") == 0) {
        alarm(1200);
        read_on(first);
    } else if (strcmp(command, "rename") == 0 && count == 8)
        rename_one(first, second, arguments[7]);
    else if (strcmp(command, "guess") == 0 && count == 8) {
        alarm(300);
        guess(first, second, atoi(arguments[7]));
    } else if (strcmp(command, "fill") == 0)
        fill(first);
    else if (strcmp(command, "use") == 0)
        use(first);
    else if (strcmp(command, "init-wrong") == 0)
        init_wrong(first);
    else if (strcmp(command, "forks") == 0)
        forks(first, atoi(second));
    else
        return 2;
    return 0;
}
