/* p11bench: drives any PKCS #11 module through its C ABI and measures it.
 *
 *     p11bench MODULE [PARAMETERS]
 *
 * loads the module, initialises it (PARAMETERS is NSS's softoken's configuration string), answers with one line of JSON
 * about that start, and then obeys commands from standard input, each answered with one line of JSON:
 *
 *     open LABEL PIN SESSIONS                     open sessions on the token of that label, log the user in:
 *                                                 {"nanoseconds": time of C_Login}
 *     make ATTRIBUTE...                           C_CreateObject                              -> {"handle": n}
 *     find ATTRIBUTE...                           the one object that matches                 -> {"handle": n}
 *     populate COUNT MILLISECONDS ATTRIBUTE...    many objects with CKA_IDs of their own      -> {"made": n, ...}
 *     measure FIGURE LANES MICROSECONDS ARGUMENT...
 *     quit
 *
 * and those of scale.c.
 *
 * LABEL, PIN and data are hexadecimal ("-" is empty), an ATTRIBUTE is TYPE=VALUE with both hexadecimal, numbers are
 * decimal. A failure is answered with {"error": call, "rv": number}; the program goes on. It knows no module by name. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"

static const CK_FUNCTION_LIST *p11;
static struct lane lanes[MAX_LANES];
static size_t open_lanes;

int refuse(const char *what, CK_RV rv) {
    printf("{\"error\": \"%s\", \"rv\": %lu}\n", what, rv);
    return 0;
}

/* The next word of the command line, NULL at its end. */
char *word(char **rest) {
    char *found;
    do
        found = strsep(rest, " \n");
    while (found && !*found);
    return found;
}

int number(char **rest, uint64_t *value) {
    char *text = word(rest), *end = NULL;
    if (!text)
        return 0;
    *value = strtoull(text, &end, 10);
    return *end == 0;
}

/* Hexadecimal text to bytes; -1 for bad text or more than `limit` bytes. May write over the text itself. */
long bytes_of(const char *text, CK_BYTE *out, size_t limit) {
    size_t length = strlen(text);
    if (strcmp(text, "-") == 0)
        return 0;
    if (length % 2 || length / 2 > limit)
        return -1;
    for (size_t i = 0; i < length / 2; i++) {
        char pair[3] = {text[2 * i], text[2 * i + 1], 0}, *end;
        out[i] = (CK_BYTE)strtoul(pair, &end, 16);
        if (*end)
            return -1;
    }
    return (long)(length / 2);
}

/* The remaining words, up to "/" or the end, as a template whose values stay in the command line's own memory. */
int template_of(char **rest, CK_ATTRIBUTE *template, CK_ULONG *count) {
    char *text;
    *count = 0;
    while ((text = word(rest)) && strcmp(text, "/") != 0) {
        char *type = strsep(&text, "="), *end;
        if (!text || *count == MAX_ATTRIBUTES)
            return 0;
        long length = bytes_of(text, (CK_BYTE *)text, strlen(text));
        if (length < 0)
            return 0;
        template[(*count)++] = (CK_ATTRIBUTE){strtoul(type, &end, 16), text, (CK_ULONG)length};
        if (*end)
            return 0;
    }
    return 1;
}

/* Prints fixed-width text of the module without its padding, as a JSON string. */
static void print_text(const CK_BYTE *text, size_t length) {
    while (length && (text[length - 1] == ' ' || text[length - 1] == 0))
        length--;
    putchar('"');
    for (size_t i = 0; i < length; i++)
        putchar(text[i] < ' ' || text[i] > '~' || text[i] == '"' || text[i] == '\\' ? '?' : text[i]);
    putchar('"');
}

/* From before dlopen to the answer of the first C_GetInfo: what a program waits for before it can use the module. */
static int start(const char *path, char *parameters) {
    uint64_t began = now();
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "p11bench: %s\n", dlerror());
        return refuse("dlopen", 0);
    }
    CK_RV (*get_function_list)(const CK_FUNCTION_LIST **);
    *(void **)&get_function_list = dlsym(library, "C_GetFunctionList");
    if (!get_function_list)
        return refuse("dlsym", 0);
    CK_RV rv = get_function_list(&p11);
    if (rv != CKR_OK)
        return refuse("C_GetFunctionList", rv);
    CK_C_INITIALIZE_ARGS arguments = {.flags = CKF_OS_LOCKING_OK, .reserved = parameters};
    if ((rv = p11->C_Initialize(&arguments)) != CKR_OK)
        return refuse("C_Initialize", rv);
    CK_INFO info;
    memset(&info, 0, sizeof info);
    if ((rv = p11->C_GetInfo(&info)) != CKR_OK)
        return refuse("C_GetInfo", rv);
    uint64_t took = now() - began;
    printf("{\"nanoseconds\": %lu, \"library\": ", (unsigned long)took);
    print_text(info.description, sizeof info.description);
    printf(", \"version\": \"%u.%u\", \"cryptoki\": \"%u.%u\"}\n", info.library.major, info.library.minor,
           info.cryptoki.major, info.cryptoki.minor);
    return 1;
}

