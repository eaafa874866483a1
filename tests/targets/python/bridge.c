/* An extension module whose functions call each other and Python, and know at any time who has called
 * whom: the frames of Python, as it counts them itself, and between them their own.
 *
 * keep(size): allocates, and calls the function given to set_trace() with the size and the frames.
 * descend(depth, callable, *arguments): calls itself `depth` times, then `callable`.
 * apply(callable, *arguments): calls `callable`, by another path.
 * frames(): the functions that run, each with how many Python frames lie outside of it.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>

#define FRAME __attribute__((noipa))
#define MAX_DEPTH 1024

/* A function of this module that runs in this thread, and how many Python frames lie outside of it. */
struct entered {
    const char *name;
    long outside;
};
static __thread struct entered entered[MAX_DEPTH];
static __thread int depth;

static FRAME long python_depth(void)
{
    PyObject *frame = (PyObject *)PyEval_GetFrame();
    long count = 0;
    Py_XINCREF(frame);
    while (frame != NULL && frame != Py_None) {
        PyObject *back = PyObject_GetAttrString(frame, "f_back");
        Py_DECREF(frame);
        frame = back;
        count++;
    }
    Py_XDECREF(frame);
    return count;
}

static void enter(const char *name, long outside)
{
    if (depth == MAX_DEPTH)
        abort();
    entered[depth++] = (struct entered){name, outside};
}

static PyObject *frames(PyObject *self, PyObject *none)
{
    PyObject *list = PyList_New(depth);
    for (int i = 0; list != NULL && i < depth; i++)
        PyList_SET_ITEM(list, i, Py_BuildValue("(ls)", entered[i].outside, entered[i].name));
    return list;
}

static FRAME void *allocate(size_t size, long outside)
{
    enter("allocate", outside);
    void *block = malloc(size);
    memset(block, 1, size);
    return block;
}

static PyObject *trace;

static PyObject *set_trace(PyObject *self, PyObject *function)
{
    Py_INCREF(function);
    trace = function;
    Py_RETURN_NONE;
}

static FRAME PyObject *keep(PyObject *self, PyObject *arguments)
{
    Py_ssize_t size;
    if (!PyArg_ParseTuple(arguments, "n", &size))
        return NULL;
    long outside = python_depth();
    enter("keep", outside);
    allocate(size, outside);
    PyObject *list = frames(NULL, NULL);
    depth -= 2;
    return list == NULL ? NULL : PyObject_CallFunction(trace, "nN", size, list);
}

static FRAME PyObject *call(PyObject *callable, PyObject *arguments, long outside)
{
    enter("call", outside);
    PyObject *result = PyObject_CallObject(callable, arguments);
    depth--;
    return result;
}

static FRAME PyObject *step(int levels, PyObject *callable, PyObject *arguments, long outside)
{
    enter("step", outside);
    PyObject *result = levels > 1 ? step(levels - 1, callable, arguments, outside)
                                  : call(callable, arguments, outside);
    depth--;
    return result;
}

static FRAME PyObject *descend(PyObject *self, PyObject *arguments)
{
    long outside = python_depth();
    enter("descend", outside);
    Py_ssize_t count = PyTuple_GET_SIZE(arguments);
    PyObject *rest = PyTuple_GetSlice(arguments, 2, count), *result = NULL;
    if (rest != NULL && count >= 2)
        result = step((int)PyLong_AsLong(PyTuple_GET_ITEM(arguments, 0)),
                      PyTuple_GET_ITEM(arguments, 1), rest, outside);
    Py_XDECREF(rest);
    depth--;
    return result;
}

static FRAME PyObject *apply(PyObject *self, PyObject *arguments)
{
    long outside = python_depth();
    enter("apply", outside);
    Py_ssize_t count = PyTuple_GET_SIZE(arguments);
    PyObject *rest = PyTuple_GetSlice(arguments, 1, count), *result = NULL;
    if (rest != NULL && count >= 1)
        result = PyObject_CallObject(PyTuple_GET_ITEM(arguments, 0), rest);
    Py_XDECREF(rest);
    depth--;
    return result;
}

static PyMethodDef methods[] = {
    {"frames", frames, METH_NOARGS, NULL},
    {"set_trace", set_trace, METH_O, NULL},
    {"keep", keep, METH_VARARGS, NULL},
    {"descend", descend, METH_VARARGS, NULL},
    {"apply", apply, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "bridge", NULL, -1, methods, NULL, NULL,
                                    NULL, NULL};

PyMODINIT_FUNC PyInit_bridge(void)
{
    return PyModule_Create(&module);
}
