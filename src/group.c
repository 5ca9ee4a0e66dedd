/* The type TaskGroup: its methods, what it shows, its memory; and the functions that stand for three of its methods. */

#include "create.h"
#include "ending.h"
#include "group.h"
#include "loops.h"

static PyObject *
TaskGroup_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    PyObject *module = PyType_GetModuleByDef(type, &quattro_module);
    if (module == NULL) {
        return NULL;
    }
    TaskGroup *self = (TaskGroup *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->state = get_state(module);
        Link_init_head(&self->queue);
        Link_init_head(&self->granted);
        Link_init_head(&self->cancelled);
        Link_init_head(&self->waiters);
        self->cancel_on_error = 1;
    }
    return (PyObject *)self;
}

/* None, or anything with __index__ from 1 on, where a huge one is as good as PY_SSIZE_T_MAX. */
static int
parse_limit(quattro_state *state, PyObject *value, Py_ssize_t *limit)
{
    if (value == Py_None) {
        return 0;
    }
    if (!PyIndex_Check(value)) {
        PyErr_Format(PyExc_TypeError, "concurrency_limit must be an int or None, not %.100s", Py_TYPE(value)->tp_name);
        return -1;
    }
    *limit = PyNumber_AsSsize_t(value, NULL);   // clamps
    if (*limit < 1 && !PyErr_Occurred()) {
        (void)raise_made(PyObject_CallNoArgs(state->low_limit));
    }
    return *limit < 1 ? -1 : 0;
}

static int
TaskGroup_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    TaskGroup *self = GROUP(op);
    PyObject *value = Py_None;
    Py_ssize_t limit = 0;
    int cancel_on_error = 1;
    if (PyTuple_GET_SIZE(args) != 0) {
        PyErr_Format(PyExc_TypeError, "TaskGroup() takes no positional arguments (%zd given): "
                     "write concurrency_limit=...", PyTuple_GET_SIZE(args));
        return -1;
    }
    // The truth value first: __bool__() may drop an object that comes before it.
    char *names[] = {"cancel_on_error", "concurrency_limit", NULL};
    if (kwargs != NULL
        && (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$pO:TaskGroup", names, &cancel_on_error, &value)
            || parse_limit(self->state, value, &limit) < 0)) {
        return -1;
    }
    int rc = 0;
    BEGIN_SECTION(op);
    if (self->entered) {
        rc = refuse(self, "has already been entered");
    }
    else {
        self->limit = limit;
        self->cancel_on_error = cancel_on_error != 0;
        self->parent_cancel_requested = self->cancel_on_enter = 0;
    }
    END_SECTION();
    return rc;
}

static PyObject *
TaskGroup_aenter(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return Await_new(GROUP(op), AWAIT_ENTER, NULL);
}

static PyObject *
TaskGroup_aexit(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 3) {
        PyErr_Format(PyExc_TypeError, "__aexit__() takes 3 arguments (%zd given)", nargs);
        return NULL;
    }
    if (args[0] == Py_None) {
        return Await_new(GROUP(op), AWAIT_EXIT, NULL);
    }
    quattro_state *state = GROUP(op)->state;
    PyObject *exc = PyExceptionInstance_Check(args[1]) ? Py_NewRef(args[1])
                    : PyObject_Vectorcall(state->given_exception, args, 3, NULL);
    PyObject *self = exc == NULL ? NULL : Await_new(GROUP(op), AWAIT_EXIT, exc);
    Py_XDECREF(exc);
    return self;
}

