/*
 * SQLite's descriptors, guarded: build.py puts this into keyfob._abi, descriptors.py gives it to SQLite as its system
 * calls. A host may close descriptors that are not its own (old daemons close all of them), and opens files of its own
 * after that, which get the same numbers. So each descriptor that SQLite opens is remembered with its file, by device
 * and inode, and looked at again before anything is done with it: what is another file by now is not read, written,
 * locked, cut or closed, and SQLite sees EBADF. An fstat takes 0.2 us.
 *
 * All this is for keyfob's own databases, which it names before it opens them. A Python host may use the same SQLite
 * (apsw) for databases of its own: those are opened, locked and written as if none of this were here.
 *
 * A number that SQLite has lost stays taken until SQLite has closed it: no file that is opened meanwhile may get it, or
 * the late close would hit that one. And keyfob's descriptors are high ones, where there is room: a host that closes a
 * small number twice, or counts on the numbers below 10, or on select(), does not meet them.
 *
 * Moving a descriptor closes its first number, and closing any descriptor of a file drops the locks that the process
 * has on it, whoever has them. So a file that is open under another number is not moved, and its number left open where
 * it is one that was lost.
 */
#define KEYFOB_PAGE 1024
#define KEYFOB_PAGES 1024
#define KEYFOB_LOWEST 100 /* number of keyfob's descriptors */

typedef struct {
    int taken;
    dev_t device;
    ino_t inode;
} keyfob_descriptor;

/* By number. A page is never given back, and only the thread that opens or closes a descriptor changes its entry. */
static _Atomic(keyfob_descriptor *) keyfob_pages[KEYFOB_PAGES];

static keyfob_descriptor *keyfob_entry(int number, int make)
{
    keyfob_descriptor *page, *none = NULL;

    if (number < 0 || number >= KEYFOB_PAGE * KEYFOB_PAGES)
        return NULL;
    page = atomic_load(&keyfob_pages[number / KEYFOB_PAGE]);
    if (page == NULL) {
        if (!make || (page = calloc(KEYFOB_PAGE, sizeof *page)) == NULL)
            return NULL;
        if (!atomic_compare_exchange_strong(&keyfob_pages[number / KEYFOB_PAGE], &none, page)) {
            free(page);
            page = none;
        }
    }
    return &page[number % KEYFOB_PAGE];
}

/* Whether the number still means the file that was opened under it; what was opened elsewhere is not known here. */
static int keyfob_is_ours(int number)
{
    keyfob_descriptor *entry = keyfob_entry(number, 0);
    struct stat status;

    if (entry == NULL || !entry->taken)
        return 1;
    return fstat(number, &status) == 0 && status.st_dev == entry->device && status.st_ino == entry->inode;
}

static int keyfob_is_lost(int number)
{
    if (keyfob_is_ours(number))
        return 0;
    errno = EBADF;
    return 1;
}

static int keyfob_is_taken(int number)
{
    keyfob_descriptor *entry = keyfob_entry(number, 0);

    return entry != NULL && entry->taken;
}

/* A descriptor of SQLite's for this file that is still its own; -1 for none. */
static int keyfob_find(const struct stat *status)
{
    int i, number;

    for (i = 0; i < KEYFOB_PAGES; i++) {
        keyfob_descriptor *page = atomic_load(&keyfob_pages[i]);

        for (number = 0; page != NULL && number < KEYFOB_PAGE; number++)
            if (page[number].taken && page[number].device == status->st_dev && page[number].inode == status->st_ino
                && keyfob_is_ours(i * KEYFOB_PAGE + number))
                return i * KEYFOB_PAGE + number;
    }
    return -1;
}