int slot_of_label(const CK_BYTE *label, size_t length, CK_ULONG *slot) {
    CK_ULONG slots[64], count = 64;
    CK_RV rv = p11->C_GetSlotList(1, slots, &count);
    if (rv != CKR_OK)
        return refuse("C_GetSlotList", rv);
    CK_BYTE padded[32];
    memset(padded, ' ', sizeof padded);
    memcpy(padded, label, length);
    for (CK_ULONG i = 0; i < count; i++) {
        CK_TOKEN_INFO info;
        memset(&info, 0, sizeof info);
        if (p11->C_GetTokenInfo(slots[i], &info) == CKR_OK && memcmp(info.label, padded, sizeof padded) == 0) {
            *slot = slots[i];
            return 1;
        }
    }
    return refuse("no token of that label", 0);
}

static int open_token(char **rest) {
    CK_BYTE label[32], pin[256];
    char *label_text = word(rest), *pin_text = word(rest);
    uint64_t sessions;
    if (!label_text || !pin_text || !number(rest, &sessions) || sessions > MAX_LANES)
        return refuse("bad command", 0);
    long label_length = bytes_of(label_text, label, sizeof label), length = bytes_of(pin_text, pin, sizeof pin);
    CK_ULONG slot;
    if (label_length < 0 || length < 0)
        return refuse("bad command", 0);
    if (!slot_of_label(label, (size_t)label_length, &slot))
        return 0;
    for (open_lanes = 0; open_lanes < sessions; open_lanes++) {
        CK_RV rv = p11->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &lanes[open_lanes].session);
        if (rv != CKR_OK)
            return refuse("C_OpenSession", rv);
    }
    uint64_t began = now();
    CK_RV rv = p11->C_Login(lanes[0].session, CKU_USER, pin, (CK_ULONG)length);
    if (rv != CKR_OK)
        return refuse("C_Login", rv);
    return printf("{\"nanoseconds\": %lu}\n", (unsigned long)(now() - began));
}

static int make_object(char **rest) {
    CK_ATTRIBUTE template[MAX_ATTRIBUTES];
    CK_ULONG count;
    CK_HANDLE handle = 0;
    if (!template_of(rest, template, &count))
        return refuse("bad command", 0);
    CK_RV rv = p11->C_CreateObject(lanes[0].session, template, count, &handle);
    return rv == CKR_OK ? printf("{\"handle\": %lu}\n", handle) : refuse("C_CreateObject", rv);
}

static int find_object(char **rest) {
    static struct job job;
    memset(&job, 0, sizeof job);
    job.p11 = p11;
    if (!template_of(rest, job.attributes, &job.attribute_count))
        return refuse("bad command", 0);
    lanes[0].job = &job;
    if (!find_by_id(&lanes[0]))
        return refuse(lanes[0].failed_call, lanes[0].rv);
    return printf("{\"handle\": %lu}\n", lanes[0].made[0]);
}

static int populate(char **rest) {
    static struct job job;
    uint64_t count, milliseconds, made = 0, began = now();
    memset(&job, 0, sizeof job);
    job.p11 = p11;
    if (!number(rest, &count) || !number(rest, &milliseconds) ||
        !template_of(rest, job.attributes, &job.attribute_count) || job.attribute_count == MAX_ATTRIBUTES)
        return refuse("bad command", 0);
    lanes[0].job = &job;
    lanes[0].counter = 0;
    while (made < count && now() - began < milliseconds * 1000000u) {
        if (!create_object(&lanes[0]))
            return refuse(lanes[0].failed_call, lanes[0].rv);
        made++;
    }
    return printf("{\"made\": %lu, \"nanoseconds\": %lu}\n", (unsigned long)made, (unsigned long)(now() - began));
}

/* Each figure's arguments, in the order of the command: o object, m mechanism, l length of data whose content is of no matter, d data,
 * p population, a template, b private template. */
