/*
 * Arguments for the fuzzer, drawn by type. Whatever the module reads or writes lies against a page that nobody may touch,
 * and behind bytes that nobody may change: one byte too many ends the host, or is found after the call.
 */
#include "host.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>

#define PAGE 4096UL
#define ROOM (2 * PAGE)   /* the largest buffer */
#define BUFFERS 160       /* of one call */
#define GUARD 0xA5
#define GUARDED 32        /* bytes before a buffer that stay as they are */
#define POOL 64
#define MANY(table) (sizeof table / sizeof table[0])

struct buffer {
    CK_BYTE *room, *data;
};

/* One thread's work. `call` is what the watchdog and the signal handler name. */
struct fuzzer {
    uint64_t state;
    int number, used;
    struct buffer buffers[BUFFERS];
    const char *call;
    unsigned long count;
    _Atomic long began; /* seconds; 0 between calls */
    CK_BYTE stash[2][512]; /* the last saved state, the last wrapped key */
    CK_ULONG stashed[2];
    const char *begun;  /* the part of a name that an operation's functions share ("Sign"), while one is likely active */
    CK_ULONG favourite; /* and its session */
};

/* The first half of `handles` is what begin() made, by kind; what calls make comes into the other. */
static _Atomic CK_ULONG sessions[POOL], handles[POOL];
static CK_ULONG slot;
static const char *user_pin;

static uint32_t draw(struct fuzzer *fuzzer, uint32_t below)
{
    fuzzer->state ^= fuzzer->state << 13;
    fuzzer->state ^= fuzzer->state >> 7;
    fuzzer->state ^= fuzzer->state << 17;
    return (uint32_t)(fuzzer->state >> 32) % below;
}

static int chance(struct fuzzer *fuzzer, int percent)
{
    return (int)draw(fuzzer, 100) < percent;
}

