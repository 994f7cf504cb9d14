/*
 * Hosts for test_loader.py: `loader_host SCENARIO MODULE [MORE]`. Each scenario prints what it saw; a hang ends in SIGALRM.
 * Only the three exported functions are called, and C_Initialize, C_Finalize and C_GetInfo of the real module's list.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct function_list {
    unsigned char version[2];
    unsigned long (*initialize)(void *arguments);
    unsigned long (*finalize)(void *reserved);
    unsigned long (*get_info)(void *info);
};

extern char **environ;
static const char *module;
static unsigned long (*get_function_list)(struct function_list **list);
static unsigned long (*get_interface_list)(void *interfaces, unsigned long *count);
static unsigned long (*get_interface)(unsigned char *name, void *version, void **interface, unsigned long flags);
static struct function_list *list;

static void *symbol(void *library, const char *name)
{
    void *found = library != NULL ? dlsym(library, name) : NULL;

    if (found == NULL) {
        fprintf(stderr, "loader_host: %s\n", dlerror());
        exit(2);
    }
    return found;
}

static void *open_module(void)
{
    void *library = dlopen(module, RTLD_NOW);

    *(void **)&get_function_list = symbol(library, "C_GetFunctionList");
    *(void **)&get_interface_list = symbol(library, "C_GetInterfaceList");
    *(void **)&get_interface = symbol(library, "C_GetInterface");
    return library;
}

static unsigned long first_call(void)
{
    return get_function_list(&list);
}

/* For scenarios that call through the list. */
static void open_and_initialize(void)
{
    open_module();
    if (first_call() != 0)
        exit(3);
    printf("initialize %lu\n", list->initialize(NULL));
}

/* Every exported function, twice. */
static void calls(void)
{
    unsigned long count = 0;
    void *interface = NULL;
    int round;

    open_module();
    for (round = 0; round < 2; round++) {
        printf("C_GetFunctionList %lu\n", first_call());
        printf("C_GetInterfaceList %lu\n", get_interface_list(NULL, &count));
        printf("C_GetInterface %lu\n", get_interface(NULL, NULL, &interface, 0));
    }
}

/* What a host may have set up for itself: prints each thing that the module changed. */
static void differences(void)
{
    static char environment[2][1 << 16];
    char locale[2][512];
    struct sigaction action[2][65];
    sigset_t mask[2];
    size_t buffered[2], size[2];
    int moment, number;

    printf("not flushed yet ");
    for (moment = 0; moment < 2; moment++) {
        char **entry;

        snprintf(locale[moment], sizeof locale[0], "%s", setlocale(LC_ALL, NULL));
        for (entry = environ; *entry != NULL; entry++)
            strncat(environment[moment], *entry, sizeof environment[0] - strlen(environment[moment]) - 1);
        for (number = 1; number < 65; number++)
            sigaction(number, NULL, &action[moment][number]);
        sigprocmask(SIG_BLOCK, NULL, &mask[moment]);
        buffered[moment] = __fpending(stdout);
        size[moment] = __fbufsize(stdout) + (size_t)__flbf(stdin) * 7 + (size_t)__flbf(stderr) * 3;
        if (moment == 0) {
            open_module();
            if (first_call() != 0)
                puts("the start failed");
        }
    }
    if (strcmp(locale[0], locale[1]) != 0)
        printf("locale %s became %s\n", locale[0], locale[1]);
    if (strcmp(environment[0], environment[1]) != 0)
        puts("the environment changed");
    for (number = 1; number < 65; number++)
        if (action[0][number].sa_handler != action[1][number].sa_handler
            || action[0][number].sa_flags != action[1][number].sa_flags)
            printf("signal %d changed\n", number);
    if (memcmp(&mask[0], &mask[1], sizeof mask[0]) != 0)
        puts("the signal mask changed");
    if (buffered[0] != buffered[1] || size[0] != size[1])
        puts("the buffers of the streams changed");
    puts("compared");
}

static pthread_barrier_t together;

static void *call_with_others(void *rv)
{
    struct function_list *mine = NULL;

    pthread_barrier_wait(&together);
    *(unsigned long *)rv = get_function_list(&mine);
    return mine;
}

/* Eight first calls at once, then one from a thread made later: all must answer the same list. */
static void threads(void)
{
    pthread_t thread[9];
    unsigned long rv[9];
    void *found[9];
    int i;

    open_module();
    pthread_barrier_init(&together, NULL, 8);
    for (i = 0; i < 8; i++)
        pthread_create(&thread[i], NULL, call_with_others, &rv[i]);
    for (i = 0; i < 8; i++)
        pthread_join(thread[i], &found[i]);
    pthread_barrier_init(&together, NULL, 1);
    pthread_create(&thread[8], NULL, call_with_others, &rv[8]);
    pthread_join(thread[8], &found[8]);
    for (i = 0; i < 9; i++)
        printf("%lu %s\n", rv[i], found[i] == found[0] && found[0] != NULL ? "same" : "different");
}

/* dlclose leaves the module in place, so that opening it again needs no second start. */
static void reopened(void)
{
    struct function_list *before;
    int round;

    for (round = 0; round < 3; round++) {
        void *library = open_module();

        before = list;
        printf("%lu %s\n", first_call(), round == 0 || list == before ? "same" : "different");
        dlclose(library);
    }
    printf("%lu\n", first_call());
}

