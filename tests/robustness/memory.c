/*
 * What of the secrets that pass through the module is left in the host's memory:
 * `memory MODULE keep|use|session|eject [FOLDER]`. Reads from stdin, everything secret as hex of its bytes, masked:
 *
 *     pattern NAME BYTES         what is looked for
 *     user|so|new PIN            the PINs
 *     key                        the next key
 *     attribute TYPE BYTES       of its template
 *     use HOW MECHANISM BYTES N  what is done with it: sign, encrypt or derive; the parameter; the length of the data
 *
 * Prints a line for each step, with the names of what was found. `keep` stores the keys on the token and changes the PIN
 * to and fro; `use` uses those that are stored; `session` makes them as session objects and ends those in all ways;
 * `eject` takes the token away, which is in FOLDER.
 */
#include "host.h"

#include <ctype.h>
#include <sys/wait.h>

#include "memory_scan.h"

#define MOST_KEYS 32
#define MOST_ATTRIBUTES 16
#define MOST_USES 6

struct masked {
    CK_BYTE *bytes;
    size_t length;
};

struct use {
    char how[16];
    CK_ULONG mechanism;
    struct masked parameter;
    size_t data;
};

struct key {
    CK_ULONG types[MOST_ATTRIBUTES];
    struct masked values[MOST_ATTRIBUTES];
    int attributes;
    struct use uses[MOST_USES];
    int use_count;
};

static struct key keys[MOST_KEYS];
static int key_count;
static struct masked user, so, next_pin;

static struct masked masked_of(const char *hex)
{
    struct masked found = {malloc(strlen(hex) / 2 + 1), 0};
    unsigned byte;

    for (; isxdigit((unsigned char)hex[0]) && sscanf(hex, "%2x", &byte) == 1; hex += 2)
        found.bytes[found.length++] = (CK_BYTE)byte;
    return found;
}

/* In the clear, to be wiped by the caller. */
static CK_BYTE *shown(struct masked masked)
{
    CK_BYTE *clear = malloc(masked.length + 1);
    size_t i;

    for (i = 0; i < masked.length; i++)
        clear[i] = masked.bytes[i] ^ MASK;
    return clear;
}

static void hide(CK_BYTE *clear, size_t length)
{
    explicit_bzero(clear, length);
    free(clear);
}

static void read_input(void)
{
    static char line[1 << 16], word[64], name[64], rest[1 << 15];
    unsigned long number, size;
    struct key *key;

    while (fgets(line, sizeof line, stdin) != NULL) {
        key = &keys[key_count - 1];
        if (sscanf(line, "pattern %63s %32767s", name, rest) == 2) {
            struct masked pattern = masked_of(rest);
            add_pattern(name, pattern.bytes, pattern.length);
        } else if (sscanf(line, "attribute %lu %32767s", &number, rest) == 2) {
            key->types[key->attributes] = number;
            key->values[key->attributes++] = masked_of(rest);
        } else if (sscanf(line, "use %15s %lu %32767s %lu", word, &number, rest, &size) == 4) {
            struct use *use = &key->uses[key->use_count++];
            strcpy(use->how, word);
            use->mechanism = number;
            use->parameter = masked_of(rest);
            use->data = size;
        } else if (strncmp(line, "key", 3) == 0)
            key_count++;
        else if (sscanf(line, "user %32767s", rest) == 1)
            user = masked_of(rest);
        else if (sscanf(line, "so %32767s", rest) == 1)
            so = masked_of(rest);
        else if (sscanf(line, "new %32767s", rest) == 1)
            next_pin = masked_of(rest);
    }
}

static void log_in(CK_ULONG session, CK_ULONG who, struct masked masked)
{
    CK_BYTE *pin = shown(masked);

    OK(p11->C_Login(session, who, pin, masked.length));
    hide(pin, masked.length);
}

