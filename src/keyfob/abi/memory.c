/*
 * The memory of an interpreter of our own. (A host that is Python itself keeps its allocators.)
 *
 *   freed      Every block is overwritten before it is freed. Python copies what it works with: a PIN, a key's value,
 *              an opened record pass through a dozen objects. To wipe them one by one is to miss the next one.
 *   dumped     Small blocks, so nearly all objects, are left out of core dumps.
 *   shortage   Python is told that there is no more memory while HEADROOM bytes are left. What does not survive having
 *              none (libraries in Rust end the process) still has these, and so has what must work all the same: calls
 *              that give memory back, and the end of one that was refused some.
 *
 * The size stands before each block, as nobody tells an allocator what it frees.
 */
#define _GNU_SOURCE
#include "memory.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define HEADROOM ((size_t)4 << 20)
#define LARGE ((size_t)64 << 10) /* from here on it is worth asking whether the headroom stays */


typedef uint64_t word __attribute__((may_alias));
#define BEFORE (2 * sizeof(word)) /* the size, and what keeps the block aligned */

static PyMemAllocatorEx memory, objects; /* what lies below ours */
static int short_of_memory;              /* an arena was refused because of the headroom */
static struct call *(*present_call)(void);

static int is_mappable(size_t size)
{
    void *probe = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (probe == MAP_FAILED)
        return 0;
    munmap(probe, size);
    return 1;
}

/* Calls that give memory back, and calls that take some for good. */
static const char *const closing[] = {"_C_CloseSession", "_C_CloseAllSessions", "_C_DestroyObject", "_C_Finalize",
                                      "_C_FindObjectsFinal", "_C_Logout", "_C_SessionCancel", NULL};
static const char *const keeping[] = {"_C_Initialize", "_C_OpenSession", "_C_CreateObject", "_C_CopyObject",
                                      "_C_GenerateKey", "_C_GenerateKeyPair", "_C_UnwrapKey", "_C_DeriveKey",
                                      "_C_UnwrapKeyAuthenticated", "_C_EncapsulateKey", "_C_DecapsulateKey",
                                      "_C_GetOperationState", NULL};

static int is_among(const char *const *functions, const char *entry)
{
    const char *function = entry != NULL ? strstr(entry, "_C_") : NULL;

    for (; function != NULL && *functions != NULL; functions++)
        if (strcmp(function, *functions) == 0)
            return 1;
    return 0;
}

static int may_use_headroom(void)
{
    struct call *call = present_call != NULL ? present_call() : NULL;

    return call != NULL && (call->is_urgent || is_among(closing, call->entry));
}

/* From now on the call that asked is about saying so. */
static void *refused(void)
{
    if (present_call != NULL)
        present_call()->is_urgent = 1;
    return NULL;
}

/* ---- Blocks ----------------------------------------------------------------------------------------------------- */

/*
 * Small blocks are of few sizes, and some of each are kept at hand: to take one of those costs less than to go below,
 * which pays for the wiping. All this is under the GIL.
 */
#define STEP ((size_t)16)
#define SIZES 32
#define SMALL (SIZES * STEP)
#define AT_HAND 32

struct shelf {
    word *first; /* each but the last has the next in its first word */
    int count;
};
static struct shelf shelves[SIZES + 1];

static struct shelf *shelf_of(size_t size)
{
    return &shelves[(size + STEP - 1) / STEP];
}

/* Small ones in whole words. The asm: the block is given away next, and the compiler knows what that means. */
static void wipe(word *head, size_t size)
{
    size_t words = (size + BEFORE + sizeof *head - 1) / sizeof *head, i;

    if (size > SMALL)
        memset(head, 0, size + BEFORE);
    else
        for (i = 0; i < words; i++)
            head[i] = 0;
    __asm__ __volatile__("" : : "r"(head) : "memory");
}

static word *head_of(void *block)
{
    return (word *)((char *)block - BEFORE);
}

static int is_too_much(size_t size)
{
    return size >= LARGE && (size > PTRDIFF_MAX - HEADROOM || (!is_mappable(size + HEADROOM) && !may_use_headroom()));
}