static void make_buffers(struct fuzzer *fuzzer)
{
    int i;

    for (i = 0; i < BUFFERS; i++) {
        CK_BYTE *pages = mmap(NULL, ROOM + 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (pages == MAP_FAILED || mprotect(pages + ROOM + PAGE * 2, PAGE, PROT_NONE) != 0)
            exit(3);
        fuzzer->buffers[i].room = pages;
    }
}

/* `size` bytes of noise. */
static void *buffer(struct fuzzer *fuzzer, CK_ULONG size)
{
    struct buffer *next = &fuzzer->buffers[fuzzer->used];
    CK_ULONG i;

    if (fuzzer->used == BUFFERS || size > ROOM) {
        fprintf(stderr, "fuzz: %s takes too many or too large buffers\n", fuzzer->call);
        exit(3);
    }
    fuzzer->used++;
    next->data = next->room + ROOM + 2 * PAGE - size;
    memset(next->data - GUARDED, GUARD, GUARDED);
    if (size <= 64)
        for (i = 0; i < size; i++)
            next->data[i] = (CK_BYTE)draw(fuzzer, 256);
    else
        memset(next->data, (int)draw(fuzzer, 256), size);
    return next->data;
}

static void look_at_guards(struct fuzzer *fuzzer, CK_RV rv)
{
    int i, j;

    for (i = 0; i < fuzzer->used; i++)
        for (j = 1; j <= GUARDED; j++)
            if (fuzzer->buffers[i].data[-j] != GUARD) {
                fprintf(stderr, "fuzz: %s (0x%lx) wrote before a buffer\n", fuzzer->call, rv);
                _exit(4);
            }
    fuzzer->used = 0;
}

/* A length as programs have them. */
static CK_ULONG length(struct fuzzer *fuzzer)
{
    static const CK_ULONG usual[] = {0, 1, 7, 8, 12, 15, 16, 17, 20, 24, 28, 31, 32, 33, 48, 64, 65, 97, 128, 256, 512, 4096};

    return chance(fuzzer, 90) ? usual[draw(fuzzer, MANY(usual))] : draw(fuzzer, ROOM);
}

/* A number in a parameter or a template: small ones, bits, mechanisms, and what no one can mean. */
static CK_ULONG value(struct fuzzer *fuzzer)
{
    static const CK_ULONG usual[] = {0, 1, 2, 3, 4, 5, 8, 12, 16, 20, 32, 64, 96, 104, 112, 120, 128, 256, 1024, CKM_SHA_1, CKM_SHA256,
                                     CKM_SHA384, CKM_SHA512, CKM_AES_CBC, 0xCE534351, 1UL << 31, ~0UL - 15, ~0UL};

    return usual[draw(fuzzer, MANY(usual))];
}

/* PBKDF2 with 2^31 rounds is no fault of the module's. */
static CK_ULONG rounds(struct fuzzer *fuzzer)
{
    return draw(fuzzer, 200);
}

static CK_ULONG any_of(struct fuzzer *fuzzer, _Atomic CK_ULONG *pool)
{
    if (chance(fuzzer, 95))
        return atomic_load(&pool[draw(fuzzer, POOL)]);
    return chance(fuzzer, 50) ? value(fuzzer) : draw(fuzzer, 1000);
}

static CK_ULONG session_(struct fuzzer *fuzzer)
{
    if (fuzzer->begun != NULL && chance(fuzzer, 80))
        return fuzzer->favourite;
    return any_of(fuzzer, sessions);
}

static CK_ULONG handle_(struct fuzzer *fuzzer)
{
    return any_of(fuzzer, handles);
}

static CK_ULONG slot_(struct fuzzer *fuzzer)
{
    return chance(fuzzer, 95) ? slot : value(fuzzer);
}

/* The pointer, or now and then NULL. */
static void *or_null(struct fuzzer *fuzzer, void *pointer)
{
    return chance(fuzzer, 97) ? pointer : NULL;
}

static void keep(struct fuzzer *fuzzer, _Atomic CK_ULONG *pool, const CK_ULONG *made)
{
    if (made != NULL)
        atomic_store(&pool[POOL / 2 + draw(fuzzer, POOL / 2)], *made);
}

/* A saved state (0) or a wrapped key (1), which another call may take. */
static void stash(struct fuzzer *fuzzer, int which, const void *data, const CK_ULONG *size)
{
    if (data == NULL || size == NULL || *size > sizeof fuzzer->stash[which])
        return;
    memcpy(fuzzer->stash[which], data, *size);
    fuzzer->stashed[which] = *size;
}

static void *stashed(struct fuzzer *fuzzer, int which, void *otherwise, CK_ULONG *size)
{
    if (fuzzer->stashed[which] == 0 || chance(fuzzer, 40))
        return otherwise;
    *size = fuzzer->stashed[which];
    return memcpy(buffer(fuzzer, *size), fuzzer->stash[which], *size);
}

/* The keys in the pool that begin() fills: a bit for each of its 16 places. */
#define OF_AES 0x4003
#define OF_GENERIC 0x800c
#define OF_EC_PUBLIC 0x1010
#define OF_EC_PRIVATE 0x2020
#define OF_EDWARDS_PUBLIC 0x40
#define OF_EDWARDS_PRIVATE 0x80
#define OF_MONTGOMERY_PUBLIC 0x100
#define OF_MONTGOMERY_PRIVATE 0x200
#define OF_RSA_PUBLIC 0x400
#define OF_RSA_PRIVATE 0x800

static CK_ULONG key_of(struct fuzzer *fuzzer, unsigned places)
{
    uint32_t place = draw(fuzzer, 16);

    while ((places >> place & 1) == 0)
        place = (place + 1) % 16;
    return atomic_load(&handles[place + 16 * draw(fuzzer, 2)]);
}

/* Attributes by the kind of their values, with those that matter more than once: filled by fuzz_calls.py. */
struct attribute {
    CK_ULONG type;
    char kind; /* b(ool), u(long), n(ested template), o(ctets) */
};
static const struct attribute attributes[];
static const CK_ULONG attributes_known;

static CK_ATTRIBUTE *template_(struct fuzzer *fuzzer, CK_ULONG *count, int output, int depth);

static void fill(struct fuzzer *fuzzer, CK_ATTRIBUTE *attribute, int output, int depth)
{
    static const CK_ULONG classes[] = {CKO_DATA, CKO_CERTIFICATE, CKO_PUBLIC_KEY, CKO_PRIVATE_KEY, CKO_SECRET_KEY};
    static const CK_ULONG types[] = {CKK_RSA, CKK_EC, CKK_EC_EDWARDS, CKK_EC_MONTGOMERY, CKK_AES, CKK_GENERIC_SECRET, CKK_DES3};
    static const CK_ULONG bits[] = {0, 512, 1024, 1024, 1024};
    const struct attribute *chosen = &attributes[draw(fuzzer, (uint32_t)attributes_known)];
    CK_ULONG size = 0, number = value(fuzzer);

    attribute->type = chance(fuzzer, 97) ? chosen->type : value(fuzzer);
    if (chosen->kind == 'n') { /* never octets: the module follows the addresses in it */
        attribute->type = chosen->type;
        attribute->pValue = depth > 0 ? template_(fuzzer, &size, output, depth - 1) : NULL;
        attribute->ulValueLen = size * sizeof(CK_ATTRIBUTE);
        return;
    }
    size = chosen->kind == 'b' ? 1 : chosen->kind == 'u' ? sizeof number : length(fuzzer);
    if (chance(fuzzer, 3))
        size = length(fuzzer);
    attribute->pValue = buffer(fuzzer, size);
    attribute->ulValueLen = size;
    if (output) {
        attribute->pValue = chance(fuzzer, 70) ? attribute->pValue : NULL;
        return;
    }
    if (chosen->kind == 'b' && size == 1) /* few token objects: the disk is slow */
        *(CK_BYTE *)attribute->pValue = (CK_BYTE)chance(fuzzer, chosen->type == CKA_TOKEN ? 10 : 50);
    if (size == sizeof number && chosen->kind == 'u') {
        if (chosen->type == CKA_CLASS)
            number = classes[draw(fuzzer, MANY(classes))];
        else if (chosen->type == CKA_KEY_TYPE)
            number = types[draw(fuzzer, MANY(types))];
        else if (chosen->type == CKA_MODULUS_BITS)
            number = bits[draw(fuzzer, MANY(bits))];
        else if (chosen->type == CKA_VALUE_LEN)
            number = chance(fuzzer, 90) ? 8UL << draw(fuzzer, 4) : number;
        memcpy(attribute->pValue, &number, sizeof number);
    }
    if (chosen->type == CKA_EC_PARAMS && chance(fuzzer, 80)) {
        attribute->pValue = memcpy(buffer(fuzzer, 10), P256, 10);
        attribute->ulValueLen = 10;
    }
    if (chance(fuzzer, 2))
        attribute->pValue = NULL;
}

/* A secret key's, as C_UnwrapKey, C_DeriveKey and C_CreateObject take it; the public half of a pair on P-256. */
static CK_ATTRIBUTE *good_template(struct fuzzer *fuzzer, CK_ULONG *count, int pair)
{
    static const CK_ULONG class = CKO_SECRET_KEY, types[] = {CKK_AES, CKK_GENERIC_SECRET}, lengths[] = {16, 24, 32};
    CK_ATTRIBUTE *template = buffer(fuzzer, 3 * sizeof *template);

    if (pair) {
        *count = 1;
        template[0] = bytes_of(CKA_EC_PARAMS, P256, 10);
        return template;
    }
    *count = 2 + draw(fuzzer, 2);
    template[0] = word_of(CKA_CLASS, &class);
    template[1] = word_of(CKA_KEY_TYPE, &types[draw(fuzzer, 2)]);
    template[2] = word_of(CKA_VALUE_LEN, &lengths[draw(fuzzer, 3)]);
    if (*count == 3 && chance(fuzzer, 40))
        template[2] = bytes_of(CKA_VALUE, buffer(fuzzer, 16), 16);
    return template;
}

static CK_ATTRIBUTE *template_(struct fuzzer *fuzzer, CK_ULONG *count, int output, int depth)
{
    CK_ATTRIBUTE *template;
    CK_ULONG i;

    *count = draw(fuzzer, depth > 1 ? 7 : 3);
    template = buffer(fuzzer, *count * sizeof *template);
    for (i = 0; i < *count; i++)
        fill(fuzzer, &template[i], output, depth);
    if (chance(fuzzer, 2))
        return NULL;
    return template;
}
