/* Where libkeyfob.so lies, and which folders it may search. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "door.h"

static char own_path[PATH_MAX]; /* without symbolic links; empty if it could not be found */

/* When loaded: a host may open us by a relative path and change its working directory before the first call. */
__attribute__((constructor)) static void find_own_path(void)
{
    Dl_info self;

    if (!dladdr((void *)own_path, &self) || realpath(self.dli_fname, own_path) == NULL)
        *own_path = '\0';
}

int find_package_folder(char folder[PATH_MAX])
{
    char *end;

    if (*own_path == '\0')
        return complain("cannot find out where libkeyfob.so lies");
    strcpy(folder, own_path);
    *strrchr(folder, '/') = '\0';
    end = strrchr(folder, '/');
    if (end == NULL || strcmp(end, "/keyfob") != 0)
        return complain("libkeyfob.so must stay in the package keyfob, not at %s: link to it instead", own_path);
    *(end == folder ? end + 1 : end) = '\0';
    return 1;
}

/*
 * Somebody else could have made a folder of build time anew since: temporary environments of build tools lie in /tmp.
 * So it must belong to root or to the owner of libkeyfob.so, and not be open to all.
 */
int is_trusted(const char *folder)
{
    struct stat its, ours;

    return stat(folder, &its) == 0 && stat(own_path, &ours) == 0 && S_ISDIR(its.st_mode) && !(its.st_mode & S_IWOTH)
           && (its.st_uid == 0 || its.st_uid == ours.st_uid);
}
