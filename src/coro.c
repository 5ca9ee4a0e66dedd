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
set_not_a_coroutine(quattro_state *state, PyObject *op)
{
    (void)raise_made(PyObject_CallOneArg(state->not_a_coroutine, op));
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

/* The function behind functools.partial objects; a new reference, or NULL and an error. */
static PyObject *
unwrap_partial(quattro_state *state, PyObject *op)
{
    Py_INCREF(op);
    for (int depth = 0; op != NULL && depth < 16 && Py_IS_TYPE(op, (PyTypeObject *)state->partial); depth++) {
        Py_SETREF(op, PyObject_GetAttr(op, state->str_func));
    }
    return op;
}

void
note_callable(quattro_state *state, PyObject *callable)
{
    PyObject *exc = PyErr_GetRaisedException();
    Py_XDECREF(PyObject_CallFunctionObjArgs(state->note_callable, exc, callable, NULL));
    report_unraisable(callable);
    PyErr_SetRaisedException(exc);
}

int
copy_names(quattro_state *state, PyObject *to, PyObject *op)
{
    PyObject *from = unwrap_partial(state, op);
    if (from == NULL) {
        return -1;
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