PyDoc_STRVAR(TaskGroup_create_task_doc,
"create_task($self, /, coro, *, name=None, context=None, eager_start=None, **kwargs)\n--\n\n"
"Start a foreground task in the group: the group waits for it.\n\n"
"At the group's concurrency limit the task is queued, first in, first out, and starts when a slot is free. The call\n"
"returns at once in any case.\n\n"
"Args:\n"
"    coro (Coroutine | Callable): A coroutine, or a callable without required arguments that returns one (a coroutine\n"
"        function, a functools.partial, a lambda). A callable is called inside the task, when the task starts.\n"
"    name (str | None): The name of the task.\n"
"    context (contextvars.Context | None): What the task runs in; by default a copy of the current context, made\n"
"        now, even if the task starts later.\n"
"    eager_start (bool | None): Run the task within this call until it first waits, if a slot is free. None leaves\n"
"        that to the loop's task factory. CPython 3.12 or newer.\n"
"    **kwargs: Passed on to loop.create_task().\n\n"
"Returns:\n"
"    asyncio.Task: The task. Cancelling one that is queued takes it out of the queue: none of its code runs.\n\n"
"Raises:\n"
"    RuntimeError: The group has not been entered, is shutting down (its tasks are being cancelled), or is finished.\n"
"    TypeError: Neither a coroutine nor a callable, or a keyword that the loop does not know.\n\n"
"A coroutine that is refused is closed (CPython issue 115957), so that no warning says that it was never awaited.\n\n"
"Example:\n"
"    >>> async with TaskGroup(concurrency_limit=10) as tg:\n"
"    ...     tasks = [tg.create_task(fetch(url), name=url) for url in urls]\n"
"    >>> pages = [task.result() for task in tasks]");

static PyObject *
TaskGroup_create_task(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return create(op, args, nargs, kwnames, 0);
}

PyDoc_STRVAR(TaskGroup_create_background_task_doc,
"create_background_task($self, /, coro, *, name=None, context=None, eager_start=None, **kwargs)\n--\n\n"
"Start a background task in the group: one that lives as long as the work it serves.\n\n"
"When the body and the last foreground task (queued ones included) have ended, it is cancelled, once, and awaited.\n"
"It ends last, as Trio's and curio's designs of daemon tasks have it; to end it earlier, call the task's cancel().\n"
"An error in it aborts the group, as in any other task. It takes no slot of the concurrency limit.\n\n"
"Args:\n"
"    coro (Coroutine | Callable): As for create_task().\n"
"    name (str | None): As for create_task().\n"
"    context (contextvars.Context | None): As for create_task().\n"
"    eager_start (bool | None): As for create_task(), but that no slot is needed.\n"
"    **kwargs: Passed on to loop.create_task().\n\n"
"Returns:\n"
"    asyncio.Task: The task.\n\n"
"Raises:\n"
"    RuntimeError: The group has not been entered, is shutting down (its tasks, or its background tasks, are being\n"
"        cancelled), or is finished.\n"
"    TypeError: As for create_task().\n\n"
"Example:\n"
"    >>> async with TaskGroup() as tg:\n"
"    ...     heart = tg.create_background_task(heartbeat)\n"
"    ...     tg.create_task(serve(connection))\n"
"    >>> heart.cancelled()\n"
"    True");

static PyObject *
TaskGroup_create_background_task(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return create(op, args, nargs, kwnames, 1);
}

static PyObject *
TaskGroup_wait_for_slot(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return Await_new(GROUP(op), AWAIT_SLOT, NULL);
}

PyDoc_STRVAR(TaskGroup_cancel_doc,
"cancel($self, /)\n--\n\n"
"Leave the group early: cancel its tasks and its body, and swallow that cancellation at the exit.\n\n"
"The task that the group is in goes on after the group's block. Errors of tasks are raised there as usual. Before the\n"
"group is entered, this takes effect on entry; after the exit, and a second time, it does nothing. It is\n"
"asyncio.TaskGroup.cancel() of CPython 3.15 (issue 108951), on every CPython from 3.11.\n\n"
"Example:\n"
"    >>> async with TaskGroup() as tg:\n"
"    ...     for url in urls:\n"
"    ...         tg.create_task(first_answer(url, then=tg.cancel))");

static PyObject *
TaskGroup_cancel(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    RETURN_NONE_LOCKED(op, cancel_lock_held(GROUP(op)));
}

/* For the package's statistics() and __repr__(): tasks, background, queued, errors and running, of one moment. */
static PyObject *
TaskGroup__counts(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TaskGroup *self = GROUP(op);
    PyObject *result;
    BEGIN_SECTION(op);
    Py_ssize_t tasks = (Py_ssize_t)self->tasks.used, background = (Py_ssize_t)self->background;
    result = Py_BuildValue("nnnnn", tasks, background, self->queued,
                           self->errors == NULL ? (Py_ssize_t)0 : PyList_GET_SIZE(self->errors),
                           self->limit > 0 ? self->slots : tasks - background);
    END_SECTION();
    return result;
}

