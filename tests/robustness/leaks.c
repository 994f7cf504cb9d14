/*
 * What a long life costs a host: `leaks MODULE PIN TIMES`. Prints for each kind of work how much the resident memory (KiB),
 * the descriptors and the threads grew while it was done TIMES times, after as much of it for warming up.
 */
#include "host.h"

#include <dirent.h>

#define GOES_TO_WARM_UP 4 /* parts of the work that come before the first measurement */

static const char *pin;
static CK_ULONG session, key;

static long entries(const char *folder)
{
    DIR *directory = opendir(folder);
    long count = 0;

    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

static long resident(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    long size, pages;

    if (fscanf(file, "%ld %ld", &size, &pages) != 2)
        exit(3);
    fclose(file);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void begin(void)
{
    CK_ULONG found[4];

    OK(p11->C_Initialize(NULL));
    session = open_session();
    OK(login(session, CKU_USER, pin));
    if (find(session, CKO_PRIVATE_KEY, found, 4) != 1)
        check("find the private key", CKR_GENERAL_ERROR);
    key = found[0];
}

static void open_and_close(void)
{
    OK(p11->C_CloseSession(open_session()));
}

static void sign_once(void)
{
    CK_BYTE digest[32] = {0}, signature[SIGNATURE_SIZE];

    OK(sign(session, key, digest, signature));
}

static void find_once(void)
{
    CK_ULONG found[4];

    find(session, CKO_PRIVATE_KEY, found, 4);
}

static void make_and_destroy(void)
{
    CK_ULONG object_class = CKO_DATA, handle;
    CK_ATTRIBUTE template[] = {word_of(CKA_CLASS, &object_class), text_of(CKA_VALUE, "value")};

    OK(p11->C_CreateObject(session, template, 2, &handle));
    OK(p11->C_DestroyObject(session, handle));
}

static void store_and_destroy(void)
{
    CK_ULONG object_class = CKO_DATA, handle;
    CK_ATTRIBUTE template[] = {word_of(CKA_CLASS, &object_class), bool_of(CKA_TOKEN, 1), text_of(CKA_VALUE, "value")};

    OK(p11->C_CreateObject(session, template, 3, &handle));
    OK(p11->C_DestroyObject(session, handle));
}

static void fail_once(void)
{
    CK_MECHANISM mechanism = {CKM_ECDSA, NULL, 0};

    if (p11->C_SignInit(session, &mechanism, 12345) != CKR_KEY_HANDLE_INVALID)
        check("C_SignInit with a handle of nothing", CKR_GENERAL_ERROR);
}

static void end_and_begin(void)
{
    OK(p11->C_Finalize(NULL));
    begin();
}

static void measure(const char *what, void (*work)(void), int times)
{
    long memory, descriptors, threads;
    int i;

    for (i = 0; i < times / GOES_TO_WARM_UP; i++)
        work();
    memory = resident();
    descriptors = entries("/proc/self/fd");
    threads = entries("/proc/self/task");
    for (i = 0; i < times; i++)
        work();
    say("%s %ld %ld %ld", what, resident() - memory, entries("/proc/self/fd") - descriptors,
        entries("/proc/self/task") - threads);
}

int main(int count, char **arguments)
{
    int times = count == 4 ? atoi(arguments[3]) : 0;
    long threads = entries("/proc/self/task");

    if (times < 10)
        return 2;
    pin = arguments[2];
    load(arguments[1]);
    begin();
    measure("sessions", open_and_close, 10 * times);
    measure("signatures", sign_once, 5 * times);
    measure("searches", find_once, 2 * times);
    measure("failures", fail_once, 2 * times);
    measure("session-objects", make_and_destroy, 2 * times);
    measure("token-objects", store_and_destroy, times / 5);
    measure("beginnings", end_and_begin, times / 10);
    OK(p11->C_Finalize(NULL));
    say("threads-left %ld 0 0", entries("/proc/self/task") - threads);
    return 0;
}
