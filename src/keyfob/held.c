/*
 * keyfob._held: bytes that are secret and held for longer than a call, the master key and the values of keys.
 *
 * They are bytes objects of a type of their own, each as a whole in an arena that is locked into memory as far as the
 * process may lock any, left out of core dumps, and between pages that nobody may touch. What dies in there is
 * overwritten. In a host that is Python itself, whose allocators are its own matter, they are what is wiped.
 *
 * The arena is not for MADV_WIPEONFORK: what lies in it is objects, which a child drops, not bytes alone. What does not
 * fit, because of its size or because there is too much, lies where other objects lie. All this is under the GIL.
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define CHUNK ((size_t)256 << 10)
#define MOST_CHUNKS 64
#define STEP ((size_t)64)
#define LARGEST ((size_t)8 << 10) /* object */
#define HEAD offsetof(PyBytesObject, ob_sval)

struct free_block {
    struct free_block *next;
};

static struct free_block *free_blocks[LARGEST / STEP + 1]; /* by size in steps */
static char *chunks[MOST_CHUNKS];
static int chunk_count;
static size_t used = CHUNK; /* of the last chunk */
static size_t locked;
static int is_inherited; /* by a fork, and with it no lock */

static PyTypeObject secret_type;

/* No more than half of what the process may lock: the host may want to lock something, too. */
static int may_lock(size_t size)
{
    struct rlimit limit;

    return getrlimit(RLIMIT_MEMLOCK, &limit) == 0 &&
           (limit.rlim_cur == RLIM_INFINITY || locked + size <= limit.rlim_cur / 2);
}

static void lock(char *chunk)
{
    if (may_lock(CHUNK) && mlock(chunk, CHUNK) == 0)
        locked += CHUNK;
}

static void note_fork(void) { is_inherited = 1; }

/* Only where a child goes on with keyfob: most start another program, and locking copies the pages. */
static void lock_what_is_inherited(void)
{
    int i;

    is_inherited = 0;
    locked = 0;
    for (i = 0; i < chunk_count; i++)
        lock(chunks[i]);
}

static int add_chunk(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *with_guards;

    if (chunk_count == MOST_CHUNKS)
        return 0;
    with_guards = mmap(NULL, CHUNK + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (with_guards == MAP_FAILED)
        return 0;
    if (mprotect(with_guards + page, CHUNK, PROT_READ | PROT_WRITE) != 0) {
        munmap(with_guards, CHUNK + 2 * page);
        return 0;
    }
    madvise(with_guards + page, CHUNK, MADV_DONTDUMP);
    lock(with_guards + page);
    chunks[chunk_count++] = with_guards + page;
    used = 0;
    return 1;
}

static size_t steps_of(size_t size)
{
    return (size + STEP - 1) / STEP;
}

static int is_in_arena(const void *block)
{
    int i;

    for (i = 0; i < chunk_count; i++)
        if ((const char *)block >= chunks[i] && (const char *)block < chunks[i] + CHUNK)
            return 1;
    return 0;
}

/* Room for an object of this size in the arena; NULL where it has none. */
static void *take(size_t size)
{
    size_t steps = steps_of(size);
    struct free_block *block;

    if (size > LARGEST)
        return NULL;
    if (is_inherited)
        lock_what_is_inherited();
    block = free_blocks[steps];
    if (block != NULL) {
        free_blocks[steps] = block->next;
        return block;
    }
    if (used + steps * STEP > CHUNK && !add_chunk())
        return NULL;
    used += steps * STEP;
    return chunks[chunk_count - 1] + used - steps * STEP;
}

static void dealloc(PyObject *self)
{
    size_t size = HEAD + (size_t)Py_SIZE(self) + 1;
    struct free_block *block = (struct free_block *)self;

    explicit_bzero(self, size);
    if (!is_in_arena(self)) {
        PyObject_Free(self);
        return;
    }
    block->next = free_blocks[steps_of(size)];
    free_blocks[steps_of(size)] = block;
}

static PyObject *hold(PyObject *module, PyObject *data)
{
    Py_buffer view;
    PyBytesObject *held;
    size_t size;

    (void)module;
    if (Py_TYPE(data) == &secret_type) {
        Py_INCREF(data);
        return data;
    }
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) != 0)
        return NULL;
    size = HEAD + (size_t)view.len + 1;
    held = take(size);
    if (held == NULL)
        held = PyObject_Malloc(size);
    if (held == NULL) {
        PyBuffer_Release(&view);
        return PyErr_NoMemory();
    }
    PyObject_InitVar((PyVarObject *)held, &secret_type, view.len);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    held->ob_shash = -1; /* no hash is known yet */
#pragma GCC diagnostic pop
    if (view.len > 0)
        memcpy(held->ob_sval, view.buf, (size_t)view.len);
    held->ob_sval[view.len] = '\0';
    PyBuffer_Release(&view);
    return (PyObject *)held;
}

static PyObject *wipe(PyObject *module, PyObject *held)
{
    (void)module;
    if (Py_TYPE(held) != &secret_type) {
        PyErr_SetString(PyExc_TypeError, "only what is held is wiped: others may share it otherwise");
        return NULL;
    }
    explicit_bzero(((PyBytesObject *)held)->ob_sval, (size_t)Py_SIZE(held));
    Py_RETURN_NONE;
}

static PyTypeObject secret_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "keyfob._held.Secret",
    .tp_doc = "Bytes that hold() has made.",
    .tp_basicsize = HEAD + 1,
    .tp_itemsize = 1,
    .tp_dealloc = dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_base = &PyBytes_Type,
};

static PyMethodDef methods[] = {
    {"hold", hold, METH_O, "These bytes where secrets are held; themselves where they are."},
    {"wipe", wipe, METH_O, "Overwrite what is held, whoever may still know it."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "keyfob._held",
    .m_doc = "Secrets that are held.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__held(void);

PyMODINIT_FUNC PyInit__held(void)
{
    PyObject *module;

    if (pthread_atfork(NULL, NULL, note_fork) != 0)
        return PyErr_NoMemory();
    module = PyType_Ready(&secret_type) == 0 ? PyModule_Create(&definition) : NULL;
    if (module != NULL && PyModule_AddObjectRef(module, "Secret", (PyObject *)&secret_type) != 0)
        Py_CLEAR(module);
    return module;
}
