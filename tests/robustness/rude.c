/* An extension module that does to its process, when it is loaded, what real ones do and what they could do. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <fenv.h>
#include <locale.h>
#include <signal.h>
#include <sys/stat.h>

static char stack[65536];

static void handler(int number) { (void)number; }

PyMODINIT_FUNC PyInit_rude(void)
{
    static struct PyModuleDef definition = {.m_base = PyModuleDef_HEAD_INIT, .m_name = "rude"};
    stack_t other = {.ss_sp = stack, .ss_size = sizeof stack};
    sigset_t blocked;

    signal(SIGFPE, handler);
    signal(SIGUSR1, SIG_IGN);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGWINCH);
    pthread_sigmask(SIG_BLOCK, &blocked, NULL);
    sigaltstack(&other, NULL);
    umask(0);
    setlocale(LC_ALL, "C.UTF-8");
    setenv("RUDE", "1", 1);
    setenv("KEPT", "2", 1);
    unsetenv("GONE");
    fesetround(FE_DOWNWARD);
    return PyModule_Create(&definition);
}
