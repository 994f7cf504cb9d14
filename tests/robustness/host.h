/*
 * What the hosts of the robustness tests share: C programs that use the module as NSS does, through dlopen. cryptoki.h
 * is written by hosts.py from keyfob's own tables. A call that must answer CKR_OK and does not ends the host with status 1.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cryptoki.h"

#define SHARED static __attribute__((unused))
#define P256 "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"
#define SIGNATURE_SIZE 64

static CK_FUNCTION_LIST *p11;

#define OK(call) check(#call, (call))

SHARED void check(const char *call, CK_RV rv)
{
    if (rv == CKR_OK)
        return;
    fprintf(stderr, "host: %s answered 0x%lx\n", call, rv);
    fflush(stderr);
    _exit(1);
}

/* One line on stdout, at once and in one write, so that a kill leaves no half line. */
SHARED void say(const char *format, ...)
{
    char line[512];
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    line[length++] = '\n';
    if (write(STDOUT_FILENO, line, (size_t)length) != length)
        _exit(3);
}

SHARED void load_by(const char *module, int how)
{
    void *library = dlopen(module, how);
    CK_RV (*get_list)(CK_FUNCTION_LIST **) = library != NULL ? (CK_RV (*)(CK_FUNCTION_LIST **))dlsym(library, "C_GetFunctionList") : NULL;

    if (get_list == NULL) {
        fprintf(stderr, "host: %s\n", dlerror());
        exit(2);
    }
    OK(get_list(&p11));
}

SHARED void load(const char *module)
{
    load_by(module, RTLD_NOW);
}

SHARED CK_ULONG first_slot(void)
{
    CK_ULONG slots[16], count = 16;

    OK(p11->C_GetSlotList(1, slots, &count));
    return slots[0];
}

SHARED CK_ULONG open_session(void)
{
    CK_ULONG session;

    OK(p11->C_OpenSession(first_slot(), CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session));
    return session;
}

SHARED CK_RV login(CK_ULONG session, CK_ULONG user, const char *pin)
{
    return p11->C_Login(session, user, (CK_BYTE *)pin, strlen(pin));
}

SHARED CK_ATTRIBUTE bytes_of(CK_ULONG type, const void *value, CK_ULONG length)
{
    CK_ATTRIBUTE attribute = {type, (void *)value, length};

    return attribute;
}

SHARED CK_ATTRIBUTE text_of(CK_ULONG type, const char *text)
{
    return bytes_of(type, text, strlen(text));
}

SHARED CK_ATTRIBUTE word_of(CK_ULONG type, const CK_ULONG *value)
{
    return bytes_of(type, value, sizeof *value);
}

SHARED CK_ATTRIBUTE bool_of(CK_ULONG type, int value)
{
    static const CK_BYTE both[2] = {0, 1};

    return bytes_of(type, &both[value], 1);
}

/* All objects of a class; how many. */
SHARED CK_ULONG find(CK_ULONG session, CK_ULONG object_class, CK_ULONG *found, CK_ULONG room)
{
    CK_ATTRIBUTE wanted = word_of(CKA_CLASS, &object_class);
    CK_ULONG count;

    OK(p11->C_FindObjectsInit(session, &wanted, 1));
    OK(p11->C_FindObjects(session, found, room, &count));
    OK(p11->C_FindObjectsFinal(session));
    return count;
}

/* The value of an attribute as a text. */
SHARED CK_RV read_text(CK_ULONG session, CK_ULONG object, CK_ULONG type, char *text, CK_ULONG room)
{
    CK_ATTRIBUTE attribute = bytes_of(type, text, room - 1);
    CK_RV rv = p11->C_GetAttributeValue(session, object, &attribute, 1);

    text[rv == CKR_OK ? attribute.ulValueLen : 0] = '\0';
    return rv;
}

/* A P-256 pair on the token: handles[0] is the public key, handles[1] the private one. */
SHARED CK_RV generate_pair(CK_ULONG session, const char *id, const char *label, int token, CK_ULONG *handles)
{
    CK_MECHANISM mechanism = {CKM_EC_KEY_PAIR_GEN, NULL, 0};
    CK_ATTRIBUTE public[] = {bytes_of(CKA_EC_PARAMS, P256, 10), bool_of(CKA_TOKEN, token), text_of(CKA_ID, id),
                             text_of(CKA_LABEL, label)};
    CK_ATTRIBUTE private[] = {bool_of(CKA_TOKEN, token), bool_of(CKA_PRIVATE, 1), text_of(CKA_ID, id),
                              text_of(CKA_LABEL, label)};

    return p11->C_GenerateKeyPair(session, &mechanism, public, 4, private, 4, &handles[0], &handles[1]);
}

/* ECDSA over 32 bytes. */
SHARED CK_RV sign(CK_ULONG session, CK_ULONG key, const CK_BYTE *digest, CK_BYTE *signature)
{
    CK_MECHANISM mechanism = {CKM_ECDSA, NULL, 0};
    CK_ULONG length = SIGNATURE_SIZE;
    CK_RV rv = p11->C_SignInit(session, &mechanism, key);

    return rv != CKR_OK ? rv : p11->C_Sign(session, (CK_BYTE *)digest, 32, signature, &length);
}

SHARED void hex_of(const CK_BYTE *bytes, size_t length, char *text)
{
    size_t i;

    for (i = 0; i < length; i++)
        sprintf(text + 2 * i, "%02x", bytes[i]);
}