static void finalize_at_exit(void)
{
    if (list == NULL)
        return;
    printf("finalize %lu\n", list->finalize(NULL));
    fflush(stdout);
}

__attribute__((destructor)) static void finalize_in_destructor(void)
{
    if (getenv("FINALIZE_IN_DESTRUCTOR") != NULL)
        finalize_at_exit();
}

/* C_Finalize from exit handlers that were there before the module and after it, and from a destructor. */
static void finalized_at_exit(void)
{
    atexit(finalize_at_exit);
    setenv("FINALIZE_IN_DESTRUCTOR", "1", 1);
    open_and_initialize();
    atexit(finalize_at_exit);
}

static void *call_once(void *ignored)
{
    (void)ignored;
    first_call();
    return NULL;
}

static void *list_interfaces(void *ignored)
{
    unsigned long count = 0;

    (void)ignored;
    get_interface_list(NULL, &count);
    return NULL;
}

/* Fork, make the child call, and print what it answered. */
static void fork_and_call(const char *who, unsigned long (*call)(void))
{
    int status;
    pid_t child;

    fflush(stdout);
    child = fork();
    if (child == 0) {
        alarm(10);
        _exit((int)call());
    }
    waitpid(child, &status, 0);
    printf(WIFEXITED(status) ? "%s %d\n" : "%s killed by signal %d\n", who,
           WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}

static unsigned long count_interfaces(void)
{
    unsigned long count = 0;

    return get_interface_list(NULL, &count);
}

/* A fork while another thread makes the first call, which takes long. */
static void forked_while_starting(void)
{
    pthread_t starter;

    open_module();
    pthread_create(&starter, NULL, call_once, NULL);
    usleep(100000);
    fork_and_call("child", first_call);
    pthread_join(starter, NULL);
    printf("parent %lu\n", first_call());
}

/* A fork while another thread is inside a call that imports a module slowly; the child makes the same call. */
static void forked_while_importing(void)
{
    pthread_t importer;

    open_module();
    first_call();
    pthread_create(&importer, NULL, list_interfaces, NULL);
    usleep(100000);
    fork_and_call("child", count_interfaces);
    pthread_join(importer, NULL);
    printf("parent %lu\n", count_interfaces());
}

static int finished;

static void *keep_asking(void *ignored)
{
    char info[128];

    while (!__atomic_load_n(&finished, __ATOMIC_ACQUIRE))
        list->get_info(info);
    return ignored;
}

/* C_Initialize, use and C_Finalize in a child: the answers must be 0; C_GetInfo before C_Initialize must be refused. */
static unsigned long use_in_child(void)
{
    char info[128];
    int i;

    if (list->get_info(info) != 0x190) /* CKR_CRYPTOKI_NOT_INITIALIZED */
        return 101;
    if (list->initialize(NULL) != 0)
        return 102;
    for (i = 0; i < 20; i++)
        if (list->get_info(info) != 0)
            return 103;
    return list->finalize(NULL);
}

/* Forks while two threads work in the module. */
static void forked_at_work(void)
{
    pthread_t worker[2];
    int i;

    open_and_initialize();
    for (i = 0; i < 2; i++)
        pthread_create(&worker[i], NULL, keep_asking, NULL);
    for (i = 0; i < 30; i++)
        fork_and_call("child", use_in_child);
    __atomic_store_n(&finished, 1, __ATOMIC_RELEASE);
    for (i = 0; i < 2; i++)
        pthread_join(worker[i], NULL);
    printf("finalize %lu\n", list->finalize(NULL));
}

/* A host that brings its own libpython, known to itself only, and runs it or not; it holds the GIL when it calls. */
static void with_python(const char *libpython, int started)
{
    void *library = dlopen(libpython, RTLD_NOW | RTLD_LOCAL);
    void (*initialize)(int) = (void (*)(int))symbol(library, "Py_InitializeEx");
    int (*is_initialized)(void) = (int (*)(void))symbol(library, "Py_IsInitialized");

    if (started)
        initialize(0);
    open_module();
    printf("%lu\n", first_call());
    printf("initialized %d\n", is_initialized());
}

int main(int count, char **arguments)
{
    const char *scenario = count > 2 ? arguments[1] : "";

    alarm(30);
    module = arguments[count > 2 ? 2 : 0];
    if (getenv("HOST_SETS_LOCALE") != NULL)
        setlocale(LC_ALL, "");
    if (strcmp(scenario, "calls") == 0)
        calls();
    else if (strcmp(scenario, "differences") == 0)
        differences();
    else if (strcmp(scenario, "threads") == 0)
        threads();
    else if (strcmp(scenario, "reopened") == 0)
        reopened();
    else if (strcmp(scenario, "finalized-at-exit") == 0)
        finalized_at_exit();
    else if (strcmp(scenario, "forked-while-starting") == 0)
        forked_while_starting();
    else if (strcmp(scenario, "forked-while-importing") == 0)
        forked_while_importing();
    else if (strcmp(scenario, "forked-at-work") == 0)
        forked_at_work();
    else if (strcmp(scenario, "with-python") == 0 && count > 3)
        with_python(arguments[3], 1);
    else if (strcmp(scenario, "with-idle-python") == 0 && count > 3)
        with_python(arguments[3], 0);
    else
        return 2;
    return 0;
}
