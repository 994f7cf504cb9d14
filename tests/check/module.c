/* A PKCS #11 module of one slot that can do nothing, and does one thing wrong as BREAK says: for tests of keyfob check.
   Its list is of version 2.40 and lies at the very end of a page, before one that cannot be read. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef BREAK
#define BREAK 0
#endif
enum {
    NOTHING, CRASH, HANG, EXIT, PRINT, OVERRUN, NO_POINTER, CRASH_AT_EXIT, REFUSE_FLAGS, TOKEN,
    LOAD_CRASH, LOAD_HANG, LOAD_EXIT, HANG_AT_ONCE, HUGE_COUNT, COMPLAIN, HEAP, SPIN, CLOSE_FILES, CHILD, FLOOD
};

typedef unsigned long UL;
#define OK 0
#define SLOT_ID_INVALID 0x03
#define FUNCTION_NOT_SUPPORTED 0x54
#define NOT_INITIALIZED 0x190

static int initialized;

static UL stub(void) { return FUNCTION_NOT_SUPPORTED; }

static void at_exit(void) { raise(SIGSEGV); }

__attribute__((constructor)) static void load(void) {
    if (BREAK == LOAD_CRASH) raise(SIGSEGV);
    if (BREAK == LOAD_HANG) for (;;) pause();
    if (BREAK == LOAD_EXIT) _exit(4);
}

static void *spin(void *nothing) { for (;;) usleep(1000); return nothing; }

static void misbehave(void) {
    static pthread_t thread;
    if (BREAK == HANG_AT_ONCE) for (;;) pause();
    if (BREAK == COMPLAIN) fprintf(stderr, "the reader is \033[31mon fire\n");
    if (BREAK == HEAP) { char *block = malloc(24); memset(block - 16, 0xff, 64); free(block); }
    if (BREAK == SPIN) pthread_create(&thread, 0, spin, 0);
    if (BREAK == CLOSE_FILES) for (int i = 3; i < 1024; i++) close(i);
    if (BREAK == CHILD && fork() == 0) for (;;) pause();
    if (BREAK == FLOOD) for (int i = 0; i < 1 << 25; i++) puts("a line of output that nobody asked for");
}

static UL initialize(void *arguments) {
    misbehave();
    if (BREAK == REFUSE_FLAGS && arguments) return 0x0A; /* CKR_CANT_LOCK */
    if (BREAK == CRASH_AT_EXIT) atexit(at_exit);
    if (initialized) return 0x191;
    initialized = 1;
    return OK;
}

static UL finalize(void *reserved) {
    if (!initialized) return NOT_INITIALIZED;
    initialized = 0;
    return OK;
}

static UL get_info(unsigned char *info) {
    if (!initialized) return NOT_INITIALIZED;
    if (BREAK == CRASH) raise(SIGSEGV);
    if (BREAK == HANG) for (;;) pause();
    if (BREAK == EXIT) exit(3);
    if (BREAK == PRINT) { puts("hello from the module"); fflush(stdout); }
    memset(info, ' ', 88);
    info[0] = 2; info[1] = 40;
    memcpy(info + 2, "tests", 5);
    memset(info + 40, 0, 8);
    memcpy(info + 48, "a module of tests", 17);
    info[80] = 1; info[81] = 0;
    return OK;
}

static UL get_slot_list(unsigned char present, UL *slots, UL *count) {
    if (!initialized) return NOT_INITIALIZED;
    if (slots) { slots[0] = 7; if (BREAK == OVERRUN) slots[1] = 8; }
    *count = BREAK == HUGE_COUNT ? 1UL << 60 : 1;
    return OK;
}

static UL get_slot_info(UL slot, unsigned char *info) {
    if (!initialized) return NOT_INITIALIZED;
    if (slot != 7) return SLOT_ID_INVALID;
    memset(info, ' ', 96);
    memcpy(info, "a slot", 6);
    *(UL *)(info + 96) = BREAK == TOKEN ? 1 : 2; /* a token, or removable and empty */
    memset(info + 104, 0, 4);
    return OK;
}

static UL close_all(UL slot) { return initialized ? OK : NOT_INITIALIZED; }
static UL close_one(UL session) { return initialized ? 0xB3 : NOT_INITIALIZED; }

struct list { unsigned char version[2]; void *functions[68]; };

UL C_GetFunctionList(struct list **out) {
    long page = sysconf(_SC_PAGESIZE);
    char *pages = mmap(0, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct list *made = (struct list *)(pages + page - sizeof(struct list));
    mprotect(pages + page, page, PROT_NONE);
    made->version[0] = 2;
    made->version[1] = 40;
    for (int i = 0; i < 68; i++) made->functions[i] = stub;
    made->functions[0] = initialize;
    made->functions[1] = finalize;
    made->functions[2] = get_info;
    made->functions[3] = C_GetFunctionList;
    made->functions[4] = get_slot_list;
    made->functions[5] = get_slot_info;
    made->functions[13] = close_one;
    made->functions[14] = close_all;
    if (BREAK == NO_POINTER) made->functions[67] = 0;
    *out = made;
    return OK;
}