static void *clean_malloc(void *below, size_t size)
{
    PyMemAllocatorEx *allocator = below;
    struct shelf *shelf = size <= SMALL ? shelf_of(size) : NULL;
    word *head;
    size_t whole;

    if (shelf != NULL && (head = shelf->first) != NULL) {
        shelf->first = (word *)head[0];
        shelf->count--;
    } else {
        whole = (size + STEP - 1) / STEP * STEP + BEFORE;
        head = is_too_much(size) ? NULL : allocator->malloc(allocator->ctx, whole);
    }
    if (head == NULL)
        return refused();
    *head = size;
    return (char *)head + BEFORE;
}

static void *clean_calloc(void *below, size_t count, size_t each)
{
    size_t size;
    void *block;

    if (__builtin_mul_overflow(count, each, &size))
        return refused();
    block = clean_malloc(below, size);
    if (block != NULL)
        memset(block, 0, size);
    return block;
}

static void clean_free(void *below, void *block)
{
    PyMemAllocatorEx *allocator = below;
    struct shelf *shelf;
    word *head;
    size_t size;

    if (block == NULL)
        return;
    head = head_of(block);
    size = *head;
    wipe(head, size);
    if (size <= SMALL && (shelf = shelf_of(size))->count < AT_HAND) {
        head[0] = (word)shelf->first;
        shelf->first = head;
        shelf->count++;
    } else
        allocator->free(allocator->ctx, head);
}

/* What lies below would move a block and not wipe where it was. */
static void *clean_realloc(void *below, void *block, size_t size)
{
    size_t present = block != NULL ? *head_of(block) : 0;
    void *other;

    if (block != NULL && size <= present && size >= present / 4 * 3) {
        memset((char *)block + size, 0, present - size);
        return block; /* with its size as it was: what is behind the end is ours as before */
    }
    other = clean_malloc(below, size);
    if (other != NULL && block != NULL) {
        memcpy(other, block, size < present ? size : present);
        clean_free(below, block);
    }
    return other;
}

/* ---- Arenas, where the small blocks lie ------------------------------------------------------------------------- */

static void *arena_alloc(void *unused, size_t size)
{
    char *arena = mmap(NULL, HEADROOM + size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)unused;
    if (arena != MAP_FAILED) { /* its upper end, so that the next one lies beside it: fewer and larger pages */
        munmap(arena, HEADROOM);
        arena += HEADROOM;
    } else if (may_use_headroom()) {
        arena = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    if (arena == MAP_FAILED) {
        short_of_memory = 1;
        return refused();
    }
    madvise(arena, size, MADV_DONTDUMP);
    return arena;
}

static void arena_free(void *unused, void *arena, size_t size)
{
    (void)unused;
    munmap(arena, size);
}

/* ---- What interpreter.c calls ----------------------------------------------------------------------------------- */

void keep_memory_clean(const struct allocators *of)
{
    PyMemAllocatorEx clean_memory = {&memory, clean_malloc, clean_calloc, clean_realloc, clean_free};
    PyMemAllocatorEx clean_objects = {&objects, clean_malloc, clean_calloc, clean_realloc, clean_free};
    PyObjectArenaAllocator arenas = {NULL, arena_alloc, arena_free};

    of->get(PYMEM_DOMAIN_MEM, &memory);
    of->get(PYMEM_DOMAIN_OBJ, &objects);
    of->set(PYMEM_DOMAIN_MEM, &clean_memory);
    of->set(PYMEM_DOMAIN_OBJ, &clean_objects);
    of->set_arena(&arenas);
}

/* While there is a shortage: what would be kept for good would use up the headroom bit by bit. */
static int may_begin(const char *entry)
{
    if (!is_among(keeping, entry))
        return 1;
    if (!is_mappable(2 * HEADROOM))
        return 0;
    short_of_memory = 0;
    return 1;
}

void watch_calls(struct tables *tables)
{
    present_call = tables->present_call;
    tables->short_of_memory = &short_of_memory;
    tables->may_begin = may_begin;
    tables->keep_libraries_clean = keep_libraries_clean;
}
