/* What can be measured, and the loop that measures it. */
#ifndef KEYFOB_BENCH_FIGURES_H
#define KEYFOB_BENCH_FIGURES_H

#include <stddef.h>
#include <stdint.h>

#include "p11.h"

#define MAX_ATTRIBUTES 24
#define MAX_LANES 16
#define MAX_SAMPLES 512
#define MAX_DATA 65536
#define MAX_VALUE 1024 /* bytes of an attribute that is read */
#define OBJECT_ID_LENGTH 20

/* One thread's view of a figure: its own session and buffers. After a batch: what it did, or which call failed and how. */
struct lane {
    const struct job *job;
    CK_HANDLE session;
    uint64_t counter;       /* never repeats within a lane: nonces and object choices come from it */
    CK_HANDLE made[2];      /* objects that the last operation made and `undo` destroys */
    CK_BYTE nonce[12];
    CK_BYTE in[MAX_DATA], out[MAX_DATA + 64];
    uint64_t operations, nanoseconds;
    uint64_t samples[MAX_SAMPLES]; /* nanoseconds of each operation, for figures that are undone after each */
    size_t sample_count;
    const char *failed_call;
    CK_RV rv;
};

/* One figure with its arguments. `once` does the operation and is timed; `undo`, if set, restores the token afterwards and
 * is not timed. Both return false after setting failed_call and rv. */
struct job {
    const CK_FUNCTION_LIST *p11;
    int (*once)(struct lane *lane);
    int (*undo)(struct lane *lane);
    uint64_t budget; /* nanoseconds of a batch; 0: exactly one operation without warm-up */
    CK_HANDLE object;
    CK_ULONG mechanism, length, population;
    CK_ATTRIBUTE attributes[MAX_ATTRIBUTES], private_attributes[MAX_ATTRIBUTES];
    CK_ULONG attribute_count, private_count;
};

uint64_t now(void); /* nanoseconds of CLOCK_MONOTONIC */

/* The CKA_ID of the population's object `number`: scattered, so that no module profits from ordered keys. */
void object_id(uint64_t number, CK_BYTE id[OBJECT_ID_LENGTH]);

int failed(struct lane *lane, const char *call, CK_RV rv); /* always 0 */

int get_session_info(struct lane *lane);
int get_attributes(struct lane *lane);
int find_by_id(struct lane *lane);
int sign(struct lane *lane);
int encrypt_gcm(struct lane *lane);
int digest(struct lane *lane);
int generate_key_pair(struct lane *lane);
int create_object(struct lane *lane);
int destroy_made(struct lane *lane);

/* Run one batch on `count` lanes at once, a thread each (the calling thread for one). The sessions must be open. */
void run_batch(const struct job *job, struct lane *lanes, size_t count);

#endif