/* Whether the process has the file open under no other number. Where that cannot be told, it is not. */
static int keyfob_is_alone(int number, const struct stat *status)
{
    DIR *folder = opendir("/proc/self/fd");
    struct dirent *entry;
    struct stat other;
    int found, alone = folder != NULL;

    while (alone && (entry = readdir(folder)) != NULL) {
        found = entry->d_name[0] == '.' ? number : atoi(entry->d_name);
        alone = found == number || fstat(found, &other) != 0 || other.st_dev != status->st_dev
                || other.st_ino != status->st_ino;
    }
    if (folder != NULL)
        closedir(folder);
    return alone;
}

/* The full names of keyfob's databases. None is ever taken out: a name that comes back is used again. */
typedef struct keyfob_path {
    struct keyfob_path *next;
    size_t length;
    char path[];
} keyfob_path;

static _Atomic(keyfob_path *) keyfob_paths;

/* What follows the name of one of keyfob's databases in this path: nothing, or what SQLite makes beside it; NULL. */
static const char *keyfob_end_of_own(const char *path)
{
    static const char *const ends[] = {"", "-wal", "-shm", "-journal"};
    keyfob_path *name;
    size_t i;

    for (name = atomic_load(&keyfob_paths); name != NULL; name = name->next)
        for (i = 0; strncmp(path, name->path, name->length) == 0 && i < sizeof ends / sizeof ends[0]; i++)
            if (strcmp(path + name->length, ends[i]) == 0)
                return path + name->length;
    return NULL;
}

/* Before a database is opened. 0: no memory. */
static int keyfob_name_own(const char *path)
{
    const char *end = keyfob_end_of_own(path);
    keyfob_path *name;

    if (end != NULL && *end == '\0')
        return 1;
    name = malloc(sizeof *name + strlen(path) + 1);
    if (name == NULL)
        return 0;
    name->length = strlen(path);
    memcpy(name->path, path, name->length + 1);
    name->next = atomic_load(&keyfob_paths);
    while (!atomic_compare_exchange_weak(&keyfob_paths, &name->next, name))
        continue;
    return 1;
}

/*
 * Nothing is waited for (a FIFO), and nothing is written that is no file. What stands beside a database has a name that
 * anybody may have given: it is not somebody else's file under another one.
 */
static int keyfob_may_open(const char *end, const struct stat *status)
{
    return S_ISREG(status->st_mode) && (status->st_nlink <= 1 || *end == '\0');
}

/* The same file under a number that SQLite has not lost, and from `lowest` on if that can be had; -1. */
static int keyfob_move(int number, const struct stat *status, int lowest)
{
    int moved, alone;

    if (number >= lowest && !keyfob_is_taken(number))
        return number;
    alone = keyfob_is_alone(number, status);
    while (keyfob_is_taken(number) || (alone && number < lowest)) {
        moved = fcntl(number, F_DUPFD_CLOEXEC, number < lowest ? lowest : number + 1);
        if (moved < 0 && !keyfob_is_taken(number))
            break; /* no room above: RLIMIT_NOFILE */
        if (alone)
            close(number);
        if (moved < 0)
            return -1;
        number = moved;
    }
    return number;
}

static int keyfob_open_own(const char *path, const char *end, int flags, int mode)
{
    int number = open(path, flags | O_CLOEXEC | O_NONBLOCK | (*end != '\0' ? O_NOFOLLOW : 0), mode);
    keyfob_descriptor *entry;
    struct stat status;

    if (number < 0 || fstat(number, &status) != 0)
        return number;
    if (!keyfob_may_open(end, &status)) {
        if (keyfob_is_alone(number, &status))
            close(number);
        errno = EPERM;
        return -1;
    }
    number = keyfob_move(number, &status, KEYFOB_LOWEST);
    entry = keyfob_entry(number, 1);
    if (entry != NULL) {
        entry->device = status.st_dev;
        entry->inode = status.st_ino;
        entry->taken = 1;
    }
    return number;
}

