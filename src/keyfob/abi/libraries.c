/*
 * What the libraries free that work with keys for our interpreter is overwritten first, as Python's is (memory.c).
 *
 * OpenSSL and cryptography overwrite the keys that they hold, but not every copy that they make on the way: Argon2id's
 * parameters are freed with the PIN among them, a private key's encoding with the key, a shared secret as it is. They
 * call the C library through their tables of addresses, which the dynamic linker has filled in. There the entries for
 * free and realloc get the addresses of ours; those of other libraries stay as they are.
 *
 * Where the C library's allocator was replaced by one that does not tell a block's size, all stays as it is. So does an
 * entry with another function than ours call: a host may have bound us to another allocator (RTLD_DEEPBIND) than what
 * Python loads.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory.h"

/* cryptography, with the OpenSSL in it. */
static const char *const names[] = {"_rust."};

typedef uint64_t word __attribute__((may_alias));
#define SMALL ((size_t)256)
/* Larger blocks are Argon2id's memory and the like. Most of them go back to the system at once. */
#define MOST_WIPED ((size_t)1 << 20)

#if defined __x86_64__
#define IS_ADDRESS(type) ((type) == R_X86_64_GLOB_DAT || (type) == R_X86_64_JUMP_SLOT)
#elif defined __aarch64__
#define IS_ADDRESS(type) ((type) == R_AARCH64_GLOB_DAT || (type) == R_AARCH64_JUMP_SLOT)
#else
#define IS_ADDRESS(type) 0
#endif

/* ---- In place of the C library's -------------------------------------------------------------------------------- */

/* Small blocks, which are many, in whole words: what may be used of a block ends with one. */
static void clean_free(void *block)
{
    size_t size = block != NULL ? malloc_usable_size(block) : 0, i;
    word *words = block;

    if (size <= SMALL)
        for (i = 0; i < size / sizeof *words; i++)
            words[i] = 0;
    else if (size <= MOST_WIPED)
        memset(block, 0, size);
    __asm__ __volatile__("" : : "r"(block) : "memory"); /* it is freed next, and the compiler knows that */
    free(block);
}

static void *clean_realloc(void *block, size_t size)
{
    size_t present = block != NULL ? malloc_usable_size(block) : 0;
    void *other;

    if (block == NULL || size == 0 || present > MOST_WIPED)
        return realloc(block, size);
    if (size <= present && size >= present / 2)
        return block;
    other = malloc(size);
    if (other != NULL) {
        memcpy(other, block, size < present ? size : present);
        clean_free(block);
    }
    return other;
}

/* ---- The tables ------------------------------------------------------------------------------------------------- */

/* A loaded library, as far as its relocations and what is protected after them need it. */
struct library {
    ElfW(Addr) base, protected_from, protected_to;
    const ElfW(Sym) *symbols;
    const char *texts;
    const ElfW(Rela) *tables[2];
    size_t sizes[2];
};

static void replace(const struct library *library, ElfW(Addr) place, void *present, void *function)
{
    void **entry = (void **)place;
    ElfW(Addr) page = (ElfW(Addr))sysconf(_SC_PAGESIZE), start = place & ~(page - 1);
    int is_protected = place >= library->protected_from && place < library->protected_to;

    if (*entry != present || (is_protected && mprotect((void *)start, page, PROT_READ | PROT_WRITE) != 0))
        return;
    __atomic_store_n(entry, function, __ATOMIC_RELEASE);
    if (is_protected)
        mprotect((void *)start, page, PROT_READ);
}

static void replace_in(const struct library *library, const ElfW(Rela) *relocation, size_t size)
{
    const ElfW(Rela) *end = relocation + size / sizeof *relocation;
    const char *name;

    for (; relocation < end; relocation++) {
        if (!IS_ADDRESS(ELF64_R_TYPE(relocation->r_info)))
            continue;
        name = library->texts + library->symbols[ELF64_R_SYM(relocation->r_info)].st_name;
        if (strcmp(name, "free") == 0)
            replace(library, library->base + relocation->r_offset, (void *)free, (void *)clean_free);
        else if (strcmp(name, "realloc") == 0)
            replace(library, library->base + relocation->r_offset, (void *)realloc, (void *)clean_realloc);
    }
}

/* The C library has made addresses of what the file has in here. */
static void read_dynamic(struct library *library, const ElfW(Dyn) *entry)
{
    for (; entry->d_tag != DT_NULL; entry++)
        switch (entry->d_tag) {
        case DT_SYMTAB: library->symbols = (const ElfW(Sym) *)entry->d_un.d_ptr; break;
        case DT_STRTAB: library->texts = (const char *)entry->d_un.d_ptr; break;
        case DT_RELA: library->tables[0] = (const ElfW(Rela) *)entry->d_un.d_ptr; break;
        case DT_RELASZ: library->sizes[0] = entry->d_un.d_val; break;
        case DT_JMPREL: library->tables[1] = (const ElfW(Rela) *)entry->d_un.d_ptr; break;
        case DT_PLTRELSZ: library->sizes[1] = entry->d_un.d_val; break;
        }
}

static int is_ours(const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t i;

    for (i = 0; i < sizeof names / sizeof *names; i++)
        if (strncmp(slash != NULL ? slash + 1 : path, names[i], strlen(names[i])) == 0)
            return 1;
    return 0;
}

static int keep_clean(struct dl_phdr_info *object, size_t size, void *unused)
{
    struct library library = {.base = object->dlpi_addr};
    ElfW(Addr) page = (ElfW(Addr))sysconf(_SC_PAGESIZE);
    int i;

    (void)size;
    (void)unused;
    if (!is_ours(object->dlpi_name))
        return 0;
    for (i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];

        if (part->p_type == PT_GNU_RELRO) {
            library.protected_from = (library.base + part->p_vaddr) & ~(page - 1);
            library.protected_to = (library.base + part->p_vaddr + part->p_memsz) & ~(page - 1);
        } else if (part->p_type == PT_DYNAMIC)
            read_dynamic(&library, (const ElfW(Dyn) *)(library.base + part->p_vaddr));
    }
    if (library.symbols != NULL && library.texts != NULL)
        for (i = 0; i < 2; i++)
            if (library.tables[i] != NULL)
                replace_in(&library, library.tables[i], library.sizes[i]);
    return 0;
}

/* Whether who frees a block can tell its size. */
static int is_one_allocator(void)
{
    Dl_info of_free, of_size;
    void *size = dlsym(RTLD_DEFAULT, "malloc_usable_size");

    return size != NULL && dladdr(dlsym(RTLD_DEFAULT, "free"), &of_free) != 0 && dladdr(size, &of_size) != 0 &&
           of_free.dli_fbase == of_size.dli_fbase;
}

void keep_libraries_clean(void)
{
    if (is_one_allocator())
        dl_iterate_phdr(keep_clean, NULL);
}
