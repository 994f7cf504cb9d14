/* Commands of p11bench for tokens with many objects, each one operation at a time, timed by itself:
 *
 *     public LABEL                            open a session without login             -> {"session": n}
 *     fill MILLISECONDS FILE                  C_CreateObject for each line of a file, until the time is over
 *                                             -> {"made": n, "half": ns of the first half, "nanoseconds": ns of all}
 *     search LIMIT TEMPLATE [/ TEMPLATE...]   C_FindObjectsInit .. Final, up to LIMIT handles each
 *                                             -> {"samples": [ns...], "found": [n...], "handles": [the first...]}
 *     create TEMPLATE [/ TEMPLATE...]         C_CreateObject                           -> {"samples": .., "handles": ..}
 *     destroy HANDLE...                       C_DestroyObject                          -> {"samples": ..}
 *     turn ROUNDS MECHANISM DATA HANDLE...    C_SignInit and C_Sign with each key in turn -> {"samples": ..} */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"

#define MOST 4096     /* operations of one command */
#define AT_ONCE 512   /* handles of one C_FindObjects */

static uint64_t samples[MOST], found[MOST], handles[MOST];

static void print_numbers(const char *name, const uint64_t *values, size_t count) {
    printf("\"%s\": [", name);
    for (size_t i = 0; i < count; i++)
        printf("%s%lu", i ? ", " : "", (unsigned long)values[i]);
    printf("]");
}

static int open_public(const CK_FUNCTION_LIST *p11, CK_HANDLE *session, char **rest) {
    CK_BYTE label[32];
    char *text = word(rest);
    long length = text ? bytes_of(text, label, sizeof label) : -1;
    CK_ULONG slot;
    if (length < 0)
        return refuse("bad command", 0);
    if (!slot_of_label(label, (size_t)length, &slot))
        return 0;
    CK_RV rv = p11->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, session);
    return rv == CKR_OK ? printf("{\"session\": %lu}\n", *session) : refuse("C_OpenSession", rv);
}

static int fill(const CK_FUNCTION_LIST *p11, CK_HANDLE session, char **rest) {
    uint64_t milliseconds, made = 0, half_made = 0, half = 0;
    char *name, *line = NULL;
    size_t room = 0;
    if (!number(rest, &milliseconds) || !(name = word(rest)))
        return refuse("bad command", 0);
    FILE *file = fopen(name, "r");
    if (!file)
        return refuse("fopen", 0);
    CK_RV rv = CKR_OK;
    uint64_t began = now();
    while (rv == CKR_OK && now() - began < milliseconds * 1000000u && getline(&line, &room, file) > 0) {
        CK_ATTRIBUTE template[MAX_ATTRIBUTES];
        CK_ULONG count;
        CK_HANDLE handle;
        char *words = line;
        if (!template_of(&words, template, &count))
            break;
        rv = p11->C_CreateObject(session, template, count, &handle);
        made += rv == CKR_OK;
        if (now() - began < milliseconds * 500000u) {
            half_made = made;
            half = now() - began;
        }
    }
    uint64_t took = now() - began;
    free(line);
    fclose(file);
    if (rv != CKR_OK)
        return refuse("C_CreateObject", rv);
    return printf("{\"made\": %lu, \"nanoseconds\": %lu, \"half_made\": %lu, \"half\": %lu}\n", (unsigned long)made,
                  (unsigned long)took, (unsigned long)half_made, (unsigned long)half);
}

static CK_RV search_once(const CK_FUNCTION_LIST *p11, CK_HANDLE session, CK_ATTRIBUTE *template, CK_ULONG length,
                         uint64_t limit, size_t place) {
    CK_HANDLE batch[AT_ONCE];
    CK_ULONG count, asked;
    CK_RV rv = p11->C_FindObjectsInit(session, template, length);
    if (rv != CKR_OK)
        return rv;
    do {
        asked = limit - found[place] < AT_ONCE ? limit - found[place] : AT_ONCE;
        rv = p11->C_FindObjects(session, batch, asked, &count);
        if (rv == CKR_OK && count && !found[place])
            handles[place] = batch[0];
        found[place] += rv == CKR_OK ? count : 0;
    } while (rv == CKR_OK && count == asked && found[place] < limit);
    CK_RV end = p11->C_FindObjectsFinal(session);
    return rv != CKR_OK ? rv : end;
}