static int keyfob_open(const char *path, int flags, ...)
{
    const char *end = keyfob_end_of_own(path);
    struct stat status;
    int number, mode;
    va_list more;

    va_start(more, flags);
    mode = va_arg(more, int);
    va_end(more);
    if (end != NULL)
        return keyfob_open_own(path, end, flags, mode);
    number = open(path, flags, mode);
    return keyfob_is_taken(number) && fstat(number, &status) == 0 ? keyfob_move(number, &status, 0) : number;
}

static int keyfob_close(int number)
{
    keyfob_descriptor *entry = keyfob_entry(number, 0);
    int ours = keyfob_is_ours(number);

    if (entry != NULL)
        entry->taken = 0;
    return ours ? close(number) : 0;
}

static int keyfob_fcntl(int number, int command, ...)
{
    void *argument;
    va_list more;

    va_start(more, command);
    argument = va_arg(more, void *);
    va_end(more);
    return keyfob_is_lost(number) ? -1 : fcntl(number, command, argument);
}

static int keyfob_fstat(int number, struct stat *status)
{
    return keyfob_is_lost(number) ? -1 : fstat(number, status);
}

/*
 * What is written beyond RLIMIT_FSIZE is refused with EFBIG, and a signal that ends the host unless it expects it. So
 * where there is a limit the signal is held back meanwhile, and taken away; one that waited before is the host's.
 */
typedef struct {
    int holds;
    sigset_t before, signal;
} keyfob_limit;

static void keyfob_hold(keyfob_limit *limit)
{
    struct rlimit size;
    sigset_t waiting;

    limit->holds = 0;
    if (getrlimit(RLIMIT_FSIZE, &size) != 0 || size.rlim_cur == RLIM_INFINITY)
        return;
    if (sigpending(&waiting) != 0 || sigismember(&waiting, SIGXFSZ))
        return;
    sigemptyset(&limit->signal);
    sigaddset(&limit->signal, SIGXFSZ);
    limit->holds = pthread_sigmask(SIG_BLOCK, &limit->signal, &limit->before) == 0;
}

static void keyfob_let_go(const keyfob_limit *limit, int failed)
{
    static const struct timespec none;
    int problem = errno;

    if (!limit->holds)
        return;
    if (failed && problem == EFBIG)
        while (sigtimedwait(&limit->signal, NULL, &none) < 0 && errno == EINTR)
            ;
    pthread_sigmask(SIG_SETMASK, &limit->before, NULL);
    errno = problem;
}

/* Before SQLite writes. The signal is the host's own matter in a database that is not keyfob's. 0: the number is lost. */
static int keyfob_begin(int number, keyfob_limit *limit)
{
    limit->holds = 0;
    if (keyfob_is_lost(number))
        return 0;
    if (keyfob_is_taken(number))
        keyfob_hold(limit);
    return 1;
}

static int keyfob_ftruncate(int number, off_t size)
{
    keyfob_limit limit;
    int result;

    if (!keyfob_begin(number, &limit))
        return -1;
    result = ftruncate(number, size);
    keyfob_let_go(&limit, result < 0);
    return result;
}

static ssize_t keyfob_read(int number, void *data, size_t size)
{
    return keyfob_is_lost(number) ? -1 : read(number, data, size);
}

/* A quota that is used up is a full disk, and so is the limit of a file's size; SQLite knows ENOSPC only. */
static ssize_t keyfob_written(int number, ssize_t size, const keyfob_limit *limit)
{
    keyfob_let_go(limit, size < 0);
    if (size < 0 && (errno == EDQUOT || errno == EFBIG) && keyfob_is_taken(number))
        errno = ENOSPC;
    return size;
}

static ssize_t keyfob_write(int number, const void *data, size_t size)
{
    keyfob_limit limit;

    if (!keyfob_begin(number, &limit))
        return -1;
    return keyfob_written(number, write(number, data, size), &limit);
}

static ssize_t keyfob_pread(int number, void *data, size_t size, off_t place)
{
    return keyfob_is_lost(number) ? -1 : pread(number, data, size, place);
}

