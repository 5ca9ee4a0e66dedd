/* Small helpers around CPython's API. */

#ifndef QUATTRO_PYUTIL_H
#define QUATTRO_PYUTIL_H

#include <Python.h>
#include "compat.h"

/* An error that must not hide the one that is set (or about to be): reported, and dropped. */
static inline void
report_unraisable(PyObject *where)
{
    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable(where);
    }
}

static inline int
is_base_error(PyObject *exc)
{
    return PyErr_GivenExceptionMatches(exc, PyExc_SystemExit)
           || PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt);
}

/* Every one of several calls is made, whichever fails: of one that has (rc < 0), take the error that is set.  The first
   one is kept in *first (the first that leaves the loop, if there is one), others are reported. */
static inline void
collect_error(void *where, PyObject **first, int rc)
{
    if (rc < 0) {
        PyObject *exc = PyErr_GetRaisedException();
        int keep = *first == NULL || (is_base_error(exc) && !is_base_error(*first));
        PyErr_SetRaisedException(keep ? *first : exc);
        *first = keep ? exc : *first;
        report_unraisable((PyObject *)where);
    }
}

/* Raise what collect_error() has kept: -1; or 0. */
static inline int
raise_collected(PyObject *first)
{
    if (first == NULL) {
        return 0;
    }
    PyErr_SetRaisedException(first);
    return -1;
}

/* Is dict[key] this object?  -1 on error. */
static inline int
dict_item_is(PyObject *dict, PyObject *key, PyObject *value)
{
#ifdef Py_GIL_DISABLED
    PyObject *item;
    int rc = PyDict_GetItemRef(dict, key, &item);
    Py_XDECREF(item);
    return rc < 0 ? -1 : item == value;
#else
    PyObject *item = PyDict_GetItemWithError(dict, key);
    return item == NULL && PyErr_Occurred() ? -1 : item == value;
#endif
}

/* The truth of an attribute; 0 where there is none, -1 on error. */
static inline int
attr_is_true(PyObject *op, PyObject *name)
{
    PyObject *value;
    int rc = PyObject_GetOptionalAttr(op, name, &value);
    if (rc <= 0) {
        return rc;
    }
    rc = PyObject_IsTrue(value);
    Py_DECREF(value);
    return rc;
}

/* The truth of what a method without arguments returns, -1 on error. */
static inline int
call_is_true(PyObject *op, PyObject *method)
{
    PyObject *value = PyObject_CallMethodNoArgs(op, method);
    if (value == NULL) {
        return -1;
    }
    int rc = PyObject_IsTrue(value);
    Py_DECREF(value);
    return rc;
}

/* Call a method for its effect. */
static inline int
call_method(PyObject *op, PyObject *method)
{
    PyObject *value = PyObject_CallMethodNoArgs(op, method);
    Py_XDECREF(value);
    return value == NULL ? -1 : 0;
}

/* A function of a module (or what a tool has put in its place), called with one argument or none. */
static inline PyObject *
call_in_module(PyObject *module, PyObject *name, PyObject *arg)
{
    PyObject *function;
    if (PyDict_GetItemRef(PyModule_GetDict(module), name, &function) <= 0) {
        if (!PyErr_Occurred()) {
            PyErr_SetObject(PyExc_AttributeError, name);
        }
        return NULL;
    }
    PyObject *result = arg == NULL ? PyObject_CallNoArgs(function) : PyObject_CallOneArg(function, arg);
    Py_DECREF(function);
    return result;
}

/* Is this the bound method that a C function of our own makes of this object? */
static inline int
is_own_method(PyObject *self, PyObject *method, PyCFunction function)
{
    return PyCFunction_Check(method) && PyCFunction_GET_FUNCTION(method) == function
           && PyCFunction_GET_SELF(method) == self;
}

/* Raise an exception object as `raise` does: with the exception being handled as its context. */
static inline void
raise_exception(PyObject *exc)
{
    PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
}

/* Raise an exception that has just been made; -1.  With NULL, the error is why it could not be. */
static inline int
raise_made(PyObject *exc)
{
    if (exc != NULL) {
        raise_exception(exc);
        Py_DECREF(exc);
    }
    return -1;
}

/* What tp_iternext makes of am_send's answer.  None is a mere NULL: before 3.15 `await` asks tp_iternext, and a
   StopIteration to be made and taken apart costs more than all the rest. */
static inline PyObject *
iternext_result(PySendResult rc, PyObject *result)
{
    if (rc != PYGEN_RETURN) {
        return result;
    }
    if (result != Py_None) {
        // Not by PyErr_SetObject(), which would take a tuple for the arguments.
        PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
        if (stop != NULL) {
            PyErr_SetRaisedException(stop);
        }
    }
    Py_DECREF(result);
    return NULL;
}

/* The same for send() and throw(). */
static inline PyObject *
send_result(PySendResult rc, PyObject *result)
{
    result = iternext_result(rc, result);
    if (result == NULL && !PyErr_Occurred()) {
        PyErr_SetNone(PyExc_StopIteration);
    }
    return result;
}

#endif
