/*
 * What belongs to the whole process or to the calling thread, and what libraries change when they are loaded: noted
 * before, put back after. gmpy2, for one, replaces the handler of SIGFPE, and a JVM dies at its next division by zero.
 *
 * Included by loader.c (around the start) and by keyfob._abi (around each extension module that a call loads, see
 * imports.py). What other threads of the host change in that moment is taken for the library's doing: loading takes
 * milliseconds, once. What cannot be put back is not here: exit handlers, threads and descriptors; a test looks at them.
 */
#ifndef KEYFOB_PROCESS_H
#define KEYFOB_PROCESS_H

#include <errno.h>
#include <fcntl.h>
#include <fenv.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROCESS_SIGNALS 65 /* Linux has signals 1 to 64 */

extern char **environ;

struct process {
    int known[PROCESS_SIGNALS];
    struct sigaction actions[PROCESS_SIGNALS];
    sigset_t mask;
    stack_t stack;
    fenv_t floating;
    int has_mask, has_stack, has_floating;
    int umask; /* -1: unknown */
    char *locale;
    locale_t thread_locale;
    char **environment;
};

/* umask() itself cannot ask without changing it, which another thread may notice. */
static int process_umask(void)
{
    char text[512], *line;
    int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t length = file >= 0 ? read(file, text, sizeof text - 1) : -1;

    if (file >= 0)
        close(file);
    if (length < 0)
        return -1;
    text[length] = '\0';
    line = strstr(text, "\nUmask:");
    return line != NULL ? (int)strtol(line + strlen("\nUmask:"), NULL, 8) : -1;
}

/*
 * The first bytes of a text, for free(). strdup and its like allocate inside the C library, perhaps through another
 * allocator than the one that our free is bound to (LD_PRELOAD, RTLD_DEEPBIND).
 */
static char *process_copy(const char *text, size_t length)
{
    char *copy = malloc(length + 1);

    if (copy != NULL) {
        memcpy(copy, text, length);
        copy[length] = '\0';
    }
    return copy;
}

static void process_free_environment(char **environment)
{
    size_t i;

    for (i = 0; environment != NULL && environment[i] != NULL; i++)
        free(environment[i]);
    free(environment);
}

/* A copy of the environment; NULL where there is no memory or no environment. */
static char **process_environment(void)
{
    char **copy;
    size_t count = 0, i;

    if (environ == NULL)
        return NULL;
    while (environ[count] != NULL)
        count++;
    copy = calloc(count + 1, sizeof *copy);
    for (i = 0; copy != NULL && i < count; i++)
        if ((copy[i] = process_copy(environ[i], strlen(environ[i]))) == NULL) {
            process_free_environment(copy);
            return NULL;
        }
    return copy;
}

/* NULL without memory: then nothing is put back. */
static struct process *process_note(void)
{
    struct process *noted = calloc(1, sizeof *noted);
    const char *locale = setlocale(LC_ALL, NULL);
    int number, error = errno;

    if (noted == NULL)
        return NULL;
    for (number = 1; number < PROCESS_SIGNALS; number++)
        noted->known[number] = sigaction(number, NULL, &noted->actions[number]) == 0;
    noted->has_mask = pthread_sigmask(SIG_SETMASK, NULL, &noted->mask) == 0;
    noted->has_stack = sigaltstack(NULL, &noted->stack) == 0;
    noted->has_floating = fegetenv(&noted->floating) == 0;
    noted->umask = process_umask();
    noted->locale = locale != NULL ? process_copy(locale, strlen(locale)) : NULL;
    noted->thread_locale = uselocale((locale_t)0);
    noted->environment = process_environment();
    errno = error;
    return noted;
}

/* The length of the name in NAME=VALUE, with the sign. */
static size_t process_name_length(const char *variable)
{
    const char *sign = strchr(variable, '=');

    return sign != NULL ? (size_t)(sign - variable) + 1 : strlen(variable);
}

static const char *process_variable(char **environment, const char *like)
{
    size_t length = process_name_length(like), i;

    for (i = 0; environment[i] != NULL; i++)
        if (strncmp(environment[i], like, length) == 0)
            return environment[i];
    return NULL;
}

static void process_put_back_environment(char **noted)
{
    char **now = process_environment(), *name;
    const char *other;
    size_t i, length;

    for (i = 0; now != NULL && now[i] != NULL; i++) /* new or changed */
        if ((other = process_variable(noted, now[i])) == NULL || strcmp(other, now[i]) != 0) {
            length = process_name_length(now[i]);
            if ((name = process_copy(now[i], length - 1)) == NULL)
                continue;
            if (other == NULL)
                unsetenv(name);
            else
                setenv(name, other + length, 1);
            free(name);
        }
    for (i = 0; now != NULL && noted[i] != NULL; i++) /* gone */
        if (process_variable(now, noted[i]) == NULL && strchr(noted[i], '=') != NULL) {
            length = process_name_length(noted[i]);
            if ((name = process_copy(noted[i], length - 1)) == NULL)
                continue;
            setenv(name, noted[i] + length, 1);
            free(name);
        }
    process_free_environment(now);
}

static int process_same_action(const struct sigaction *one, const struct sigaction *other)
{
    return one->sa_handler == other->sa_handler && one->sa_flags == other->sa_flags &&
           memcmp(&one->sa_mask, &other->sa_mask, PROCESS_SIGNALS / 8) == 0; /* the kernel fills no more */
}

static int process_same_stack(const stack_t *one, const stack_t *other)
{
    return (one->ss_flags & SS_DISABLE) == (other->ss_flags & SS_DISABLE) &&
           ((one->ss_flags & SS_DISABLE) || (one->ss_sp == other->ss_sp && one->ss_size == other->ss_size));
}

/* Puts back what has changed, and nothing else; the note is used up. */
static void process_put_back(struct process *noted)
{
    struct sigaction action;
    stack_t stack;
    const char *locale;
    int number, error = errno;

    if (noted == NULL)
        return;
    for (number = 1; number < PROCESS_SIGNALS; number++)
        if (noted->known[number] && sigaction(number, NULL, &action) == 0 &&
            !process_same_action(&noted->actions[number], &action))
            sigaction(number, &noted->actions[number], NULL);
    if (noted->has_mask)
        pthread_sigmask(SIG_SETMASK, &noted->mask, NULL);
    if (noted->has_stack && sigaltstack(NULL, &stack) == 0 && !process_same_stack(&noted->stack, &stack)) {
        noted->stack.ss_flags &= SS_DISABLE; /* SS_ONSTACK tells, and is not taken */
        sigaltstack(&noted->stack, NULL);
    }
    if (noted->has_floating)
        fesetenv(&noted->floating);
    if (noted->umask >= 0 && noted->umask != process_umask())
        umask((mode_t)noted->umask);
    if (noted->thread_locale != (locale_t)0 && uselocale((locale_t)0) != noted->thread_locale)
        uselocale(noted->thread_locale);
    locale = setlocale(LC_ALL, NULL);
    if (noted->locale != NULL && locale != NULL && strcmp(noted->locale, locale) != 0)
        setlocale(LC_ALL, noted->locale);
    if (noted->environment != NULL)
        process_put_back_environment(noted->environment);
    process_free_environment(noted->environment);
    free(noted->locale);
    free(noted);
    errno = error;
}

#endif
