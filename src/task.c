/* Asking a task: its callbacks, its cancellation, how it ended, who awaits it. */

#include "task.h"

/* The attribute of a Task of asyncio's own kind, by its descriptor, which is quicker; a new reference, or NULL on error. */
static PyObject *
own_value(PyObject *descriptor, PyObject *task)
{
    return Py_TYPE(descriptor)->tp_descr_get(descriptor, task, (PyObject *)Py_TYPE(task));
}

long
task_cancelling(quattro_state *state, PyObject *task)
{
    PyObject *method;
    int rc = PyObject_GetOptionalAttr(task, state->str_cancelling, &method);
    if (rc <= 0) {
        return rc;
    }
    PyObject *count = PyObject_CallNoArgs(method);
    Py_DECREF(method);
    if (count == NULL) {
        return -1;
    }
    long value = PyLong_AsLong(count);
    Py_DECREF(count);
    return value < 0 && !PyErr_Occurred() ? 0 : value;
}

int
task_error(quattro_state *state, PyObject *task, PyObject **exc, int peek)
{
    int own = Py_IS_TYPE(task, (PyTypeObject *)state->CTask);
    int cancelled = own ? 0 : call_is_true(task, state->str_cancelled);
    *exc = NULL;
    if (cancelled == 0) {
        // None for a cancelled one, too.
        *exc = own ? own_value(state->task__exception, task) : PyObject_CallMethodNoArgs(task, state->str_exception);
    }
    if (own && !peek && *exc != NULL && *exc != Py_None) {
        Py_SETREF(*exc, PyObject_CallMethodNoArgs(task, state->str_exception));
    }
    if (cancelled > 0 || *exc == Py_None) {
        Py_CLEAR(*exc);
        return 0;
    }
    return *exc == NULL ? -1 : 1;
}

int
task_progress(quattro_state *state, PyObject *task)
{
    int rc = call_is_true(task, state->str_done);
    if (rc <= 0) {
        return rc < 0 ? -1 : TASK_RUNS;
    }
    PyObject *exc;
    rc = task_error(state, task, &exc, 1);
    if (rc <= 0) {
        return rc < 0 ? -1 : TASK_ENDED_WELL;
    }
    int failed = PyErr_GivenExceptionMatches(exc, PyExc_Exception);
    Py_DECREF(exc);
    return failed ? TASK_FAILED : TASK_BROKE_OFF;
}

int
add_done_callback(TaskGroup *self, PyObject *task, PyObject *callback)
{
    quattro_state *state = self->state;
    PyObject *args[] = {task, Py_NewRef(callback)};
    lend_sections(task);
    PyObject *result = Py_IS_TYPE(task, (PyTypeObject *)state->CTask)
                       ? PyObject_Vectorcall(state->task_add_done_callback, args, 2, NULL)
                       : PyObject_VectorcallMethod(state->str_add_done_callback, args, 2, NULL);
    Py_DECREF(args[1]);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
take_back_callback(TaskGroup *self, PyObject *task, PyObject *callback)
{
    quattro_state *state = self->state;
    PyObject *list = own_value(state->task__callbacks, task);
    // Pairs of a callback and its context.
    int alone = list != NULL && PyList_CheckExact(list) && PyList_GET_SIZE(list) == 1
                && PyTuple_GET_ITEM(PyList_GET_ITEM(list, 0), 0) == callback;
    Py_XDECREF(list);
    if (!alone) {
        return list == NULL ? -1 : 0;
    }
    PyObject *args[] = {task, callback};
    PyObject *count = PyObject_Vectorcall(state->task_remove_done_callback, args, 2, NULL);
    Py_XDECREF(count);
    return count == NULL ? -1 : 1;
}

int
task_runs(quattro_state *state, PyObject *task)
{
    if (!Py_IS_TYPE(task, (PyTypeObject *)state->CTask)) {
        return 0;
    }
    PyObject *done = PyObject_CallOneArg(state->task_done, task);
    report_unraisable(task);
    Py_XDECREF(done);
    return done == Py_False;
}

/* One of asyncio's two functions, None where this Python has none. */
static inline int
change_awaited_by(PyObject *function, PyObject *task, PyObject *parent)
{
    if (function == Py_None || parent == NULL) {
        return 0;
    }
    PyObject *args[] = {task, Py_NewRef(parent)};
    lend_sections(task);
    PyObject *result = PyObject_Vectorcall(function, args, 2, NULL);
    Py_DECREF(args[1]);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
add_awaited_by(TaskGroup *self, PyObject *task)
{
    return change_awaited_by(self->state->add_awaited_by, task, self->parent);
}

int
discard_awaited_by(TaskGroup *self, PyObject *task)
{
    return change_awaited_by(self->state->discard_awaited_by, task, self->parent);
}
