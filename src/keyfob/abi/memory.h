/* Between interpreter.c, memory.c and libraries.c. */
#ifndef KEYFOB_MEMORY_H
#define KEYFOB_MEMORY_H

#include <Python.h>

#include "door.h"

/* Python's functions that memory.c calls. */
struct allocators {
    __typeof__(&PyMem_GetAllocator) get;
    __typeof__(&PyMem_SetAllocator) set;
    __typeof__(&PyObject_SetArenaAllocator) set_arena;
};

/* Make the interpreter that is about to start keep its memory clean. */
void keep_memory_clean(const struct allocators *of);

/* The same for the libraries that our interpreter has loaded so far and that work with keys. */
void keep_libraries_clean(void);

/* Let the calls that come through these tables know of a shortage, and be known by it. */
void watch_calls(struct tables *tables);

#endif
