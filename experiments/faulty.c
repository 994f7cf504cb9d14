/*
 * A deliberately faulty store: forwards to the module FAULTY_OF and has the defect that FAULTY names. The experiments
 * must find each (tests/experiments).
 *
 *     late         a created object is acknowledged before it is stored: with the next call
 *     half         the private key of a pair is stored some time after the public one
 *     rewrite      C_Login, C_SetPIN and C_InitToken write the token's file anew, in place (FAULTY_FILE)
 *     forget       one object in eight that was created, changed or destroyed was not
 *     unlimited    wrong PINs are not counted
 *     same-random  a child draws the same random numbers as its parent
 *     erases       C_InitToken asks for no SO PIN (FAULTY_SO_PIN is the right one)
 *     full         what a full disk refuses is acknowledged
 *     fork-lock    a lock that is held at a fork stays held in the child
 *     impatient    C_Login fails where another process is inside one
 *     by-path      C_CreateObject acknowledges what it does not store, because FAULTY_FILE cannot be written
 *     by-clock     C_CreateObject fails where FAULTY_FILE was written later than now
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cryptoki.h"

#define KEPT 16

static CK_FUNCTION_LIST *real, list;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned long counter, calls;

static int has(const char *defect)
{
    const char *wanted = getenv("FAULTY");

    return wanted != NULL && strcmp(wanted, defect) == 0;
}

static const char *file_of_token(void)
{
    const char *path = getenv("FAULTY_FILE");

    return path == NULL ? "" : path;
}

static struct {
    CK_ULONG session, count;
    CK_ATTRIBUTE template[KEPT];
} waiting;

static void store_what_waits(void)
{
    CK_ULONG i, object;

    if (waiting.count != 0)
        real->C_CreateObject(waiting.session, waiting.template, waiting.count, &object);
    for (i = 0; i < waiting.count; i++)
        free(waiting.template[i].pValue);
    waiting.count = 0;
}

static CK_RV create(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count, CK_ULONG *object)
{
    struct stat status;
    CK_ULONG i;
    CK_RV rv;

    if (has("late") && count <= KEPT) {
        store_what_waits();
        for (i = 0; i < count; i++) {
            waiting.template[i] = template[i];
            waiting.template[i].pValue = malloc(template[i].ulValueLen + 1);
            memcpy(waiting.template[i].pValue, template[i].pValue, template[i].ulValueLen);
        }
        waiting.session = session;
        waiting.count = count;
        *object = 999999 + calls++;
        return CKR_OK;
    }
    if (has("forget") && ++calls % 8 == 0)
        return CKR_OK;
    if (has("by-path") && access(file_of_token(), W_OK) != 0)
        return CKR_OK;
    if (has("by-clock") && stat(file_of_token(), &status) == 0 && status.st_mtime > time(NULL))
        return CKR_FUNCTION_FAILED;
    rv = real->C_CreateObject(session, template, count, object);
    return has("full") && rv == CKR_DEVICE_MEMORY && ++calls < 5 ? CKR_OK : rv;
}

static CK_RV finalize(void *reserved)
{
    store_what_waits();
    return real->C_Finalize(reserved);
}

static CK_RV change(CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *template, CK_ULONG count)
{
    return has("forget") && ++calls % 8 == 0 ? CKR_OK : real->C_SetAttributeValue(session, object, template, count);
}

static CK_RV copy(CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *template, CK_ULONG count, CK_ULONG *made)
{
    return has("forget") && ++calls % 8 == 0 ? CKR_OK
                                             : real->C_CopyObject(session, object, template, count, made);
}

static CK_RV destroy(CK_ULONG session, CK_ULONG object)
{
    return has("forget") && ++calls % 8 == 0 ? CKR_OK : real->C_DestroyObject(session, object);
}

/* Half: the private key is first made for the session, and copied onto the token after a while. */
static CK_RV generate(CK_ULONG session, CK_MECHANISM *mechanism, CK_ATTRIBUTE *public, CK_ULONG public_count,
                      CK_ATTRIBUTE *private, CK_ULONG private_count, CK_ULONG *public_key, CK_ULONG *private_key)
{
    static CK_BYTE no = 0, yes = 1;
    CK_ATTRIBUTE on_token = {CKA_TOKEN, &yes, 1}, changed[KEPT];
    CK_ULONG i, of_session;
    CK_RV rv;

    if (has("forget") && ++calls % 8 == 0)
        return CKR_OK;
    if (!has("half") || private_count > KEPT)
        return real->C_GenerateKeyPair(session, mechanism, public, public_count, private, private_count, public_key,
                                       private_key);
    for (i = 0; i < private_count; i++) {
        changed[i] = private[i];
        if (changed[i].type == CKA_TOKEN)
            changed[i].pValue = &no;
    }
    rv = real->C_GenerateKeyPair(session, mechanism, public, public_count, changed, private_count, public_key,
                                 &of_session);
    if (rv != CKR_OK)
        return rv;
    usleep(5000);
    return real->C_CopyObject(session, of_session, &on_token, 1, private_key);
}