/* --- What it shows: its options, and asyncio's private names, because code in the wild uses them ------------------ */

static PyObject *
TaskGroup_get_concurrency_limit(PyObject *op, void *Py_UNUSED(closure))
{
    Py_ssize_t limit;
    LOCKED(op, limit = GROUP(op)->limit);
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
    LOCKED(op, value = *((char *)op + (size_t)offset));
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
    LOCKED(op, GROUP(op)->parent_cancel_requested = truth != 0);
    return 0;
}

static PyGetSetDef TaskGroup_getset[] = {
    {"concurrency_limit", TaskGroup_get_concurrency_limit, NULL,
     PyDoc_STR("How many foreground tasks may run at once, an int; None without a limit."), NULL},
    {"cancel_on_error", TaskGroup_get_flag, NULL,
     PyDoc_STR("Whether the error of a foreground task cancels the others and the body, a bool."),
     (void *)offsetof(TaskGroup, cancel_on_error)},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
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

/* --- Its memory -------------------------------------------------------------------------------------------------- */

static int
TaskGroup_traverse(PyObject *op, visitproc visit, void *arg)
{
    TaskGroup *self = GROUP(op);
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->dict);
    Py_VISIT(self->loop);
    GROUP_STATE(VISIT)
    GROUP_TOOLS(VISIT)
    GROUP_CALLBACKS(VISIT)
    for (size_t i = self->tasks.begin; i < self->tasks.end; i++) {
        Py_VISIT(ENTRY_TASK(self->tasks.entries[i]));
    }
    Link *heads[] = {&self->queue, &self->granted, &self->cancelled, &self->waiters};
    for (int i = 0; i < 4; i++) {
        for (Link *link = heads[i]->next; link != heads[i]; link = link->next) {
            Py_VISIT(TURN_OF(link));
        }
    }
    return 0;
}

static int
TaskGroup_clear(PyObject *op)
{
    TaskGroup *self = GROUP(op);
    self->finished = 1;         // whoever still comes is refused
    Py_CLEAR(self->dict);
    GROUP_STATE(CLEAR)
    if (!self->has_tasks) {
        return 0;               // not for a task: there is nothing else
    }
    GROUP_TOOLS(CLEAR)
    GROUP_CALLBACKS(CLEAR)
    LOCKED(op, drop_turns_lock_held(self, 0));
    self->background = 0;
    TaskSet_clear(&self->tasks);
    return 0;
}

/* A group that nobody has left, because its owner failed between __aenter__() and the block: the errors that it has taken
   from its tasks would be lost with it (anyio issue 902).  The module state is there: our type, which we have, keeps it. */
static void
TaskGroup_finalize(PyObject *op)
{
    TaskGroup *self = GROUP(op);
    if (self->exiting || self->finished || self->errors == NULL || self->loop == NULL || Py_IsFinalizing()) {
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    // Whoever is told may leave the group after all, which raises none of these again.
    PyObject *errors = self->errors;
    self->errors = NULL;
    PyObject *lost = PyList_GetSlice(errors, 0, PyList_GET_SIZE(errors) - self->told);
    if (lost != NULL) {
        Py_XDECREF(PyObject_CallFunctionObjArgs(self->state->report_lost, self->loop, lost, NULL));
        Py_DECREF(lost);
    }
    report_unraisable(op);
    Py_DECREF(errors);
    PyErr_SetRaisedException(exc);
}

/* The finalizer has been called by then: by that of the package's class, of which all groups are. */
static void
TaskGroup_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    TaskGroup_clear(op);
    Py_CLEAR(GROUP(op)->loop);
    type->tp_free(op);
    Py_DECREF(type);
}

/* --- The type ---------------------------------------------------------------------------------------------------- */

