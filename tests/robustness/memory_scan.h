/*
 * Looks for secrets in all memory of its own process, as somebody with a debugger, a core dump or a read past the end of
 * a buffer would find it. What is looked for is kept masked, so that the host itself is no place where it is found.
 */
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>

#define MASK 0xA5
#define SHORTEST 8
#define MOST_PATTERNS 1024
#define MOST_MAPPINGS 4096
#define CHUNK ((size_t)1 << 20)
#define TABLE ((size_t)1 << 16)

struct pattern {
    char name[64];
    CK_BYTE masked[64];
    size_t length;
    int found, dumped, unlocked; /* places; those that a core dump has; those that may be swapped out */
    int next; /* of those with the same two first bytes; -1: none */
};

struct mapping {
    unsigned long from, to;
    int is_readable, is_dumped, is_locked;
    char line[256];
};

static struct mapping mappings[MOST_MAPPINGS];
static struct pattern patterns[MOST_PATTERNS];
static int pattern_count, table[TABLE];
static CK_BYTE *chunk; /* a mapping of its own, which is left out */

static size_t slot_of(const CK_BYTE *two)
{
    return (size_t)two[0] << 8 | two[1];
}

SHARED void add_pattern(const char *name, const CK_BYTE *masked, size_t length)
{
    struct pattern *pattern = &patterns[pattern_count];
    CK_BYTE first[2] = {masked[0] ^ MASK, masked[1] ^ MASK};

    if (pattern_count == MOST_PATTERNS || length < SHORTEST || length > sizeof pattern->masked)
        check("add_pattern", CKR_GENERAL_ERROR);
    if (pattern_count == 0)
        memset(table, -1, sizeof table);
    snprintf(pattern->name, sizeof pattern->name, "%s", name);
    memcpy(pattern->masked, masked, length);
    pattern->length = length;
    pattern->next = table[slot_of(first)];
    table[slot_of(first)] = pattern_count++;
}

static int is_at(const struct pattern *pattern, const CK_BYTE *place)
{
    size_t i;

    for (i = 0; i < pattern->length; i++)
        if ((place[i] ^ MASK) != pattern->masked[i])
            return 0;
    return 1;
}

/* As far as a whole pattern can begin; WHERE in the environment names the places, for people. */
static void look_through(size_t length, unsigned long address, const struct mapping *mapping)
{
    size_t i;
    int candidate;

    for (i = 0; i + sizeof patterns->masked <= length; i++)
        for (candidate = table[slot_of(chunk + i)]; candidate >= 0; candidate = patterns[candidate].next)
            if (is_at(&patterns[candidate], chunk + i)) {
                patterns[candidate].found++;
                patterns[candidate].dumped += mapping->is_dumped;
                patterns[candidate].unlocked += !mapping->is_locked;
                if (getenv("WHERE") != NULL)
                    fprintf(stderr, "%s at %lx in %s", patterns[candidate].name, address + i, mapping->line);
            }
}

static void scan_mapping(int memory, const struct mapping *mapping)
{
    size_t overlap = sizeof patterns->masked, wanted;
    unsigned long from;
    ssize_t got;

    for (from = mapping->from; from < mapping->to; from += CHUNK) {
        wanted = mapping->to - from < CHUNK + overlap ? mapping->to - from : CHUNK + overlap;
        memset(chunk, 0, CHUNK + overlap);
        got = pread(memory, chunk, wanted, (off_t)from);
        if (got <= 0)
            return;
        look_through((size_t)got < CHUNK + overlap ? (size_t)got + overlap - 1 : CHUNK + overlap - 1, from, mapping);
    }
}

static int read_mappings(void)
{
    FILE *maps = fopen("/proc/self/smaps", "r");
    char line[512], mode[8];
    unsigned long from, to, inode;
    struct mapping *mapping = mappings - 1;

    if (maps == NULL)
        check("read_mappings", CKR_GENERAL_ERROR);
    while (fgets(line, sizeof line, maps) != NULL && mapping < mappings + MOST_MAPPINGS - 1)
        if (sscanf(line, "%lx-%lx %7s %*x %*s %lu", &from, &to, mode, &inode) == 4) {
            *++mapping = (struct mapping){from, to, 0, 1, 0, ""};
            /* What is a file's and cannot be written is code, and as it was. */
            mapping->is_readable = mode[0] == 'r' && (mode[1] == 'w' || inode == 0) && strstr(line, "[v") == NULL;
            snprintf(mapping->line, sizeof mapping->line, "%.255s", line);
        } else if (strncmp(line, "VmFlags:", 8) == 0) {
            mapping->is_dumped = strstr(line, " dd ") == NULL;
            mapping->is_locked = strstr(line, " lo ") != NULL;
        }
    fclose(maps);
    return (int)(mapping - mappings) + 1;
}

/* One line: the step and the names of what was found; with /dumped and /unlocked where some place is so. */
SHARED void scan(const char *step)
{
    int memory = open("/proc/self/mem", O_RDONLY), i, count;

    if (chunk == NULL)
        chunk = mmap(NULL, CHUNK + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory < 0 || chunk == MAP_FAILED)
        check("scan", CKR_GENERAL_ERROR);
    for (i = 0; i < pattern_count; i++)
        patterns[i].found = patterns[i].dumped = patterns[i].unlocked = 0;
    count = read_mappings();
    for (i = 0; i < count; i++)
        if (mappings[i].is_readable && !((unsigned long)chunk >= mappings[i].from && (unsigned long)chunk < mappings[i].to))
            scan_mapping(memory, &mappings[i]);
    close(memory);
    memset(chunk, 0, CHUNK + 4096);
    printf("%s", step);
    for (i = 0; i < pattern_count; i++)
        if (patterns[i].found > 0)
            printf(" %s%s%s", patterns[i].name, patterns[i].dumped ? "/dumped" : "", patterns[i].unlocked ? "/unlocked" : "");
    printf("\n");
    fflush(stdout);
}