static int search(const CK_FUNCTION_LIST *p11, CK_HANDLE session, char **rest) {
    uint64_t limit;
    size_t done = 0;
    if (!number(rest, &limit) || !limit)
        return refuse("bad command", 0);
    for (; *rest && **rest && done < MOST; done++) {
        CK_ATTRIBUTE template[MAX_ATTRIBUTES];
        CK_ULONG length;
        if (!template_of(rest, template, &length))
            return refuse("bad command", 0);
        found[done] = handles[done] = 0;
        uint64_t began = now();
        CK_RV rv = search_once(p11, session, template, length, limit, done);
        samples[done] = now() - began;
        if (rv != CKR_OK)
            return refuse("C_FindObjects", rv);
    }
    printf("{");
    print_numbers("samples", samples, done);
    printf(", ");
    print_numbers("found", found, done);
    printf(", ");
    print_numbers("handles", handles, done);
    return printf("}\n");
}

static int create(const CK_FUNCTION_LIST *p11, CK_HANDLE session, char **rest) {
    size_t done = 0;
    for (; *rest && **rest && done < MOST; done++) {
        CK_ATTRIBUTE template[MAX_ATTRIBUTES];
        CK_ULONG length;
        CK_HANDLE handle;
        if (!template_of(rest, template, &length))
            return refuse("bad command", 0);
        uint64_t began = now();
        CK_RV rv = p11->C_CreateObject(session, template, length, &handle);
        samples[done] = now() - began;
        if (rv != CKR_OK)
            return refuse("C_CreateObject", rv);
        handles[done] = handle;
    }
    printf("{");
    print_numbers("samples", samples, done);
    printf(", ");
    print_numbers("handles", handles, done);
    return printf("}\n");
}

static size_t read_handles(char **rest) {
    size_t count = 0;
    while (count < MOST && number(rest, &handles[count]))
        count++;
    return count;
}

static int destroy(const CK_FUNCTION_LIST *p11, CK_HANDLE session, char **rest) {
    size_t count = read_handles(rest);
    for (size_t i = 0; i < count; i++) {
        uint64_t began = now();
        CK_RV rv = p11->C_DestroyObject(session, handles[i]);
        samples[i] = now() - began;
        if (rv != CKR_OK)
            return refuse("C_DestroyObject", rv);
    }
    printf("{");
    print_numbers("samples", samples, count);
    return printf("}\n");
}

static int sign_in_turn(const CK_FUNCTION_LIST *p11, CK_HANDLE session, char **rest) {
    uint64_t rounds, type;
    CK_BYTE data[64], signature[512];
    char *text = NULL;
    if (!number(rest, &rounds) || !number(rest, &type) || !(text = word(rest)))
        return refuse("bad command", 0);
    long length = bytes_of(text, data, sizeof data);
    size_t count = read_handles(rest);
    if (length < 0 || !count || rounds * count > MOST)
        return refuse("bad command", 0);
    CK_MECHANISM mechanism = {type, NULL, 0};
    for (size_t i = 0; i < rounds * count; i++) {
        CK_ULONG room = sizeof signature;
        uint64_t began = now();
        CK_RV rv = p11->C_SignInit(session, &mechanism, handles[i % count]);
        if (rv == CKR_OK)
            rv = p11->C_Sign(session, data, (CK_ULONG)length, signature, &room);
        samples[i] = now() - began;
        if (rv != CKR_OK)
            return refuse("C_Sign", rv);
    }
    printf("{");
    print_numbers("samples", samples, rounds * count);
    return printf("}\n");
}

int scale_command(const CK_FUNCTION_LIST *p11, CK_HANDLE *session, const char *command, char **rest) {
    static const struct {
        const char *name;
        int (*obey)(const CK_FUNCTION_LIST *, CK_HANDLE, char **);
    } commands[] = {
        {"fill", fill}, {"search", search}, {"create", create}, {"destroy", destroy}, {"turn", sign_in_turn},
    };
    if (strcmp(command, "public") == 0) {
        open_public(p11, session, rest);
        return 1;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(commands[i].name, command) != 0)
            continue;
        if (*session)
            commands[i].obey(p11, *session, rest);
        else
            refuse("no token is open", 0);
        return 1;
    }
    return 0;
}
