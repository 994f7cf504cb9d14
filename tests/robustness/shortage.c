/*
 * What a host's shortage of memory does: `shortage MODULE PIN KIB [warm]`. With KIB more of address space than it has, the
 * host makes calls of every kind, fills the token with session objects, and ends; then it gets its memory back and does
 * all that again. Prints each answer of the first round that is not CKR_OK, as `CALL 0xRV`. Started `warm` it has made the
 * calls once before, so what is imported when it is first needed is there.
 */
#include "host.h"

#include <sys/resource.h>

#define MOST_OBJECTS 200000

static const char *pin;
static int strict; /* every call must answer CKR_OK */

static CK_RV did(const char *call, CK_RV rv)
{
    if (rv != CKR_OK && strict)
        check(call, rv);
    if (rv != CKR_OK)
        say("%s 0x%lx", call, rv);
    return rv;
}

#define DO(function, ...) did(#function, p11->function(__VA_ARGS__))

static size_t address_space(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    size_t pages;

    if (file == NULL || fscanf(file, "%zu", &pages) != 1)
        _exit(3);
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void limit(rlim_t bytes)
{
    struct rlimit both = {bytes, RLIM_INFINITY};

    if (setrlimit(RLIMIT_AS, &both) != 0)
        _exit(3);
}

static CK_RV make_secret(CK_ULONG session, CK_ULONG length, CK_ULONG *handle)
{
    static CK_BYTE value[1 << 16];
    CK_ULONG object_class = CKO_SECRET_KEY, type = CKK_GENERIC_SECRET;
    CK_ATTRIBUTE template[] = {word_of(CKA_CLASS, &object_class), word_of(CKA_KEY_TYPE, &type),
                               bytes_of(CKA_VALUE, value, length), bool_of(CKA_TOKEN, 0)};

    return p11->C_CreateObject(session, template, 4, handle);
}

static void use_keys(CK_ULONG session)
{
    static CK_BYTE data[1 << 20], out[(1 << 20) + 64];
    CK_MECHANISM ecdsa = {CKM_ECDSA, NULL, 0}, make = {CKM_AES_KEY_GEN, NULL, 0}, sha = {CKM_SHA256, NULL, 0};
    CK_MECHANISM cbc = {CKM_AES_CBC, data, 16};
    CK_ULONG pair[2], key, bytes = 32, length, type = CKO_PRIVATE_KEY, found[8], count;
    CK_ATTRIBUTE wanted = word_of(CKA_CLASS, &type), size = word_of(CKA_VALUE_LEN, &bytes);
    CK_ATTRIBUTE label = bytes_of(CKA_LABEL, out, sizeof out);

    if (DO(C_FindObjectsInit, session, &wanted, 1) == CKR_OK) {
        DO(C_FindObjects, session, found, 8, &count);
        DO(C_FindObjectsFinal, session);
    }
    if (did("C_GenerateKeyPair", generate_pair(session, "short", "short", 0, pair)) == CKR_OK) {
        if (DO(C_SignInit, session, &ecdsa, pair[1]) == CKR_OK) {
            length = SIGNATURE_SIZE;
            DO(C_Sign, session, data, 32, out, &length);
        }
        DO(C_GetAttributeValue, session, pair[0], &label, 1);
    }
    if (DO(C_GenerateKey, session, &make, &size, 1, &key) == CKR_OK && DO(C_EncryptInit, session, &cbc, key) == CKR_OK) {
        length = sizeof out;
        DO(C_Encrypt, session, data, sizeof data, out, &length);
    }
    if (DO(C_DigestInit, session, &sha) == CKR_OK) {
        length = 32;
        DO(C_Digest, session, data, sizeof data, out, &length);
    }
    DO(C_GenerateRandom, session, out, sizeof out);
}

static void fill(CK_ULONG session, CK_ULONG length)
{
    CK_ULONG handle, made = 0;
    CK_RV rv = CKR_OK;

    while (made < MOST_OBJECTS && (rv = make_secret(session, length, &handle)) == CKR_OK)
        made++;
    if (rv != CKR_HOST_MEMORY && rv != CKR_DEVICE_MEMORY)
        check("C_CreateObject until it is full", rv);
}

static void begin_and_end(int to_be_filled)
{
    CK_ULONG slots[16], count = 16, session, other;

    if (DO(C_Initialize, NULL) != CKR_OK)
        return;
    if (DO(C_GetSlotList, 1, slots, &count) == CKR_OK &&
        DO(C_OpenSession, slots[0], CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session) == CKR_OK) {
        if (did("C_Login", login(session, CKU_USER, pin)) == CKR_OK)
            use_keys(session);
        if (DO(C_OpenSession, slots[0], CKF_SERIAL_SESSION, NULL, NULL, &other) == CKR_OK) {
            if (to_be_filled) {
                fill(other, to_be_filled > 1 ? 1 << 16 : 16);
                use_keys(session);
            }
            OK(p11->C_CloseSession(other));
            use_keys(session);
        }
        OK(p11->C_CloseSession(session));
    }
    OK(p11->C_Finalize(NULL));
}

int main(int count, char **arguments)
{
    size_t kib = count >= 4 ? (size_t)atol(arguments[3]) : 0;

    if (kib == 0)
        return 2;
    pin = arguments[2];
    load(arguments[1]);
    OK(p11->C_Initialize(NULL));
    OK(p11->C_Finalize(NULL));
    strict = 1;
    if (count == 5)
        begin_and_end(0);
    strict = 0;
    limit(address_space() + (kib << 10));
    begin_and_end(1);
    begin_and_end(2);
    limit(RLIM_INFINITY);
    strict = 1;
    begin_and_end(0);
    return 0;
}
