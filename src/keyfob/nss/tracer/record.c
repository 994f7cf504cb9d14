/* Writes a trace's lines. What might be a secret never gets this far: its length does. */

#define _GNU_SOURCE
#include "record.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SHOWN 64          /* bytes of data, of a longer value the first */
#define SHOWN_VALUE 4096  /* bytes of an attribute: a certificate whole */
#define ABSENT (~(CK_ULONG)0)

static int output = -1;

__attribute__((constructor)) static void open_output(void)
{
    const char *path = secure_getenv("KEYFOB_TRACE_FILE");
    if (path != NULL && *path != '\0')
        output = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static void put(Record *record, const char *text, size_t length)
{
    if (record->failed)
        return;
    if (record->used + length > record->room) {
        size_t room = (record->used + length) * 2 + 256;
        char *larger = realloc(record->text, room);
        if (larger == NULL) {
            record->failed = 1;
            return;
        }
        record->text = larger;
        record->room = room;
    }
    memcpy(record->text + record->used, text, length);
    record->used += length;
}

static void put_text(Record *record, const char *text)
{
    put(record, text, strlen(text));
}

static void put_number(Record *record, CK_ULONG value)
{
    char digits[24];
    put(record, digits, (size_t)snprintf(digits, sizeof digits, "%lu", value));
}

static void put_hex(Record *record, const CK_BYTE *data, size_t length)
{
    static const char digits[] = "0123456789abcdef";
    put(record, "\"", 1);
    for (size_t i = 0; i < length; i++) {
        char pair[2] = {digits[data[i] >> 4], digits[data[i] & 15]};
        put(record, pair, 2);
    }
    put(record, "\"", 1);
}

/* A key of the object that is open, with the comma before it. */
static void put_key(Record *record, const char *key)
{
    if (!record->first)
        put(record, ",", 1);
    record->first = 0;
    put(record, "\"", 1);
    put_text(record, key);
    put(record, "\":", 2);
}

void record_begin_object(Record *record, const char *key)
{
    put_key(record, key);
    put(record, "{", 1);
    record->first = 1;
}

void record_end_object(Record *record)
{
    put(record, "}", 1);
    record->first = 0;
}

void record_begin(Record *record, const char *name)
{
    memset(record, 0, sizeof *record);
    record->failed = output < 0;
    record->first = 1;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    put(record, "{", 1);
    put_key(record, "call");
    put(record, "\"", 1);
    put_text(record, name);
    put(record, "\"", 1);
    record_number(record, "time", (CK_ULONG)now.tv_sec * 1000000 + (CK_ULONG)now.tv_nsec / 1000);
    record_number(record, "process", (CK_ULONG)getpid());
    record_number(record, "thread", (CK_ULONG)syscall(SYS_gettid));
    record_begin_object(record, "in");
}

void record_result(Record *record)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    long microseconds = (now.tv_sec - record->began.tv_sec) * 1000000 + (now.tv_nsec - record->began.tv_nsec) / 1000;
    record_end_object(record);
    record_number(record, "us", (CK_ULONG)microseconds);
    record_begin_object(record, "out");
}

void record_end(Record *record, CK_RV rv)
{
    record_end_object(record);
    record_number(record, "rv", rv);
    put(record, "}\n", 2);
    if (!record->failed) {
        /* One write: lines of several threads and processes do not mix. A full disk costs the trace, not the program. */
        ssize_t written = write(output, record->text, record->used);
        (void)written;
    }
    free(record->text);
}

void record_number(Record *record, const char *key, CK_ULONG value)
{
    put_key(record, key);
    put_number(record, value);
}

void record_numbers(Record *record, const char *key, const CK_ULONG *values, CK_ULONG count)
{
    put_key(record, key);
    if (values == NULL) {
        put_text(record, "null");
        return;
    }
    put(record, "[", 1);
    for (CK_ULONG i = 0; i < count; i++) {
        if (i > 0)
            put(record, ",", 1);
        put_number(record, values[i]);
    }
    put(record, "]", 1);
}

static void put_data(Record *record, const char *key, const void *data, CK_ULONG length, int hidden)
{
    put_key(record, key);
    if (data == NULL) {
        put_text(record, "null");
        return;
    }
    put_text(record, "{\"length\":");
    put_number(record, length);
    if (hidden)
        put_text(record, ",\"hidden\":true");
    else {
        put_text(record, ",\"hex\":");
        put_hex(record, data, length == ABSENT ? 0 : length < SHOWN ? length : SHOWN);
    }
    put(record, "}", 1);
}