static PyMethodDef TaskGroup_methods[] = {
    {"__aenter__", TaskGroup_aenter, METH_NOARGS, PyDoc_STR("What quattro.TaskGroup's awaits.")},
    {"__aexit__", (PyCFunction)(void (*)(void))TaskGroup_aexit, METH_FASTCALL,
     PyDoc_STR("What quattro.TaskGroup's awaits.")},
    {"create_task", (PyCFunction)(void (*)(void))TaskGroup_create_task, METH_FASTCALL | METH_KEYWORDS,
     TaskGroup_create_task_doc},
    {"create_background_task", (PyCFunction)(void (*)(void))TaskGroup_create_background_task,
     METH_FASTCALL | METH_KEYWORDS, TaskGroup_create_background_task_doc},
    {"wait_for_slot", TaskGroup_wait_for_slot, METH_NOARGS, PyDoc_STR("What quattro.TaskGroup's awaits.")},
    {"cancel", TaskGroup_cancel, METH_NOARGS, TaskGroup_cancel_doc},
    {"_counts", TaskGroup__counts, METH_NOARGS, NULL},
    {"_abort", TaskGroup__abort, METH_NOARGS, PyDoc_STR("Cancel every task of the group, once.")},
    {"_on_task_done", TaskGroup__on_task_done, METH_O, PyDoc_STR("The done callback of the group's tasks.")},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef TaskGroup_members[] = {
    {"__dictoffset__", Py_T_PYSSIZET, offsetof(TaskGroup, dict), Py_READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot TaskGroup_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("TaskGroup(*, concurrency_limit=None, cancel_on_error=True)\n--\n\n"
                                 "The C of quattro.TaskGroup.")},
    {Py_tp_new, TaskGroup_new},
    {Py_tp_init, TaskGroup_init},
    {Py_tp_dealloc, TaskGroup_dealloc},
    {Py_tp_traverse, TaskGroup_traverse},
    {Py_tp_clear, TaskGroup_clear},
    {Py_tp_finalize, TaskGroup_finalize},
    {Py_tp_methods, TaskGroup_methods},
    {Py_tp_members, TaskGroup_members},
    {Py_tp_getset, TaskGroup_getset},
    {0, NULL},
};

PyType_Spec TaskGroup_spec = {
    .name = "quattro._quattro.TaskGroup",
    .basicsize = sizeof(TaskGroup),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = TaskGroup_slots,
};

/* --- async def, for those who look -------------------------------------------------------------------------------- */

/* unittest, unittest.mock and others ask inspect.iscoroutinefunction() whether to await what a method returns, and that
   knows functions only.  So the package's class has these methods as `async def` functions, which do what
   ours do; and whoever calls them as they are meant to be called gets there without the frame. */
static int
is_group(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    while (type != NULL && type->tp_dealloc != TaskGroup_dealloc) {
        type = type->tp_base;
    }
    return type != NULL;
}

/* What the functions call, without a frame; any other call, by the function's own code. */
static PyObject *
call_shorter(PyObject *function, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    PyCodeObject *code = (PyCodeObject *)PyFunction_GET_CODE(function);
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
    if (nargs == 0 || nargs != code->co_argcount || kwnames != NULL || !is_group(args[0])) {
        PyObject *copy = PyFunction_New((PyObject *)code, PyFunction_GET_GLOBALS(function));
        PyObject *result = copy == NULL ? NULL : PyObject_Vectorcall(copy, args, nargsf, kwnames);
        Py_XDECREF(copy);
        return result;
    }
    if (nargs == 4) {
        return TaskGroup_aexit(args[0], args + 1, 3);
    }
    int enters = PyUnicode_READ_CHAR(code->co_name, 0) == '_';      // __aenter__(), or wait_for_slot()
    return Await_new(GROUP(args[0]), enters ? AWAIT_ENTER : AWAIT_SLOT, NULL);
}

PyObject *
TaskGroup_shorten(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    for (Py_ssize_t i = 0; i < 3; i++) {
        if (nargs != 3 || !PyFunction_Check(args[i])) {
            PyErr_SetString(PyExc_TypeError, "_shorten() takes three functions");
            return NULL;
        }
        PyFunction_SetVectorcall((PyFunctionObject *)args[i], call_shorter);
    }
    Py_RETURN_NONE;
}
