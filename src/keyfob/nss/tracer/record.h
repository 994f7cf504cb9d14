/* One line of a trace: a call, its arguments before, what they point to after, as JSON. See record.c. */

#ifndef KEYFOB_TRACER_RECORD_H
#define KEYFOB_TRACER_RECORD_H

#include <stddef.h>
#include <time.h>

#include "cryptoki.h"

typedef struct {
    char *text;
    size_t used, room;
    int first;      /* no comma is due */
    int failed;     /* out of memory: the line is given up, the call is not */
    struct timespec began;
} Record;

/* {"call": name, ..., "in": { and, after the call, }, "out": { and }, "rv": number}. */
void record_begin(Record *record, const char *name);
void record_result(Record *record);
void record_end(Record *record, CK_RV rv);

void record_number(Record *record, const char *key, CK_ULONG value);
void record_numbers(Record *record, const char *key, const CK_ULONG *values, CK_ULONG count);
/* null where the pointer is; else the first bytes, and how many there are. */
void record_bytes(Record *record, const char *key, const void *data, CK_ULONG length);
/* As record_bytes, the length alone: PINs, keys, plain texts. */
void record_hidden(Record *record, const char *key, const void *data, CK_ULONG length);
/* What a pointer points to is not looked at: null or {}. */
void record_pointer(Record *record, const char *key, const void *pointer);
void record_text(Record *record, const char *key, const CK_BYTE *text, size_t length);
void record_version(Record *record, const char *key, const CK_VERSION *version);
/* CK_C_INITIALIZE_ARGS: how many callbacks are set, the flags, whether more follows (G2). */
void record_initialize_args(Record *record, const void *given);
void record_begin_object(Record *record, const char *key);
void record_end_object(Record *record);

/* [[type, length, hex or null], ...]; what may be a secret has its length only. asked: lengths, no values. */
void record_template(Record *record, const char *key, const CK_ATTRIBUTE *attributes, CK_ULONG count, int asked);

/* Written by tools/generate_tracer.py: the parameter of a mechanism, field by field. */
void record_mechanism(Record *record, const char *key, const CK_MECHANISM *mechanism);

/* The library behind, from tracer.c; NULL slots are never called: older lists lack the younger functions. */
extern CK_FUNCTION_LIST_3_2 *real;

#endif