static void rewrite(void)
{
    static char content[1 << 20];
    FILE *file;
    size_t size;

    if (!has("rewrite") || (file = fopen(file_of_token(), "r+")) == NULL)
        return;
    size = fread(content, 1, sizeof content, file);
    if (ftruncate(fileno(file), 0) != 0)
        abort();
    usleep(5000);
    rewind(file);
    fwrite(content, 1, size, file);
    fclose(file);
}

static CK_RV login(CK_ULONG session, CK_ULONG user, CK_BYTE *pin, CK_ULONG length)
{
    CK_RV rv;
    int file;

    if (has("unlimited") && (length < 4 || memcmp(pin, "1234", 4) != 0))
        return CKR_PIN_INCORRECT;
    rewrite();
    if (!has("impatient"))
        return real->C_Login(session, user, pin, length);
    file = open(file_of_token(), O_RDONLY | O_CLOEXEC); /* stays open: closing it would take SQLite's locks away */
    if (flock(file, LOCK_EX | LOCK_NB) != 0)
        return CKR_FUNCTION_FAILED;
    rv = real->C_Login(session, user, pin, length);
    flock(file, LOCK_UN);
    return rv;
}

static CK_RV set_pin(CK_ULONG session, CK_BYTE *old, CK_ULONG old_length, CK_BYTE *new, CK_ULONG new_length)
{
    rewrite();
    return real->C_SetPIN(session, old, old_length, new, new_length);
}

static CK_RV init_token(CK_ULONG slot, CK_BYTE *pin, CK_ULONG length, CK_BYTE *label)
{
    char *right = getenv("FAULTY_SO_PIN");

    rewrite();
    if (has("erases") && right != NULL)
        return real->C_InitToken(slot, (CK_BYTE *)right, strlen(right), label);
    return real->C_InitToken(slot, pin, length, label);
}

static CK_RV sign(CK_ULONG session, CK_BYTE *data, CK_ULONG length, CK_BYTE *signature, CK_ULONG *signature_length)
{
    CK_RV rv;

    if (has("fork-lock"))
        pthread_mutex_lock(&lock);
    rv = real->C_Sign(session, data, length, signature, signature_length);
    if (has("fork-lock"))
        pthread_mutex_unlock(&lock);
    if (has("same-random") && rv == CKR_OK) {
        unsigned long drawn = __atomic_add_fetch(&counter, 1, __ATOMIC_SEQ_CST) * 0x9e3779b97f4a7c15UL;
        memcpy(signature, &drawn, sizeof drawn);
    }
    return rv;
}

__attribute__((visibility("default"))) CK_RV C_GetFunctionList(CK_FUNCTION_LIST **found)
{
    void *module = dlopen(getenv("FAULTY_OF"), RTLD_NOW);
    CK_RV (*get)(CK_FUNCTION_LIST **) =
        module == NULL ? NULL : (CK_RV(*)(CK_FUNCTION_LIST **))dlsym(module, "C_GetFunctionList");
    CK_RV rv = get == NULL ? CKR_GENERAL_ERROR : get(&real);

    if (rv != CKR_OK)
        return rv;
    list = *real;
    list.C_CreateObject = create;
    list.C_SetAttributeValue = change;
    list.C_CopyObject = copy;
    list.C_DestroyObject = destroy;
    list.C_GenerateKeyPair = generate;
    list.C_Finalize = finalize;
    list.C_Login = login;
    list.C_SetPIN = set_pin;
    list.C_InitToken = init_token;
    list.C_Sign = sign;
    *found = &list;
    return CKR_OK;
}
