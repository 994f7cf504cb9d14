/*
 * An allocator that takes the place of the C library's (LD_PRELOAD), and ends the process where it is given a block of
 * another one. A block is given out once: what is freed is spoilt and stays so.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define POOL ((size_t)8 << 30) /* addresses; memory is what is used of them */
#define MARK 0x6b6579666f622121UL
#define LEAST 16

struct head {
    size_t size, mark;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *next, *end;

static void *take(size_t alignment, size_t size)
{
    uintptr_t place;

    pthread_mutex_lock(&lock);
    if (next == NULL) {
        next = mmap(NULL, POOL, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        end = next != MAP_FAILED ? next + POOL : next;
    }
    if (alignment < LEAST)
        alignment = LEAST;
    size = (size + LEAST - 1) & ~(size_t)(LEAST - 1);
    place = ((uintptr_t)next + sizeof(struct head) + alignment - 1) & ~(uintptr_t)(alignment - 1);
    if (place > (uintptr_t)end || size > (uintptr_t)end - place) {
        pthread_mutex_unlock(&lock);
        errno = ENOMEM;
        return NULL;
    }
    next = (char *)place + size;
    pthread_mutex_unlock(&lock);
    ((struct head *)place)[-1] = (struct head){size, MARK};
    return (void *)place;
}

static struct head *head_of(void *block)
{
    static const char text[] = "allocator: a block of another one was given back\n";
    struct head *head = (struct head *)block - 1;

    if ((char *)block < end - POOL || (char *)block >= end || head->mark != MARK) {
        if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
            _exit(3);
        _exit(4);
    }
    return head;
}

void *malloc(size_t size) { return take(LEAST, size); }

void *calloc(size_t count, size_t each)
{
    size_t size;

    return __builtin_mul_overflow(count, each, &size) ? NULL : take(LEAST, size); /* fresh memory is empty */
}

size_t malloc_usable_size(void *block) { return block != NULL ? head_of(block)->size : 0; }

void free(void *block)
{
    struct head *head;

    if (block == NULL)
        return;
    head = head_of(block);
    head->mark = 0;
    memset(block, 0xee, head->size);
}

void *realloc(void *block, size_t size)
{
    size_t present = malloc_usable_size(block);
    void *other = take(LEAST, size);

    if (other != NULL && block != NULL) {
        memcpy(other, block, present < size ? present : size);
        free(block);
    }
    return other;
}

void *memalign(size_t alignment, size_t size) { return take(alignment, size); }

void *aligned_alloc(size_t alignment, size_t size) { return take(alignment, size); }

int posix_memalign(void **block, size_t alignment, size_t size)
{
    *block = take(alignment, size);
    return *block != NULL ? 0 : ENOMEM;
}
