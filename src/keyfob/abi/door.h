/* Between the files of libkeyfob.so: loader.c (the door itself), interpreter.c, memory.c, libraries.c and folders.c. */
#ifndef KEYFOB_DOOR_H
#define KEYFOB_DOOR_H

#include <limits.h>

/* The call that a thread is in, or was: cffi's name of the function; whether it was refused memory, see memory.c. */
struct call {
    const char *entry;
    int is_urgent;
};

/* The hand-over: what keyfob.abi.start.tables() gives the address of. None of it needs Python or the GIL. */
struct tables {
    unsigned long (*get_function_list)(void *list);
    unsigned long (*get_interface_list)(void *interfaces, unsigned long *count);
    unsigned long (*get_interface)(unsigned char *name, void *version, void *interface, unsigned long flags);
    struct call *(*present_call)(void);
    /* Set by memory.c where the interpreter is ours: whether memory is short, and then, whether a call may begin. */
    const int *short_of_memory;
    int (*may_begin)(const char *entry);
    /* To be called when a library was loaded that works with keys. */
    void (*keep_libraries_clean)(void);
};

/* One line on stderr, starting with "keyfob: ". Answers 0, for `return complain(...)`. */
int complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The folder that holds the package: ".../site-packages" for ".../site-packages/keyfob/libkeyfob.so"; or complain. */
int find_package_folder(char folder[PATH_MAX]);

/* Whether a folder noted at build time may be searched for packages. */
int is_trusted(const char *folder);

/* Find or start Python, import keyfob and fill the tables: 1; 0 after having complained. To be called once. */
int start_keyfob(struct tables *tables);

/* Whether this thread holds the GIL of a Python in this process, whoever started it. */
int holds_gil(void);

/* Let go of that GIL and take it back: only where holds_gil(). */
void *let_go_of_gil(void);
void take_gil_back(void *thread);

/*
 * What os.fork() does around a fork, where the interpreter is ours (a Python host sees to its own): 1 if the other two
 * must be called, the parent's with the `gil` that was filled in.
 */
int prepare_python_for_fork(int *gil);
void resume_python_in_parent(int gil);
void resume_python_in_child(void);

#endif