void record_bytes(Record *record, const char *key, const void *data, CK_ULONG length)
{
    put_data(record, key, data, length, 0);
}

void record_hidden(Record *record, const char *key, const void *data, CK_ULONG length)
{
    put_data(record, key, data, length, 1);
}

void record_pointer(Record *record, const char *key, const void *pointer)
{
    put_key(record, key);
    put_text(record, pointer == NULL ? "null" : "{}");
}

void record_text(Record *record, const char *key, const CK_BYTE *text, size_t length)
{
    put_key(record, key);
    if (text == NULL) {
        put_text(record, "null");
        return;
    }
    put(record, "\"", 1);
    for (size_t i = 0; i < length; i++) {
        char escaped[8];
        if (text[i] >= ' ' && text[i] < 0x7f && text[i] != '"' && text[i] != '\\')
            put(record, (const char *)text + i, 1);
        else /* each byte of its own: what is not UTF-8 survives; the reader puts it together again */
            put(record, escaped, (size_t)snprintf(escaped, sizeof escaped, "\\u%04x", text[i]));
    }
    put(record, "\"", 1);
}

void record_version(Record *record, const char *key, const CK_VERSION *version)
{
    put_key(record, key);
    if (version == NULL) {
        put_text(record, "null");
        return;
    }
    char text[16];
    put(record, text, (size_t)snprintf(text, sizeof text, "\"%u.%u\"", version->major, version->minor));
}

void record_initialize_args(Record *record, const void *given)
{
    const CK_C_INITIALIZE_ARGS *arguments = given;
    if (arguments == NULL) {
        record_pointer(record, "pInitArgs", NULL);
        return;
    }
    record_begin_object(record, "pInitArgs");
    record_number(record, "callbacks", (arguments->CreateMutex != NULL) + (arguments->DestroyMutex != NULL) +
                                           (arguments->LockMutex != NULL) + (arguments->UnlockMutex != NULL));
    record_number(record, "flags", arguments->flags);
    record_pointer(record, "pReserved", arguments->pReserved);
    record_end_object(record);
}

/* Whether a CKA_VALUE is a certificate: one DER SEQUENCE, longer than any key's raw value that would look like it. */
static int is_certificate(const CK_BYTE *value, CK_ULONG length)
{
    return length > 128 && value[0] == 0x30 && value[1] == 0x82 && length == 4 + (((CK_ULONG)value[2] << 8) | value[3]);
}

static int may_be_secret(const CK_ATTRIBUTE *attribute)
{
    switch (attribute->type) {
    case CKA_PRIVATE_EXPONENT: case CKA_PRIME_1: case CKA_PRIME_2: case CKA_EXPONENT_1: case CKA_EXPONENT_2:
    case CKA_COEFFICIENT: case CKA_SEED:
        return 1;
    case CKA_VALUE:
        return !is_certificate(attribute->pValue, attribute->ulValueLen);
    default:
        return 0;
    }
}

void record_template(Record *record, const char *key, const CK_ATTRIBUTE *attributes, CK_ULONG count, int asked)
{
    put_key(record, key);
    if (attributes == NULL) {
        put_text(record, "null");
        return;
    }
    put(record, "[", 1);
    for (CK_ULONG i = 0; i < count; i++) {
        const CK_ATTRIBUTE *attribute = &attributes[i];
        put_text(record, i > 0 ? ",[" : "[");
        put_number(record, attribute->type);
        put(record, ",", 1);
        if (attribute->ulValueLen == ABSENT)
            put_text(record, "-1");
        else
            put_number(record, attribute->ulValueLen);
        put(record, ",", 1);
        if (attribute->pValue == NULL || attribute->ulValueLen == ABSENT)
            put_text(record, "null");
        else if (asked || may_be_secret(attribute))
            put_text(record, asked ? "\"buffer\"" : "\"hidden\"");
        else
            put_hex(record, attribute->pValue,
                    attribute->ulValueLen < SHOWN_VALUE ? attribute->ulValueLen : SHOWN_VALUE);
        put(record, "]", 1);
    }
    put(record, "]", 1);
}
