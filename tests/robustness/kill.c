/*
 * Changes a token without end, for test_kill.py to kill: `kill MODULE objects PIN SEED`, `kill MODULE login PIN`,
 * `kill MODULE set-pin OLD NEW`, `kill MODULE first-pin OLD NEW` (once), `kill MODULE nss-first-pin NEW` (once),
 * `kill MODULE initialise-pin SO-PIN NEW`, `kill MODULE initialise SO-PIN LABEL...`.
 *
 * Each call is announced (`try ...`) before it is made and acknowledged (`done`) after it has answered CKR_OK.
 */
#include "host.h"

#define MOST 24 /* objects of a kind: beyond that some are destroyed */
#define NAME 32

struct object {
    CK_ULONG handle;
    char name[NAME];
};

struct kind {
    struct object objects[2 * MOST];
    CK_ULONG count;
};

static struct kind data, public_keys, private_keys;
static CK_ULONG session;
static unsigned seed, first_seed, serial;

static unsigned draw(unsigned below)
{
    return (unsigned)rand_r(&seed) % below;
}

static void note(struct kind *kind, CK_ULONG handle, const char *name)
{
    struct object *object = &kind->objects[kind->count++];

    object->handle = handle;
    snprintf(object->name, NAME, "%s", name);
}

/* What earlier rounds left behind. */
static void take_up(struct kind *kind, CK_ULONG object_class, CK_ULONG named_by)
{
    CK_ULONG found[2 * MOST], count = find(session, object_class, found, 2 * MOST), i;
    char name[NAME];

    for (i = 0; i < count; i++) {
        OK(read_text(session, found[i], named_by, name, NAME));
        note(kind, found[i], name);
    }
}

static void create(const char *name, const char *value)
{
    CK_ULONG object_class = CKO_DATA, handle;
    CK_ATTRIBUTE template[] = {word_of(CKA_CLASS, &object_class), bool_of(CKA_TOKEN, 1),
                               bool_of(CKA_PRIVATE, (int)draw(2)), text_of(CKA_APPLICATION, name),
                               text_of(CKA_LABEL, value), text_of(CKA_VALUE, value)};

    say("try create %s %s", name, value);
    OK(p11->C_CreateObject(session, template, 6, &handle));
    say("done");
    note(&data, handle, name);
}

static void copy(const struct object *from, const char *name, const char *value)
{
    CK_ATTRIBUTE template[] = {text_of(CKA_APPLICATION, name), text_of(CKA_LABEL, value), text_of(CKA_VALUE, value)};
    CK_ULONG handle;

    say("try create %s %s", name, value);
    OK(p11->C_CopyObject(session, from->handle, template, 3, &handle));
    say("done");
    note(&data, handle, name);
}

static void modify_data(const struct object *object, const char *value)
{
    CK_ATTRIBUTE template[] = {text_of(CKA_LABEL, value), text_of(CKA_VALUE, value)};

    say("try modify-data %s %s", object->name, value);
    OK(p11->C_SetAttributeValue(session, object->handle, template, 2));
    say("done");
}

static void modify_key(const struct object *object, const char *value)
{
    CK_ATTRIBUTE template = text_of(CKA_LABEL, value);

    say("try modify-private %s %s", object->name, value);
    OK(p11->C_SetAttributeValue(session, object->handle, &template, 1));
    say("done");
}

static void generate(const char *name, const char *value)
{
    CK_ULONG handles[2];

    say("try generate %s %s", name, value);
    OK(generate_pair(session, name, value, 1, handles));
    say("done");
    note(&public_keys, handles[0], name);
    note(&private_keys, handles[1], name);
}

static void destroy(struct kind *kind, const char *what, CK_ULONG i)
{
    say("try destroy-%s %s -", what, kind->objects[i].name);
    OK(p11->C_DestroyObject(session, kind->objects[i].handle));
    say("done");
    kind->objects[i] = kind->objects[--kind->count];
}

/* The public half first: a public key alone never remains. */
static void destroy_pair(CK_ULONG i)
{
    CK_ULONG other;

    for (other = 0; other < public_keys.count; other++)
        if (strcmp(public_keys.objects[other].name, private_keys.objects[i].name) == 0) {
            destroy(&public_keys, "public", other);
            break;
        }
    destroy(&private_keys, "private", i);
}

