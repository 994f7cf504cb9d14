/* keyfob.mechanisms._rsa: rsa_power.c for Python. Numbers are big-endian bytes; the GIL is let go of meanwhile. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "rsa_power.h"

static Number number_of(const Py_buffer *buffer)
{
    return (Number){buffer->buf, (size_t)buffer->len};
}

/* The result, None where there is none (POWER_WRONG), or MemoryError. */
static PyObject *answer(PyObject *result, int outcome)
{
    if (outcome == POWER_OK)
        return result;
    Py_DECREF(result);
    if (outcome == POWER_NO_MEMORY)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *rsa_public_power(PyObject *module, PyObject *arguments)
{
    Py_buffer value, modulus, exponent;
    PyObject *result;
    int outcome = POWER_WRONG;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*y*y*", &value, &modulus, &exponent))
        return NULL;
    result = PyBytes_FromStringAndSize(NULL, modulus.len);
    if (result != NULL) {
        Number of_value = number_of(&value), of_modulus = number_of(&modulus), of_exponent = number_of(&exponent);
        unsigned char *bytes = (unsigned char *)PyBytes_AS_STRING(result);

        Py_BEGIN_ALLOW_THREADS
        outcome = public_power(bytes, &of_value, &of_modulus, &of_exponent);
        Py_END_ALLOW_THREADS
        result = answer(result, outcome);
    }
    PyBuffer_Release(&value);
    PyBuffer_Release(&modulus);
    PyBuffer_Release(&exponent);
    return result;
}

static PyObject *rsa_private_power(PyObject *module, PyObject *arguments)
{
    Py_buffer value, part[8];
    PyObject *result;
    int outcome = POWER_WRONG;
    size_t i;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*(y*y*y*y*y*y*y*)y*", &value, &part[0], &part[1], &part[2], &part[3], &part[4],
                          &part[5], &part[6], &part[7]))
        return NULL;
    result = PyBytes_FromStringAndSize(NULL, part[0].len);
    if (result != NULL) {
        Number of_value = number_of(&value);
        PrivateKey key = {number_of(&part[0]), number_of(&part[1]), number_of(&part[2]), number_of(&part[3]),
                          number_of(&part[4]), number_of(&part[5]), number_of(&part[6]), number_of(&part[7])};
        unsigned char *bytes = (unsigned char *)PyBytes_AS_STRING(result);

        Py_BEGIN_ALLOW_THREADS
        outcome = private_power(bytes, &of_value, &key);
        Py_END_ALLOW_THREADS
        result = answer(result, outcome);
    }
    PyBuffer_Release(&value);
    for (i = 0; i < sizeof part / sizeof part[0]; i++)
        PyBuffer_Release(&part[i]);
    return result;
}

static PyMethodDef functions[] = {
    {"public_power", rsa_public_power, METH_VARARGS,
     "public_power(value, modulus, exponent): value ** exponent mod modulus; None for a modulus that is none."},
    {"private_power", rsa_private_power, METH_VARARGS,
     "private_power(value, (n, e, p, q, dp, dq, qinv), random): value ** d mod n; None where the check failed."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_rsa",
    .m_doc = "RSA's modular powers in constant time.",
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__rsa(void)
{
    return PyModuleDef_Init(&definition);
}
