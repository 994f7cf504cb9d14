/*
 * A host that closes every descriptor but the standard ones, as old daemons do, then opens files of its own:
 *
 *     closing MODULE PIN FOLDER
 *
 * Three rounds of that, with one of each kind of call in each. Ends with status 1 where a call fails, or where one of the
 * host's files was written to, closed, or moved in.
 */
#include "host.h"

#include <fcntl.h>
#include <sys/stat.h>

#define FILES 150 /* SQLite's descriptors are among the first hundred and fifty numbers */
#define CONTENT "the host's own"

static int files[FILES];

static void open_files(const char *folder)
{
    char path[512];
    int i;

    for (i = 0; i < FILES; i++) {
        snprintf(path, sizeof path, "%s/file-%d", folder, i);
        files[i] = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (files[i] < 0 || write(files[i], CONTENT, strlen(CONTENT)) != (ssize_t)strlen(CONTENT))
            exit(2);
    }
}

static void check_files(const char *when)
{
    struct stat status;
    int i;

    for (i = 0; i < FILES; i++) {
        if (fstat(files[i], &status) == 0 && status.st_size == (off_t)strlen(CONTENT)
            && lseek(files[i], 0, SEEK_CUR) == status.st_size)
            continue;
        fprintf(stderr, "host: descriptor %d is not what it was %s\n", files[i], when);
        exit(1);
    }
}

int main(int count, char **arguments)
{
    static CK_BYTE digest[32], signature[SIGNATURE_SIZE];
    CK_ULONG session, handles[2], found[64];
    char name[16];
    int round, i;

    if (count != 4)
        return 2;
    load(arguments[1]);
    OK(p11->C_Initialize(NULL));
    session = open_session();
    OK(login(session, CKU_USER, arguments[2]));
    for (round = 0; round < 3; round++) {
        for (i = 3; i < 1024; i++)
            close(i);
        if (round > 0)
            open_files(arguments[3]);
        snprintf(name, sizeof name, "round %d", round);
        OK(generate_pair(session, name, name, 1, handles));
        OK(sign(session, handles[1], digest, signature));
        OK(p11->C_DestroyObject(session, handles[0]));
        if (find(session, CKO_PRIVATE_KEY, found, 64) != (CK_ULONG)round + 1)
            return 1;
        OK(p11->C_Logout(session));
        OK(login(session, CKU_USER, arguments[2]));
        if (round > 0)
            check_files("after the calls");
    }
    OK(p11->C_Finalize(NULL));
    check_files("after C_Finalize");
    say("done");
    return 0;
}
