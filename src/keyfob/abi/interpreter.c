/*
 * CPython for libkeyfob.so: the one that is here, or one of our own.
 *
 *   our own   No Python runs in this process: load the shared library of the Python that built us and start it
 *             isolated: nothing around the host (PYTHONPATH, .pth files, the working directory) can bring in code.
 *   shared    The host is a Python program: if it has our minor version, import into its interpreter; if not, refuse.
 *             Two CPythons in one process bind to each other's symbols and hang or crash.
 *
 * Python.h gives types and prototypes only. Every function is looked up at run time: there is no libpython to link
 * with, so that libkeyfob.so loads into hosts that have a Python of their own.
 */
#define _GNU_SOURCE
#include <Python.h>

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "door.h"
#include "memory.h"
#include "loader_config.h" /* what setup.py found out about the Python that builds us: KEYFOB_* */

#define STRING_OF(text) #text
#define VERSION_OF(major, minor) STRING_OF(major) "." STRING_OF(minor)
#define OUR_VERSION VERSION_OF(PY_MAJOR_VERSION, PY_MINOR_VERSION)

#if PY_VERSION_HEX >= 0x030D0000
#define IS_FINALIZING Py_IsFinalizing
#else
#define IS_FINALIZING _Py_IsFinalizing
#endif

/* CPython's functions that we call, by their own prototypes. */
#define PYTHON_FUNCTIONS(DO)                                                                                         \
    DO(PyConfig_Clear) DO(PyConfig_InitIsolatedConfig) DO(PyConfig_SetBytesString) DO(PyDict_GetItemString)          \
    DO(PyDict_New)                                                                                                   \
    DO(PyDict_SetItemString) DO(PyErr_Clear) DO(PyEval_SaveThread) DO(PyGILState_Check) DO(PyGILState_Ensure)        \
    DO(PyGILState_Release) DO(PyList_Append) DO(PyList_New) DO(PyLong_AsVoidPtr) DO(PyMem_GetAllocator)              \
    DO(PyMem_RawFree) DO(PyMem_SetAllocator) DO(PyObject_SetArenaAllocator)                                          \
    DO(PyOS_AfterFork_Child) DO(PyOS_AfterFork_Parent) DO(PyOS_BeforeFork) DO(PyPreConfig_InitIsolatedConfig)        \
    DO(PyRun_StringFlags) DO(PyStatus_Exception) DO(PyUnicode_AsUTF8AndSize) DO(PyUnicode_DecodeFSDefault)           \
    DO(PyWideStringList_Append) DO(Py_DecRef) DO(Py_DecodeLocale) DO(Py_GetVersion) DO(Py_InitializeFromConfig)      \
    DO(Py_IsInitialized) DO(Py_PreInitialize) DO(IS_FINALIZING)

#define AS_FIELD(name) FIELD(name)
#define FIELD(name) __typeof__(&name) name;
static struct { PYTHON_FUNCTIONS(AS_FIELD) } python;

static int bound; /* `python` is filled */
static int interpreter_is_ours;

static const char *const standard_library[] = KEYFOB_STANDARD_LIBRARY;
static const char *const site_folders[] = KEYFOB_SITE_FOLDERS;

/* ---- Which Python is here already ------------------------------------------------------------------------------- */

/* For dl_iterate_phdr: note the path of a loaded libpythonX.Y (not of the stub libpython3.so) and stop. */
static int note_libpython(struct dl_phdr_info *object, size_t size, void *found)
{
    const char *slash = strrchr(object->dlpi_name, '/');
    const char *name = slash != NULL ? slash + 1 : object->dlpi_name;
    int major, minor;

    (void)size;
    if (sscanf(name, "libpython%d.%d", &major, &minor) != 2)
        return 0;
    snprintf(found, PATH_MAX, "%s", object->dlpi_name);
    return 1;
}

/*
 * The Python that the host brought, started or not: a library that it loaded for itself, or the host's own executable
 * (Debian's python3 is linked statically and exports the API). Its symbols become global, because extension modules
 * look there for them. 0 where there is none.
 */
