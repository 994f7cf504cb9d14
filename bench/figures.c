/* The operations, one function each, and the loop around them. */
#include "figures.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Between two looks at the clock a lane works for about this long, so that looking costs nothing that counts. */
#define CHUNK_NANOSECONDS 50000u

uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* splitmix64's finisher: a bijection, so that different numbers have different results. */
static uint64_t scatter(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

void object_id(uint64_t number, CK_BYTE id[OBJECT_ID_LENGTH]) {
    uint64_t words[3] = {scatter(number), scatter(number + 0x100000000u), scatter(number + 0x200000000u)};
    memcpy(id, words, OBJECT_ID_LENGTH);
}

int failed(struct lane *lane, const char *call, CK_RV rv) {
    lane->failed_call = call;
    lane->rv = rv;
    return 0;
}

#define MUST(call, ...)                                                       \
    do {                                                                      \
        CK_RV rv_ = lane->job->p11->call(__VA_ARGS__);                        \
        if (rv_ != CKR_OK)                                                    \
            return failed(lane, #call, rv_);                                  \
    } while (0)

int get_session_info(struct lane *lane) {
    CK_SESSION_INFO info;
    MUST(C_GetSessionInfo, lane->session, &info);
    return 1;
}

/* The template's values say how long each buffer is, to the byte: softoken answers CKR_BUFFER_TOO_SMALL when the buffer of
 * a number is larger than a CK_ULONG. */
int get_attributes(struct lane *lane) {
    const struct job *job = lane->job;
    CK_ATTRIBUTE asked[MAX_ATTRIBUTES];
    for (CK_ULONG i = 0; i < job->attribute_count; i++) {
        asked[i] = job->attributes[i];
        asked[i].value = lane->out + MAX_VALUE * i;
    }
    MUST(C_GetAttributeValue, lane->session, job->object, asked, job->attribute_count);
    return 1;
}

/* With a population the template is what NSS asks to find the key of a certificate: {CKA_ID, ...}, another ID each time;
 * without one the given attributes alone say which object is wanted. */
int find_by_id(struct lane *lane) {
    const struct job *job = lane->job;
    CK_BYTE id[OBJECT_ID_LENGTH];
    CK_ATTRIBUTE asked[MAX_ATTRIBUTES + 1];
    CK_ULONG asked_count = 0, found = 0;
    if (job->population) {
        object_id(scatter(lane->counter++) % job->population, id);
        asked[asked_count++] = (CK_ATTRIBUTE){CKA_ID, id, OBJECT_ID_LENGTH};
    }
    memcpy(asked + asked_count, job->attributes, job->attribute_count * sizeof *asked);
    asked_count += job->attribute_count;
    MUST(C_FindObjectsInit, lane->session, asked, asked_count);
    MUST(C_FindObjects, lane->session, lane->made, 2, &found);
    MUST(C_FindObjectsFinal, lane->session);
    return found == 1 ? 1 : failed(lane, found ? "C_FindObjects: found too many" : "C_FindObjects: found none", CKR_OK);
}

int sign(struct lane *lane) {
    const struct job *job = lane->job;
    CK_MECHANISM mechanism = {job->mechanism, NULL, 0};
    CK_ULONG length = sizeof lane->out;
    MUST(C_SignInit, lane->session, &mechanism, job->object);
    MUST(C_Sign, lane->session, lane->in, job->length, lane->out, &length);
    return 1;
}

int encrypt_gcm(struct lane *lane) {
    const struct job *job = lane->job;
    memcpy(lane->nonce + 4, &lane->counter, sizeof lane->counter);
    lane->counter++;
    CK_GCM_PARAMS gcm = {lane->nonce, sizeof lane->nonce, 8 * sizeof lane->nonce, NULL, 0, 128};
    CK_MECHANISM mechanism = {job->mechanism, &gcm, sizeof gcm};
    CK_ULONG length = sizeof lane->out;
    MUST(C_EncryptInit, lane->session, &mechanism, job->object);
    MUST(C_Encrypt, lane->session, lane->in, job->length, lane->out, &length);
    return length == job->length + 16 ? 1 : failed(lane, "C_Encrypt: wrong length", CKR_OK);
}

int digest(struct lane *lane) {
    const struct job *job = lane->job;
    CK_MECHANISM mechanism = {job->mechanism, NULL, 0};
    CK_ULONG length = sizeof lane->out;
    MUST(C_DigestInit, lane->session, &mechanism);
    MUST(C_Digest, lane->session, lane->in, job->length, lane->out, &length);
    return 1;
}

int generate_key_pair(struct lane *lane) {
    const struct job *job = lane->job;
    CK_MECHANISM mechanism = {job->mechanism, NULL, 0};
    MUST(C_GenerateKeyPair, lane->session, &mechanism, (CK_ATTRIBUTE *)job->attributes, job->attribute_count,
         (CK_ATTRIBUTE *)job->private_attributes, job->private_count, &lane->made[0], &lane->made[1]);
    return 1;
}

/* The population's IDs start at 0; the objects that this figure makes lie beyond every population. */
int create_object(struct lane *lane) {
    const struct job *job = lane->job;
    CK_BYTE id[OBJECT_ID_LENGTH];
    CK_ATTRIBUTE template[MAX_ATTRIBUTES + 1];
    object_id(job->population + lane->counter++, id);
    memcpy(template, job->attributes, job->attribute_count * sizeof *template);
    template[job->attribute_count] = (CK_ATTRIBUTE){CKA_ID, id, OBJECT_ID_LENGTH};
    lane->made[1] = 0;
    MUST(C_CreateObject, lane->session, template, job->attribute_count + 1, &lane->made[0]);
    return 1;
}

int destroy_made(struct lane *lane) {
    for (int i = 0; i < 2; i++)
        if (lane->made[i])
            MUST(C_DestroyObject, lane->session, lane->made[i]);
    return 1;
}

/* Figures that are undone: each operation is timed alone, for they last at least tens of microseconds. */
static int run_singly(struct lane *lane) {
    const struct job *job = lane->job;
    do {
        uint64_t start = now();
        if (!job->once(lane))
            return 0;
        uint64_t took = now() - start;
        lane->nanoseconds += took;
        lane->operations++;
        lane->samples[lane->sample_count++] = took;
        if (!job->undo(lane))
            return 0;
    } while (lane->nanoseconds < job->budget && lane->sample_count < MAX_SAMPLES);
    return 1;
}

/* How many operations make a chunk: doubled until they last long enough, which warms up caches and lazy imports too. */
static uint64_t calibrate(struct lane *lane) {
    if (lane->job->budget == 0)
        return 1;
    for (uint64_t chunk = 1;; chunk *= 2) {
        uint64_t start = now();
        for (uint64_t i = 0; i < chunk; i++)
            if (!lane->job->once(lane))
                return 0;
        if (now() - start >= CHUNK_NANOSECONDS)
            return chunk;
    }
}

static int run_in_chunks(struct lane *lane, uint64_t chunk) {
    uint64_t start = now();
    do {
        for (uint64_t i = 0; i < chunk; i++)
            if (!lane->job->once(lane))
                return 0;
        lane->operations += chunk;
        lane->nanoseconds = now() - start;
    } while (lane->nanoseconds < lane->job->budget);
    return 1;
}

struct start {
    struct lane *lane;
    pthread_barrier_t *together;
};

static void *lane_thread(void *argument) {
    struct start *start = argument;
    struct lane *lane = start->lane;
    uint64_t chunk = lane->job->undo ? 1 : calibrate(lane);
    pthread_barrier_wait(start->together); /* also after a failure: the others wait for everybody */
    if (chunk) {
        if (lane->job->undo)
            run_singly(lane);
        else
            run_in_chunks(lane, chunk);
    }
    return NULL;
}

void run_batch(const struct job *job, struct lane *lanes, size_t count) {
    pthread_t threads[MAX_LANES];
    struct start starts[MAX_LANES];
    pthread_barrier_t together;
    pthread_barrier_init(&together, NULL, (unsigned)count);
    for (size_t i = 0; i < count; i++) {
        lanes[i].job = job;
        lanes[i].operations = lanes[i].nanoseconds = 0;
        lanes[i].sample_count = 0;
        lanes[i].failed_call = NULL;
        starts[i] = (struct start){&lanes[i], &together};
        if (i > 0 && pthread_create(&threads[i], NULL, lane_thread, &starts[i]) != 0)
            abort();
    }
    lane_thread(&starts[0]);
    for (size_t i = 1; i < count; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&together);
}
