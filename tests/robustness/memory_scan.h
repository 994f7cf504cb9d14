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
#define CHUNK ((size_t)1 << 20)
#define TABLE ((size_t)1 << 16)

struct pattern {
    char name[64];
    CK_BYTE masked[64];
    size_t length;
    int found;
    int next; /* of those with the same two first bytes; -1: none */
};

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
static void look_through(size_t length, unsigned long address, const char *mapping)
{
    size_t i;
    int candidate;

    for (i = 0; i + sizeof patterns->masked <= length; i++)
        for (candidate = table[slot_of(chunk + i)]; candidate >= 0; candidate = patterns[candidate].next)
            if (is_at(&patterns[candidate], chunk + i)) {
                patterns[candidate].found++;
                if (getenv("WHERE") != NULL)
                    fprintf(stderr, "%s at %lx in %s", patterns[candidate].name, address + i, mapping);
            }
}

static void scan_mapping(int memory, unsigned long from, unsigned long to, const char *mapping)
{
    size_t overlap = sizeof patterns->masked;
    ssize_t got;

    for (; from < to; from += CHUNK) {
        memset(chunk, 0, CHUNK + overlap);
        got = pread(memory, chunk, to - from < CHUNK + overlap ? to - from : CHUNK + overlap, (off_t)from);
        if (got <= 0)
            return;
        look_through((size_t)got < CHUNK + overlap ? (size_t)got + overlap - 1 : CHUNK + overlap - 1, from, mapping);
    }
}

/* One line: the step and the names of what was found. */
SHARED void scan(const char *step)
{
    int memory = open("/proc/self/mem", O_RDONLY), i;
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512], mode[8];
    unsigned long from, to;

    if (chunk == NULL)
        chunk = mmap(NULL, CHUNK + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory < 0 || maps == NULL || chunk == MAP_FAILED)
        check("scan", CKR_GENERAL_ERROR);
    for (i = 0; i < pattern_count; i++)
        patterns[i].found = 0;
    while (fgets(line, sizeof line, maps) != NULL)
        if (sscanf(line, "%lx-%lx %7s", &from, &to, mode) == 3 && mode[0] == 'r' && strstr(line, "[v") == NULL &&
            !((unsigned long)chunk >= from && (unsigned long)chunk < to))
            scan_mapping(memory, from, to, line);
    fclose(maps);
    close(memory);
    memset(chunk, 0, CHUNK + 4096);
    printf("%s", step);
    for (i = 0; i < pattern_count; i++)
        if (patterns[i].found > 0)
            printf(" %s", patterns[i].name);
    printf("\n");
    fflush(stdout);
}