static int find_python_of_host(void **library)
{
    char path[PATH_MAX];

    *library = RTLD_DEFAULT;
    if (dlsym(RTLD_DEFAULT, "Py_IsInitialized") != NULL)
        return 1;
    if (!dl_iterate_phdr(note_libpython, path))
        return 0;
    *library = dlopen(path, RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL);
    return *library != NULL;
}

/* Fill `python` from a library, if that library is a CPython that we were built for. */
static int bind(void *library)
{
    const char *(*get_version)(void) = (const char *(*)(void))dlsym(library, "Py_GetVersion");
    const char *version = get_version != NULL ? get_version() : "of an unknown version";

    if (strncmp(version, OUR_VERSION ".", strlen(OUR_VERSION ".")) != 0 || strstr(version, "free-threading") != NULL)
        return complain("this program has Python %.*s inside, and libkeyfob.so was built for Python " OUR_VERSION
                        ": one process cannot hold both. Install keyfob with that Python and load its libkeyfob.so, "
                        "or run the module in a process of its own: `p11-kit server`, with p11-kit-client.so as the "
                        "module here",
                        (int)strcspn(version, " "), version);
#define LOOK_UP(name) FIND(name)
#define FIND(name)                                                                                                   \
    if ((python.name = (__typeof__(&name))dlsym(library, #name)) == NULL)                                            \
        return complain("the Python in this program does not export " #name);
    PYTHON_FUNCTIONS(LOOK_UP)
    bound = 1;
    return 1;
}

/* Load the library that we were built against, else one of that name from the system's search path. */
static void *load_libpython(void)
{
    void *library = dlopen(KEYFOB_LIBPYTHON, RTLD_NOW | RTLD_GLOBAL);

    if (library == NULL)
        library = dlopen(KEYFOB_LIBPYTHON_NAME, RTLD_NOW | RTLD_GLOBAL);
    if (library == NULL)
        complain("cannot load Python " OUR_VERSION " (neither %s nor %s elsewhere). Install it (Debian, Ubuntu: "
                 "package libpython" OUR_VERSION "; Fedora: python3-libs), or install keyfob again with a Python that "
                 "is there",
                 KEYFOB_LIBPYTHON, KEYFOB_LIBPYTHON_NAME);
    return library;
}

/* ---- Starting an interpreter of our own ------------------------------------------------------------------------- */

static PyStatus append(PyWideStringList *list, const char *path)
{
    wchar_t *decoded = python.Py_DecodeLocale(path, NULL);
    PyStatus status = {0};

    if (decoded == NULL)
        return (PyStatus){._type = _PyStatus_TYPE_ERROR, .err_msg = "cannot decode a path"};
    status = python.PyWideStringList_Append(list, decoded);
    python.PyMem_RawFree(decoded);
    return status;
}

/* UTF-8 whatever the host's locale, which is left alone. */
static PyStatus preinitialise(void)
{
    PyPreConfig preconfig;

    python.PyPreConfig_InitIsolatedConfig(&preconfig);
    preconfig.utf8_mode = 1;
    preconfig.configure_locale = 0;
    preconfig.coerce_c_locale = 0;
    return python.Py_PreInitialize(&preconfig);
}

/*
 * The paths are all given, so Python guesses none, and `site` is not run: no .pth file, no sitecustomize, 4 ms less.
 * The standard library comes first, then the folder that we lie in, then those of the dependencies (editable installs).
 * The host's signal handlers and streams stay as they are.
 */
static PyStatus configure(PyConfig *config, const char *package_folder)
{
    PyStatus status;
    size_t i;

    config->install_signal_handlers = 0;
    config->site_import = 0;
    config->parse_argv = 0;
    config->configure_c_stdio = 0;
    config->pathconfig_warnings = 0;
    config->module_search_paths_set = 1;
    status = python.PyConfig_SetBytesString(config, &config->executable, KEYFOB_PYTHON);
    if (!python.PyStatus_Exception(status))
        status = python.PyConfig_SetBytesString(config, &config->base_executable, KEYFOB_PYTHON);
    if (!python.PyStatus_Exception(status))
        status = python.PyConfig_SetBytesString(config, &config->home, KEYFOB_PYTHON_HOME);
    for (i = 0; !python.PyStatus_Exception(status) && standard_library[i] != NULL; i++)
        status = append(&config->module_search_paths, standard_library[i]);
    if (!python.PyStatus_Exception(status))
        status = append(&config->module_search_paths, package_folder);
    for (i = 0; !python.PyStatus_Exception(status) && site_folders[i] != NULL; i++)
        if (is_trusted(site_folders[i]) && strcmp(site_folders[i], package_folder) != 0)
            status = append(&config->module_search_paths, site_folders[i]);
    return status;
}

/* Start Python. On success this thread holds the GIL. */
static int start_python(const char *package_folder)
{
    const struct allocators allocators = {python.PyMem_GetAllocator, python.PyMem_SetAllocator,
                                          python.PyObject_SetArenaAllocator};
    PyConfig config;
    PyStatus status;

    if (eaccess(standard_library[0], R_OK | X_OK) != 0) /* with the rights of a setuid host, not of its caller */
        return complain("the standard library of Python " OUR_VERSION " is no longer at %s (%s): install keyfob again "
                        "with a Python that is there", standard_library[0], strerror(errno));
    keep_memory_clean(&allocators);
    status = preinitialise();
    if (!python.PyStatus_Exception(status)) {
        python.PyConfig_InitIsolatedConfig(&config);
        status = configure(&config, package_folder);
        if (!python.PyStatus_Exception(status))
            status = python.Py_InitializeFromConfig(&config);
        python.PyConfig_Clear(&config);
    }
    if (python.PyStatus_Exception(status))
        return complain("Python " OUR_VERSION " at %s does not start: %s", KEYFOB_PYTHON_HOME,
                        status.err_msg != NULL ? status.err_msg : "no reason given");
    return 1;
}

/* ---- Importing keyfob ------------------------------------------------------------------------------------------- */

/*
 * Runs with `folders` (where keyfob and its dependencies lie) and leaves `tables` or `reason`. In a Python host the
 * folders go to the end of its sys.path, and only if keyfob or something that it needs is not importable there already.
 * No garbage is collected meanwhile: see Undisturbed in filling.py.
 */
static const char hand_over[] =
    "import gc, sys\n"
    "collecting = gc.isenabled()\n"
    "gc.disable()\n"
    "try:\n"
    "    try:\n"
    "        import keyfob.abi.start\n"
    "    except ModuleNotFoundError:\n"
    "        missing = [folder for folder in folders if folder not in sys.path]\n"
    "        if not missing:\n"
    "            raise\n"
    "        sys.path.extend(missing)\n"
    "        import keyfob.abi.start\n"
    "    tables = keyfob.abi.start.tables()\n"
    "except BaseException as error:\n"
    "    where = [*getattr(sys.modules.get('keyfob'), '__path__', folders)][0]\n"
    "    reason = ' '.join(f'from {where}: {type(error).__name__}: {error}'.split())\n"
    "finally:\n"
    "    if collecting:\n"
    "        gc.enable()\n";

/*
 * Runs in our own interpreter. A child inherits only the thread that forks: a module that another thread is importing
 * would stay locked in it for ever. So a fork waits for imports to end; 2 s at most, for one that itself waits for us.
 */
static const char wait_for_imports[] =
    "import posix, sys, time\n"
    "def importing(locks=sys.modules['_frozen_importlib']._module_locks):\n"
    "    return any(getattr(lock(), 'owner', None) for lock in list(locks.values()))\n"
    "def before_fork(importing=importing, sleep=time.sleep, clock=time.monotonic):\n"
    "    end = clock() + 2\n"
    "    while importing() and clock() < end:\n"
    "        sleep(0.0005)\n"
    "posix.register_at_fork(before=before_fork)\n";

static int run(const char *source, PyObject *names)
{
    PyObject *result = python.PyRun_StringFlags(source, Py_file_input, names, names, NULL);

    if (result == NULL)
        python.PyErr_Clear();
    else
        python.Py_DecRef(result);
    return result != NULL;
}

static int add_folder(PyObject *folders, const char *folder)
{
    PyObject *text = python.PyUnicode_DecodeFSDefault(folder);
    int added = text != NULL && python.PyList_Append(folders, text) == 0;

    if (text != NULL)
        python.Py_DecRef(text);
    return added;
}

static PyObject *folders_to_offer(const char *package_folder)
{
    PyObject *folders = python.PyList_New(0);
    int complete = folders != NULL && add_folder(folders, package_folder);
    size_t i;

    for (i = 0; complete && site_folders[i] != NULL; i++)
        if (is_trusted(site_folders[i]))
            complete = add_folder(folders, site_folders[i]);
    if (complete)
        return folders;
    python.PyErr_Clear();
    return NULL;
}

/* The caller holds the GIL. Out of memory, a few small objects are left behind. */
static int import_keyfob(const char *package_folder, struct tables *tables)
{
    PyObject *names = python.PyDict_New();
    PyObject *folders = folders_to_offer(package_folder);
    PyObject *found;
    struct tables *address = NULL;
    const char *reason = NULL;

    if (names == NULL || folders == NULL || python.PyDict_SetItemString(names, "folders", folders) != 0)
        return complain("not enough memory to import keyfob");
    if (interpreter_is_ours && !run(wait_for_imports, names))
        return complain("Python " OUR_VERSION " does not let keyfob prepare for fork");
    if (run(hand_over, names)) {
        found = python.PyDict_GetItemString(names, "tables");
        if (found != NULL)
            address = python.PyLong_AsVoidPtr(found);
        found = python.PyDict_GetItemString(names, "reason");
        if (found != NULL)
            reason = python.PyUnicode_AsUTF8AndSize(found, NULL);
    }
    if (address != NULL) {
        if (interpreter_is_ours)
            watch_calls(address);
        *tables = *address;
    } else
        complain("cannot import keyfob %s", reason != NULL ? reason : "as its start gave no tables");
    python.PyErr_Clear();
    python.Py_DecRef(folders);
    python.Py_DecRef(names);
    return address != NULL;
}

/* ---- What loader.c calls ---------------------------------------------------------------------------------------- */

int start_keyfob(struct tables *tables)
{
    char package_folder[PATH_MAX];
    PyGILState_STATE gil;
    void *library;
    int imported;

    if (!find_package_folder(package_folder))
        return 0;
    if (!find_python_of_host(&library) && (library = load_libpython()) == NULL)
        return 0;
    if (!bind(library))
        return 0;
    if (python.IS_FINALIZING())
        return complain("the Python of this program has ended: it is too late to start the module");
    if (python.Py_IsInitialized()) {
        gil = python.PyGILState_Ensure();
        imported = import_keyfob(package_folder, tables);
        python.PyGILState_Release(gil);
        return imported;
    }
    if (!start_python(package_folder))
        return 0;
    interpreter_is_ours = 1;
    imported = import_keyfob(package_folder, tables);
    python.PyEval_SaveThread();
    return imported;
}

/* These three may run while another thread is still filling `python`: hence their own look-ups. */
int holds_gil(void)
{
    int (*is_initialized)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "Py_IsInitialized");
    int (*check)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "PyGILState_Check");

    return is_initialized != NULL && check != NULL && is_initialized() && check();
}

void *let_go_of_gil(void)
{
    void *(*save)(void) = (void *(*)(void))dlsym(RTLD_DEFAULT, "PyEval_SaveThread");

    return save != NULL ? save() : NULL;
}

void take_gil_back(void *thread)
{
    void (*restore)(void *) = (void (*)(void *))dlsym(RTLD_DEFAULT, "PyEval_RestoreThread");

    if (thread != NULL && restore != NULL)
        restore(thread);
}

int prepare_python_for_fork(int *gil)
{
    if (!bound || !python.Py_IsInitialized())
        return 0;
    if (!interpreter_is_ours || python.PyGILState_Check()) /* os.fork of a host that is Python itself sees to it all */
        return 0;
    *gil = (int)python.PyGILState_Ensure();
    python.PyOS_BeforeFork();
    return 1;
}

void resume_python_in_parent(int gil)
{
    python.PyOS_AfterFork_Parent();
    python.PyGILState_Release((PyGILState_STATE)gil);
}

/*
 * The GIL is let go of, but the thread state stays with this thread, the only one of the child. CPython 3.11 ends the
 * process when it makes a thread state for an interpreter that has none left (init_threadstate).
 */
void resume_python_in_child(void)
{
    python.PyOS_AfterFork_Child();
    python.PyEval_SaveThread();
}