static void change_objects(void)
{
    char name[NAME], value[NAME];
    unsigned what = draw(100);

    snprintf(name, NAME, "n%u-%u", first_seed, ++serial);
    snprintf(value, NAME, "v%u", draw(1000000));
    if (data.count > MOST || (what < 15 && data.count > 0))
        destroy(&data, "data", draw((unsigned)data.count));
    else if (private_keys.count > MOST || (what < 25 && private_keys.count > 0))
        destroy_pair(draw((unsigned)private_keys.count));
    else if (what < 40 && data.count > 0)
        modify_data(&data.objects[draw((unsigned)data.count)], value);
    else if (what < 55 && private_keys.count > 0)
        modify_key(&private_keys.objects[draw((unsigned)private_keys.count)], value);
    else if (what < 65 && data.count > 0)
        copy(&data.objects[draw((unsigned)data.count)], name, value);
    else if (what < 80)
        generate(name, value);
    else
        create(name, value);
}

static void log_in_and_out(const char *pin)
{
    say("try login - -");
    OK(login(session, CKU_USER, pin));
    say("done");
    OK(p11->C_Logout(session));
}

static void set_pin(const char *old, const char *new)
{
    say("try set-pin %s %s", *old ? old : "-", new);
    OK(p11->C_SetPIN(session, (CK_BYTE *)old, strlen(old), (CK_BYTE *)new, strlen(new)));
    say("done");
}

/* As NSS does: its first session stays open, and the SO PIN is the empty one, whatever the SO's is. */
static void nss_first_pin(CK_ULONG slot, const char *pin)
{
    CK_ULONG read_only;

    OK(p11->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &read_only));
    OK(login(session, CKU_SO, ""));
    say("try nss-first-pin - -");
    OK(p11->C_InitPIN(session, (CK_BYTE *)pin, strlen(pin)));
    say("done");
}

static void initialise_pin(const char *so_pin, const char *pin)
{
    say("try initialise-pin - -");
    OK(login(session, CKU_SO, so_pin));
    OK(p11->C_InitPIN(session, (CK_BYTE *)pin, strlen(pin)));
    say("done");
    OK(p11->C_Logout(session));
}

static void initialise(CK_ULONG slot, const char *pin, const char *label)
{
    char padded[33];

    snprintf(padded, sizeof padded, "%-32s", label);
    say("try initialise %s -", label);
    OK(p11->C_InitToken(slot, (CK_BYTE *)pin, strlen(pin), (CK_BYTE *)padded));
    say("done");
}

int main(int count, char **arguments)
{
    int short_one = count > 3 && (strcmp(arguments[2], "login") == 0 || strcmp(arguments[2], "nss-first-pin") == 0);
    const char *what = count > 4 || short_one ? arguments[2] : "";
    CK_ULONG slot;
    int i;

    if (*what == '\0')
        return 2;
    load(arguments[1]);
    OK(p11->C_Initialize(NULL));
    slot = first_slot();
    if (strcmp(what, "initialise") == 0) {
        say("ready");
        for (i = 0;; i++)
            initialise(slot, arguments[3], arguments[4 + i % (count - 4)]);
    }
    session = open_session();
    if (strcmp(what, "objects") == 0) {
        first_seed = seed = (unsigned)atoi(arguments[4]);
        OK(login(session, CKU_USER, arguments[3]));
        take_up(&data, CKO_DATA, CKA_APPLICATION);
        take_up(&public_keys, CKO_PUBLIC_KEY, CKA_ID);
        take_up(&private_keys, CKO_PRIVATE_KEY, CKA_ID);
    }
    say("ready");
    for (i = 0;; i++)
        if (strcmp(what, "objects") == 0)
            change_objects();
        else if (strcmp(what, "login") == 0)
            log_in_and_out(arguments[3]);
        else if (strcmp(what, "initialise-pin") == 0)
            initialise_pin(arguments[3], arguments[4]);
        else if (strcmp(what, "first-pin") == 0 || strcmp(what, "nss-first-pin") == 0) {
            if (*what == 'f')
                set_pin(arguments[3], arguments[4]);
            else
                nss_first_pin(slot, arguments[3]);
            for (;;)
                pause();
        } else
            set_pin(arguments[3 + i % 2], arguments[4 - i % 2]);
}