static const struct figure {
    const char *name, *arguments;
    int (*once)(struct lane *), (*undo)(struct lane *);
} figures[] = {
    {"session-info", "", get_session_info, NULL},
    {"attributes", "oa", get_attributes, NULL},
    {"find", "pa", find_by_id, NULL},
    {"sign", "mod", sign, NULL},
    {"encrypt-gcm", "mol", encrypt_gcm, NULL},
    {"digest", "ml", digest, NULL},
    {"generate-key-pair", "mab", generate_key_pair, destroy_made},
    {"create-object", "pa", create_object, destroy_made},
};

static int read_arguments(const char *kinds, char **rest, struct job *job) {
    for (; *kinds; kinds++) {
        char *text;
        long length;
        switch (*kinds) {
        case 'o':
            if (!number(rest, &job->object))
                return 0;
            break;
        case 'm':
            if (!number(rest, &job->mechanism))
                return 0;
            break;
        case 'p':
            if (!number(rest, &job->population))
                return 0;
            break;
        case 'l':
            if (!number(rest, &job->length) || job->length > MAX_DATA)
                return 0;
            break;
        case 'd':
            text = word(rest);
            length = text ? bytes_of(text, lanes[0].in, MAX_DATA) : -1;
            if (length < 0)
                return 0;
            job->length = (CK_ULONG)length;
            break;
        case 'a':
            if (!template_of(rest, job->attributes, &job->attribute_count))
                return 0;
            for (CK_ULONG i = 0; i < job->attribute_count; i++)
                if (job->once == get_attributes && job->attributes[i].length > MAX_VALUE)
                    return 0;
            break;
        case 'b':
            if (!template_of(rest, job->private_attributes, &job->private_count))
                return 0;
            break;
        }
    }
    return 1;
}

static int report(const struct job *job, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (lanes[i].failed_call)
            return refuse(lanes[i].failed_call, lanes[i].rv);
    printf("{\"lanes\": [");
    for (size_t i = 0; i < count; i++)
        printf("%s[%lu, %lu]", i ? ", " : "", (unsigned long)lanes[i].operations, (unsigned long)lanes[i].nanoseconds);
    printf("]");
    if (job->undo) {
        printf(", \"samples\": [");
        for (size_t i = 0; i < lanes[0].sample_count; i++)
            printf("%s%lu", i ? ", " : "", (unsigned long)lanes[0].samples[i]);
        printf("]");
    }
    return printf("}\n");
}

static int measure(char **rest) {
    static struct job job; /* static: templates are large, and threads point at it */
    char *name = word(rest);
    uint64_t count, microseconds;
    memset(&job, 0, sizeof job);
    job.p11 = p11;
    if (!name || !number(rest, &count) || !number(rest, &microseconds) || count < 1 || count > open_lanes)
        return refuse("bad command", 0);
    job.budget = microseconds * 1000u;
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        if (strcmp(figures[i].name, name) != 0)
            continue;
        job.once = figures[i].once;
        job.undo = figures[i].undo;
        if (!read_arguments(figures[i].arguments, rest, &job) || (job.undo && count != 1))
            return refuse("bad command", 0);
        for (size_t lane = 1; lane < count; lane++)
            memcpy(lanes[lane].in, lanes[0].in, job.length);
        run_batch(&job, lanes, count);
        return report(&job, count);
    }
    return refuse("no such figure", 0);
}

int main(int argc, char **argv) {
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: p11bench MODULE [PARAMETERS]\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!start(argv[1], argc == 3 ? argv[2] : NULL))
        return 1;
    char *line = NULL;
    size_t capacity = 0;
    while (getline(&line, &capacity, stdin) > 0) {
        char *rest = line, *command = word(&rest);
        if (!command)
            continue;
        if (strcmp(command, "quit") == 0)
            break;
        if (strcmp(command, "open") == 0)
            open_token(&rest);
        else if (scale_command(p11, &lanes[0].session, command, &rest))
            continue;
        else if (open_lanes == 0)
            refuse("no token is open", 0);
        else if (strcmp(command, "make") == 0)
            make_object(&rest);
        else if (strcmp(command, "find") == 0)
            find_object(&rest);
        else if (strcmp(command, "populate") == 0)
            populate(&rest);
        else if (strcmp(command, "measure") == 0)
            measure(&rest);
        else
            refuse("no such command", 0);
    }
    free(line);
    CK_RV rv = p11->C_Finalize(NULL);
    return rv == CKR_OK ? 0 : 1;
}