static ssize_t keyfob_pwrite(int number, const void *data, size_t size, off_t place)
{
    keyfob_limit limit;

    if (!keyfob_begin(number, &limit))
        return -1;
    return keyfob_written(number, pwrite(number, data, size, place), &limit);
}

/* For keyfob's own files; `place`: -1 for that of the descriptor. */
long keyfob_write_file(int number, const char *data, CK_ULONG size, long place)
{
    keyfob_limit limit;
    ssize_t written;

    keyfob_hold(&limit);
    do
        written = place < 0 ? write(number, data, size) : pwrite(number, data, size, place);
    while (written < 0 && errno == EINTR);
    keyfob_let_go(&limit, written < 0);
    return written;
}

/* The number of what is wrong, or 0. */
int keyfob_reserve_file(int number, long size)
{
    keyfob_limit limit;
    int problem;

    keyfob_hold(&limit);
    do
        problem = posix_fallocate(number, 0, size);
    while (problem == EINTR);
    errno = problem;
    keyfob_let_go(&limit, problem != 0);
    return problem;
}

static int keyfob_fchmod(int number, mode_t mode) { return keyfob_is_lost(number) ? -1 : fchmod(number, mode); }

static int keyfob_fchown(int number, uid_t user, gid_t group)
{
    return keyfob_is_lost(number) ? -1 : fchown(number, user, group);
}

static void *keyfob_mmap(void *address, size_t size, int protection, int flags, int number, off_t place)
{
    return keyfob_is_lost(number) ? MAP_FAILED : mmap(address, size, protection, flags, number, place);
}

_Static_assert(sizeof(off_t) == 8, "SQLite's pread64 and pwrite64 take 64 bits");

static const struct {
    const char *name;
    void (*call)(void);
} keyfob_calls[] = {
#define CALL(name, function) {name, (void (*)(void))function}
    CALL("open", keyfob_open),         CALL("close", keyfob_close),   CALL("fcntl", keyfob_fcntl),
    CALL("fstat", keyfob_fstat),       CALL("read", keyfob_read),     CALL("write", keyfob_write),
    CALL("pread", keyfob_pread),       CALL("pread64", keyfob_pread), CALL("pwrite", keyfob_pwrite),
    CALL("pwrite64", keyfob_pwrite),   CALL("fchmod", keyfob_fchmod), CALL("fchown", keyfob_fchown),
    CALL("ftruncate", keyfob_ftruncate), CALL("mmap", keyfob_mmap),
#undef CALL
};

/* The address of what SQLite is to call instead of its own; 0 where that has nothing to do with descriptors. */
static CK_ULONG keyfob_system_call(const char *name)
{
    size_t i;

    for (i = 0; i < sizeof keyfob_calls / sizeof keyfob_calls[0]; i++)
        if (strcmp(keyfob_calls[i].name, name) == 0)
            return (CK_ULONG)keyfob_calls[i].call;
    return 0;
}

static int keyfob_descriptor_of(const char *path)
{
    struct stat status;

    return stat(path, &status) == 0 ? keyfob_find(&status) : -1;
}

/* Whether these are all still SQLite's. */
static int keyfob_are_ours(const int *numbers, int count)
{
    int i;

    for (i = 0; i < count; i++)
        if (!keyfob_is_taken(numbers[i]) || !keyfob_is_ours(numbers[i]))
            return 0;
    return 1;
}

/* The first bytes of the file as all processes see them, through a descriptor that stays SQLite's; NULL. */
static char *keyfob_map(int number, CK_ULONG size)
{
    struct stat status;
    void *found;

    if (keyfob_fstat(number, &status) != 0)
        return NULL;
    if ((CK_ULONG)status.st_size < size) { /* what is not there would end the host when it is looked at */
        errno = EINVAL;
        return NULL;
    }
    found = mmap(NULL, size, PROT_READ, MAP_SHARED, number, 0);
    return found == MAP_FAILED ? NULL : found;
}

static void keyfob_unmap(char *mapping, CK_ULONG size) { munmap(mapping, size); }
