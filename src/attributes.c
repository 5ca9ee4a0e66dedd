/* What a group shows: its options, and asyncio's private names, because code in the wild uses them. */

#include "attributes.h"
#include "pyutil.h"

PyObject *
TaskGroup_get_concurrency_limit(PyObject *op, void *Py_UNUSED(closure))
{
    Py_ssize_t limit;
    BEGIN_SECTION(op);
    limit = GROUP(op)->limit;
    END_SECTION();
    return limit == 0 ? Py_NewRef(Py_None) : PyLong_FromSsize_t(limit);
}

/* Frozen, so that whoever adds a task to it in the hope of asyncio's set (CPython issue 111838) hears that it can't. */
static PyObject *
TaskGroup_get_tasks(PyObject *op, void *Py_UNUSED(closure))
{
    TaskGroup *self = GROUP(op);
    // __hash__ of a task may be anybody's: first the references, then the set.
    PyObject *list = PyList_New(0);
    int rc = list == NULL ? -1 : 0;
    BEGIN_SECTION(op);
    for (size_t i = self->tasks.begin; rc == 0 && i < self->tasks.end; i++) {
        if (self->tasks.entries[i] != 0) {
            rc = PyList_Append(list, ENTRY_TASK(self->tasks.entries[i]));
        }
    }
    END_SECTION();
    PyObject *result = rc < 0 ? NULL : PyFrozenSet_New(list);
    Py_XDECREF(list);
    return result;
}

static PyObject *
TaskGroup_get_errors(PyObject *op, void *Py_UNUSED(closure))
{
    TaskGroup *self = GROUP(op);
    PyObject *result;
    BEGIN_SECTION(op);
    if (self->errors == NULL && !self->finished) {
        self->errors = PyList_New(0);
    }
    result = self->finished ? Py_NewRef(Py_None) : Py_XNewRef(self->errors);
    END_SECTION();
    return result;
}

/* An object, None where it is not set. */
static PyObject *
TaskGroup_get_object(PyObject *op, void *offset)
{
    PyObject *result;
    BEGIN_SECTION(op);
    PyObject *value = *(PyObject **)((char *)op + (size_t)offset);
    result = Py_NewRef(value == NULL ? Py_None : value);
    END_SECTION();
    return result;
}

static PyObject *
TaskGroup_get_flag(PyObject *op, void *offset)
{
    int value;
    BEGIN_SECTION(op);
    value = *((char *)op + (size_t)offset);
    END_SECTION();
    return PyBool_FromLong(value);
}

/* Subclasses set it, in __init__() mostly, so that an error of a task neither aborts the group nor cancels the body. */
static int
TaskGroup_set_parent_cancel_requested(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    int truth = value == NULL ? 0 : PyObject_IsTrue(value);
    if (truth < 0) {
        return -1;
    }
    BEGIN_SECTION(op);
    GROUP(op)->parent_cancel_requested = truth != 0;
    END_SECTION();
    return 0;
}

PyGetSetDef TaskGroup_getset[] = {
    {"concurrency_limit", TaskGroup_get_concurrency_limit, NULL,
     PyDoc_STR("How many foreground tasks may run at once, an int; None without a limit."), NULL},
    {"cancel_on_error", TaskGroup_get_flag, NULL,
     PyDoc_STR("Whether the error of a foreground task cancels the others and the body, a bool."),
     (void *)offsetof(TaskGroup, cancel_on_error)},
    {"_tasks", TaskGroup_get_tasks, NULL, NULL, NULL},
    {"_errors", TaskGroup_get_errors, NULL, NULL, NULL},
    {"_loop", TaskGroup_get_object, NULL, NULL, (void *)offsetof(TaskGroup, loop)},
    {"_parent_task", TaskGroup_get_object, NULL, NULL, (void *)offsetof(TaskGroup, parent)},
    {"_base_error", TaskGroup_get_object, NULL, NULL, (void *)offsetof(TaskGroup, base_error)},
    {"_on_completed_fut", TaskGroup_get_object, NULL, NULL, (void *)offsetof(TaskGroup, waiter)},
    {"_entered", TaskGroup_get_flag, NULL, NULL, (void *)offsetof(TaskGroup, entered)},
    {"_exiting", TaskGroup_get_flag, NULL, NULL, (void *)offsetof(TaskGroup, exiting)},
    {"_aborting", TaskGroup_get_flag, NULL, NULL, (void *)offsetof(TaskGroup, aborting)},
    {"_parent_cancel_requested", TaskGroup_get_flag, TaskGroup_set_parent_cancel_requested, NULL,
     (void *)offsetof(TaskGroup, parent_cancel_requested)},
    {"_cancel_on_enter", TaskGroup_get_flag, NULL, NULL, (void *)offsetof(TaskGroup, cancel_on_enter)},
    {NULL, NULL, NULL, NULL, NULL},
};
