/* Coroutines: is it one, has it run, close it, and its names. */

#include "coro.h"
#include "pyutil.h"

int
is_coroutine(quattro_state *state, PyObject *op)
{
    if (PyCoro_CheckExact(op)) {
        return 1;
    }
    if (PyFunction_Check(op) || PyMethod_Check(op) || PyCFunction_Check(op)) {
        return 0;
    }
    return PyObject_IsInstance(op, state->Coroutine);
}

void
set_not_a_coroutine(PyObject *op)
{
    PyErr_Format(PyExc_TypeError, "a coroutine was expected, got %R", op);
}

void
close_coroutine(quattro_state *state, PyObject *coro)
{
    PyObject *exc = PyErr_GetRaisedException();
    int rc = is_coroutine(state, coro);
    if (rc > 0) {
        rc = call_method(coro, state->str_close);
    }
    if (rc < 0) {
        report_unraisable(coro);
    }
    PyErr_SetRaisedException(exc);
}

int
coroutine_has_started(quattro_state *state, PyObject *coro)
{
    int rc = attr_is_true(coro, state->str_cr_running);
    PyObject *value;
    if (rc == 0 && (rc = PyObject_GetOptionalAttr(coro, state->str_cr_await, &value)) > 0) {
        rc = value != Py_None;          // suspended
        Py_DECREF(value);
    }
    if (rc == 0 && (rc = PyObject_GetOptionalAttr(coro, state->str_cr_frame, &value)) > 0) {
        rc = value == Py_None;          // finished
        Py_DECREF(value);
    }
    return rc;
}

void
close_unstarted(quattro_state *state, PyObject *coro)
{
    PyObject *exc = PyErr_GetRaisedException();
    int started = coroutine_has_started(state, coro);
    if (started < 0) {
        report_unraisable(coro);
    }
    if (started <= 0) {
        close_coroutine(state, coro);
    }
    PyErr_SetRaisedException(exc);
}

int
copy_names(quattro_state *state, PyObject *to, PyObject *from)
{
    Py_INCREF(from);
    for (int depth = 0; depth < 16 && Py_IS_TYPE(from, (PyTypeObject *)state->partial); depth++) {
        PyObject *func = PyObject_GetAttr(from, state->str_func);
        Py_DECREF(from);
        if (func == NULL) {
            return -1;
        }
        from = func;
    }
    PyObject *names[] = {state->str___name__, state->str___qualname__};
    PyObject *descriptors[] = {state->coroutine_name, state->coroutine_qualname};
    for (int i = 0; i < 2; i++) {
        PyObject *value, *own = descriptors[i];
        int rc;
        if (PyCoro_CheckExact(from)) {
            value = Py_TYPE(own)->tp_descr_get(own, from, (PyObject *)&PyCoro_Type);
            rc = value == NULL ? -1 : 1;
        }
        else {
            rc = PyObject_GetOptionalAttr(from, names[i], &value);
        }
        if (rc > 0 && PyUnicode_Check(value)) {
            rc = Py_TYPE(own)->tp_descr_set(own, to, value);
        }
        Py_XDECREF(value);
        if (rc < 0) {
            Py_DECREF(from);
            return -1;
        }
    }
    Py_DECREF(from);
    return 0;
}