static void change_pin(CK_ULONG session, struct masked from, struct masked to)
{
    CK_BYTE *old = shown(from), *new = shown(to);

    OK(p11->C_SetPIN(session, old, from.length, new, to.length));
    hide(old, from.length);
    hide(new, to.length);
}

static CK_ULONG make(CK_ULONG session, const struct key *key, int token)
{
    CK_ATTRIBUTE template[MOST_ATTRIBUTES + 1];
    CK_ULONG handle;
    int i;

    for (i = 0; i < key->attributes; i++)
        template[i] = bytes_of(key->types[i], shown(key->values[i]), key->values[i].length);
    template[i] = bool_of(CKA_TOKEN, token);
    OK(p11->C_CreateObject(session, template, (CK_ULONG)key->attributes + 1, &handle));
    for (i = 0; i < key->attributes; i++)
        hide(template[i].pValue, key->values[i].length);
    return handle;
}

static void use_key(CK_ULONG session, CK_ULONG handle, const struct use *use)
{
    static CK_BYTE data[1024] = {0, 1}, out[2048];
    CK_BYTE *parameter = shown(use->parameter);
    CK_ECDH1_DERIVE_PARAMS agreement = {CKD_NULL, 0, NULL, use->parameter.length, parameter};
    CK_MECHANISM mechanism = {use->mechanism, use->parameter.length > 0 ? parameter : NULL, use->parameter.length};
    CK_ULONG length = sizeof out, object_class = CKO_SECRET_KEY, type = CKK_GENERIC_SECRET, size = 32, made;
    CK_ATTRIBUTE secret[] = {word_of(CKA_CLASS, &object_class), word_of(CKA_KEY_TYPE, &type),
                             word_of(CKA_VALUE_LEN, &size)};

    if (strcmp(use->how, "sign") == 0) {
        OK(p11->C_SignInit(session, &mechanism, handle));
        OK(p11->C_Sign(session, data, use->data, out, &length));
    } else if (strcmp(use->how, "encrypt") == 0) {
        OK(p11->C_EncryptInit(session, &mechanism, handle));
        OK(p11->C_Encrypt(session, data, use->data, out, &length));
    } else {
        mechanism.pParameter = &agreement;
        mechanism.ulParameterLen = sizeof agreement;
        OK(p11->C_DeriveKey(session, &mechanism, handle, secret, 3, &made));
        OK(p11->C_DestroyObject(session, made));
    }
    free(parameter);
}

/* All uses, the value read where it may be, wrapped and unwrapped. */
static void use_all(CK_ULONG session, CK_ULONG handle, const struct key *key)
{
    CK_MECHANISM new_key = {CKM_AES_KEY_GEN, NULL, 0}, wrapping = {CKM_AES_KEY_WRAP_KWP, NULL, 0};
    CK_ULONG size = 32, length, wrapping_key, copy;
    CK_ATTRIBUTE aes[] = {word_of(CKA_VALUE_LEN, &size), bool_of(CKA_WRAP, 1), bool_of(CKA_UNWRAP, 1)};
    CK_ATTRIBUTE nothing[] = {bool_of(CKA_TOKEN, 0)};
    CK_BYTE *wrapped = malloc(8192);
    int i;

    for (i = 0; i < key->use_count; i++)
        use_key(session, handle, &key->uses[i]);
    OK(p11->C_GenerateKey(session, &new_key, aes, 3, &wrapping_key));
    length = 8192;
    OK(p11->C_WrapKey(session, &wrapping, wrapping_key, handle, wrapped, &length));
    OK(p11->C_DestroyObject(session, wrapping_key));
    OK(p11->C_CopyObject(session, handle, nothing, 1, &copy));
    OK(p11->C_DestroyObject(session, copy));
    free(wrapped);
}

static void keep(void)
{
    CK_ULONG session = open_session();
    int i;

    log_in(session, CKU_USER, user);
    for (i = 0; i < key_count; i++)
        make(session, &keys[i], 1);
    change_pin(session, user, next_pin);
    scan("set-pin");
    change_pin(session, next_pin, user);
    OK(p11->C_Logout(session));
    scan("logout");
    log_in(session, CKU_SO, so);
    scan("so-login");
    OK(p11->C_Logout(session));
    scan("so-logout");
}

static CK_ULONG stored(CK_ULONG session, const struct key *key)
{
    CK_ATTRIBUTE wanted[MOST_ATTRIBUTES];
    CK_ULONG handle, count, asked = 0;
    int i;

    for (i = 0; i < key->attributes; i++)
        if (key->types[i] == CKA_LABEL)
            wanted[asked++] = bytes_of(CKA_LABEL, shown(key->values[i]), key->values[i].length);
    OK(p11->C_FindObjectsInit(session, wanted, asked));
    OK(p11->C_FindObjects(session, &handle, 1, &count));
    OK(p11->C_FindObjectsFinal(session));
    if (count != 1)
        check("find a stored key", CKR_GENERAL_ERROR);
    return handle;
}

static void scan_in_child(void)
{
    pid_t child = fork();
    int status;

    if (child == 0) {
        scan("child");
        _exit(0);
    }
    if (waitpid(child, &status, 0) != child || status != 0)
        check("fork", CKR_GENERAL_ERROR);
}

static void use(void)
{
    CK_ULONG session = open_session();
    char label[64];
    int i, again;

    scan("start");
    for (again = 0; again < 2; again++) {
        log_in(session, CKU_USER, user);
        scan("login");
        for (i = 0; i < key_count; i++)
            OK(read_text(session, stored(session, &keys[i]), CKA_LABEL, label, sizeof label));
        scan("read");
        for (i = 0; i < key_count; i++)
            use_all(session, stored(session, &keys[i]), &keys[i]);
        scan("used");
        OK(p11->C_Logout(session));
        scan("logout");
    }
    log_in(session, CKU_USER, user);
    for (i = 0; i < key_count; i++)
        use_all(session, stored(session, &keys[i]), &keys[i]);
    scan_in_child();
}

static void make_and_end(void)
{
    CK_ULONG session = open_session(), other, handles[MOST_KEYS];
    int i;

    log_in(session, CKU_USER, user);
    for (i = 0; i < key_count; i++) {
        handles[i] = make(session, &keys[i], 0);
        use_all(session, handles[i], &keys[i]);
    }
    scan("used");
    for (i = 0; i < key_count; i++)
        OK(p11->C_DestroyObject(session, handles[i]));
    scan("destroyed");
    other = open_session();
    for (i = 0; i < key_count; i++)
        use_all(other, make(other, &keys[i], 0), &keys[i]);
    OK(p11->C_CloseSession(other));
    scan("closed");
    for (i = 0; i < key_count; i++)
        use_all(session, make(session, &keys[i], 0), &keys[i]);
    OK(p11->C_Logout(session));
    scan("logout");
}

/* The token is in this folder, which goes. */
static void eject(const char *folder)
{
    CK_ULONG session = open_session(), slot = first_slot();
    CK_SLOT_INFO info;
    char elsewhere[4096];
    int i;

    log_in(session, CKU_USER, user);
    for (i = 0; i < key_count; i++)
        use_all(session, stored(session, &keys[i]), &keys[i]);
    scan("used");
    snprintf(elsewhere, sizeof elsewhere, "%s-elsewhere", folder);
    if (rename(folder, elsewhere) != 0)
        check("rename", CKR_GENERAL_ERROR);
    OK(p11->C_GetSlotInfo(slot, &info));
    scan("ejected");
}

int main(int count, char **arguments)
{
    if (count != 3 && count != 4)
        return 2;
    read_input();
    load(arguments[1]);
    OK(p11->C_Initialize(NULL));
    if (strcmp(arguments[2], "keep") == 0)
        keep();
    else if (strcmp(arguments[2], "use") == 0)
        use();
    else if (count == 4)
        eject(arguments[3]);
    else
        make_and_end();
    OK(p11->C_Finalize(NULL));
    scan("end");
    return 0;
}
