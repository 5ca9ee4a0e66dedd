/* Entering and leaving: what __aenter__() and __aexit__() return. */

#include "group.h"
#include "create.h"
#include "ending.h"
#include "loops.h"
#include "slots.h"
#include "task.h"
#include "turn.h"

#define AWAIT_OBJECTS(X) \
    X(exc)          /* what the body raised */ \
    X(propagate)    /* the CancelledError to raise unless there are errors */ \
    X(pending)      /* the last CancelledError that arrived while waiting */

typedef struct Await {
    PyObject_HEAD
    TaskGroup *group;
    AWAIT_OBJECTS(FIELD)
    Turn *turn;                 // what wait_for_slot() waits on, in the group's list of waiters
    AwaitStage stage;           // where to go on
    unsigned running : 1;
    unsigned started : 1;
} Await;

PyObject *
Await_new(TaskGroup *group, AwaitStage stage, PyObject *exc)
{
    Await *self = Part_new(group->state->Await_Type, group);
    if (self != NULL) {
        self->exc = Py_XNewRef(exc);
        self->stage = stage;
    }
    return (PyObject *)self;
}

/* async def __aenter__(self) */
static int
enter_lock_held(TaskGroup *group)
{
    ASSERT_LOCKED(group);
    quattro_state *state = group->state;
    if (group->entered) {
        return refuse(group, "has already been entered");
    }
    PyObject *loop = call_in_module(state->events, state->str_get_running_loop, NULL);
    PyObject *parent = loop == NULL ? NULL : call_in_module(state->tasks, state->str_current_task, loop);
    if (parent != NULL && parent != Py_None && !group->entered) {   // what was called may have done so
        Py_XSETREF(group->loop, loop);
        Py_XSETREF(group->parent, parent);
        group->thread = PyThread_get_thread_ident();
        group->entered = 1;
        return group->cancel_on_enter ? call_method((PyObject *)group, state->str_cancel) : 0;
    }
    if (parent != NULL) {
        (void)refuse(group, parent == Py_None ? "cannot determine the parent task" : "has already been entered");
    }
    Py_XDECREF(loop);
    Py_XDECREF(parent);
    return -1;
}

/* What the `finally` of asyncio's __aexit__() does, and more: nothing of what the group held stays. */
static void
finish_lock_held(TaskGroup *self)
{
    ASSERT_LOCKED(self);
    self->finished = 1;
    for (size_t i = self->tasks.begin; i < self->tasks.end; i++) {
        // Only if the exit was broken off: their ends are still to be seen.
        PyObject *task = Py_XNewRef(ENTRY_TASK(self->tasks.entries[i]));
        if (task != NULL && discard_awaited_by(self, task) < 0) {
            report_unraisable(task);
        }
        Py_XDECREF(task);
    }
#define TAKE(name) PyObject *name = self->name; self->name = NULL;
#define DROP(name) Py_XDECREF(name);
    GROUP_STATE(TAKE)
    if (wake_waiters_lock_held(self) < 0) {
        report_unraisable((PyObject *)self);
    }
    if (self->has_tasks) {
        GROUP_TOOLS(CLEAR)
        drop_callbacks_lock_held(self);
    }
    // Last: it may be what looks at the group as it goes.
    GROUP_STATE(DROP)
#undef TAKE
#undef DROP
}

/* Raise what the group has to raise (-1 and the error set), or nothing (0); 1 if the parent has to pass through the
   loop once first, because uncancel() left a cancellation pending (CPython before 3.13). */
static int
exit_uncancel_lock_held(Await *self)
{
    TaskGroup *group = self->group;
    quattro_state *state = group->state;
    if (!group->parent_cancel_requested) {
        return 0;
    }
    PyObject *parent = Py_NewRef(group->parent);
    PyObject *count = PyObject_CallMethodNoArgs(parent, state->str_uncancel);
    int rc = count == NULL ? -1 : PyObject_IsTrue(count);
    Py_XDECREF(count);
    if (rc > 0) {
        // A cancellation from outside remains: it is not ours to drop (CPython issue 155433).
        if (self->propagate == NULL) {
            self->propagate = Py_XNewRef(self->pending);
        }
        rc = 0;
    }
    else if (rc == 0) {
        Py_CLEAR(self->propagate);
        rc = attr_is_true(parent, state->str__must_cancel);
    }
    Py_DECREF(parent);
    return rc;
}

/* The group raises an error: if the parent was cancelled from outside as well, it is cancelled again. */
static int
exit_rearm_lock_held(TaskGroup *group)
{
    PyObject *parent = Py_NewRef(group->parent);
    PyObject *result = PyObject_CallFunctionObjArgs(group->state->rearm, group->loop, parent, NULL);
    Py_DECREF(parent);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Where an exception object is in a list of errors, first; -1 if it is not there.  Compared, never followed. */
static Py_ssize_t
index_of(PyObject *errors, PyObject *exc)
{
    Py_ssize_t size = errors == NULL ? 0 : PyList_GET_SIZE(errors);
    for (Py_ssize_t i = 0; i < size; i++) {
        if (PyList_GET_ITEM(errors, i) == exc) {
            return i;
        }
    }
    return -1;
}

/* Raise the group's SystemExit or KeyboardInterrupt, and report every error that it displaces, the body's `exc` too, which
   may be NULL. */
static void
raise_base_error(TaskGroup *group, PyObject *exc)
{
    PyObject *base = Py_NewRef(group->base_error);
    if (exc != NULL && append_error(group, exc) < 0) {
        report_unraisable((PyObject *)group);   // the others are reported all the same
    }
    PyObject *errors = Py_XNewRef(group->errors);
    if (errors != NULL) {
        Py_XDECREF(PyObject_CallFunctionObjArgs(group->state->report_displaced, group->loop, errors, base, NULL));
    }
    report_unraisable((PyObject *)group);
    raise_exception(base);
    Py_XDECREF(errors);
    Py_DECREF(base);
}

/* The end of asyncio's _aexit(), from `if self._base_error is not None` on; -1 and an error, or 0. */
static int
exit_raise_lock_held(Await *self)
{
    TaskGroup *group = self->group;
    quattro_state *state = group->state;
    PyObject *exc = self->exc;
    int exc_is_cancel = exc != NULL && PyErr_GivenExceptionMatches(exc, state->CancelledError);
    if (group->base_error != NULL) {
        raise_base_error(group, exc_is_cancel ? NULL : exc);
        return -1;
    }
    int has_errors = group->errors != NULL && PyList_GET_SIZE(group->errors) > 0;
    if (self->propagate != NULL && !has_errors) {
        raise_exception(self->propagate);
        return -1;
    }
    // With cancel_on_error=False the body may have got it by awaiting its task.
    int known = exc == NULL || exc_is_cancel || (!group->cancel_on_error && index_of(group->errors, exc) >= 0);
    if (!known && append_error(group, exc) < 0) {
        return -1;
    }
    if (!has_errors && (exc == NULL || exc_is_cancel)) {
        return 0;
    }
    if (exit_rearm_lock_held(group) < 0) {
        return -1;
    }
    if (exc != NULL && PyErr_GivenExceptionMatches(exc, PyExc_GeneratorExit) && PyList_GET_SIZE(group->errors) == 1) {
        raise_exception(exc);
        return -1;
    }
    PyObject *error = PyObject_CallFunction(PyExc_BaseExceptionGroup, "sO", "unhandled errors in a TaskGroup",
                                            group->errors);
    if (error != NULL) {
        PyException_SetCause(error, NULL);      // from None
    }
    return raise_made(error);
}

/* The first step of __aexit__().  The stages give 0 to go on, -1 and an error to break off. */
static int
exit_begin_lock_held(Await *self)
{
    TaskGroup *group = self->group;
    group->exiting = 1;
    self->stage = AWAIT_TASKS;
    if (self->exc != NULL) {
        if (is_base_error(self->exc) && group->base_error == NULL) {
            group->base_error = Py_NewRef(self->exc);
        }
        if (PyErr_GivenExceptionMatches(self->exc, group->state->CancelledError)) {
            self->propagate = Py_NewRef(self->exc);
        }
        if (!group->aborting && call_method((PyObject *)group, group->state->str__abort) < 0) {
            return -1;
        }
    }
    return stop_background_lock_held(group);
}

/* The parent was cancelled while it waited for the tasks, maybe for the second time and more. */
static int
exit_cancelled_lock_held(Await *self, PyObject *thrown)
{
    TaskGroup *group = self->group;
    Py_XSETREF(self->pending, Py_NewRef(thrown));
    if (group->aborting) {
        return 0;
    }
    Py_XSETREF(self->propagate, Py_NewRef(thrown));
    return call_method((PyObject *)group, group->state->str__abort) < 0 ? -1 : stop_background_lock_held(group);
}

/* The parent has passed through the loop once, to meet a cancellation that uncancel() left pending: is another one, from
   outside, to go on? */
static int
exit_passed_lock_held(Await *self, PyObject *thrown)
{
    long cancelling = thrown == NULL ? 0 : task_cancelling(self->group->state, self->group->parent);
    if (cancelling > 0) {
        Py_XSETREF(self->propagate, Py_NewRef(thrown));
    }
    return cancelling < 0 ? -1 : 0;
}

/* What is there to wait for?  1 and what to yield; 0 if there is nothing more; -1 on error. */
static int
exit_wait_lock_held(Await *self, PyObject **result)
{
    TaskGroup *group = self->group;
    if (group->tasks.used != 0) {
        Turn *turn = Turn_new(group, NULL, TURN_QUEUED);
        if (turn == NULL) {
            return -1;
        }
        turn->blocking = turn->waiter = 1;
        Py_XSETREF(group->waiter, Py_NewRef(turn));
        *result = (PyObject *)turn;
        return 1;
    }
    int pass = exit_uncancel_lock_held(self);
    if (pass > 0) {
        self->stage = AWAIT_LOOP;
        *result = Py_NewRef(Py_None);
    }
    return pass;
}

/* The stages of __aexit__(), one after the other; `thrown` is NULL if the parent was resumed with a value. */
static PySendResult
exit_advance_lock_held(Await *self, PyObject *thrown, PyObject **result)
{
    int rc;
    switch (self->stage) {
    case AWAIT_EXIT:
        rc = exit_begin_lock_held(self);
        break;
    case AWAIT_TASKS:
        rc = thrown == NULL ? 0 : exit_cancelled_lock_held(self, thrown);
        break;
    default:
        rc = exit_passed_lock_held(self, thrown);
        break;
    }
    if (rc == 0 && self->stage == AWAIT_TASKS) {
        rc = exit_wait_lock_held(self, result);
    }
    if (rc > 0) {
        return PYGEN_NEXT;
    }
    self->stage = AWAIT_DONE;
    if (rc < 0 || exit_raise_lock_held(self) < 0) {
        return PYGEN_ERROR;
    }
    // Nobody looks at it without an exception, and None costs a seventh of an empty group less before 3.15.
    *result = Py_NewRef(self->exc == NULL ? Py_None : Py_True);
    return PYGEN_RETURN;
}

/* asyncio's __aexit__(): whatever becomes of it, the group is finished then. */
static PySendResult
exit_step_lock_held(Await *self, PyObject *thrown, PyObject **result)
{
    TaskGroup *group = self->group;
    ASSERT_LOCKED(group);
    if (self->stage == AWAIT_DONE || (group->finished && self->stage != AWAIT_EXIT)) {    // the collector has been here
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return PYGEN_ERROR;
    }
    if (self->stage == AWAIT_EXIT && (!group->entered || group->exiting || group->finished)) {
        (void)refuse(group, !group->entered ? "has not been entered"
                            : group->exiting ? "is already exiting" : "is finished");
        return PYGEN_ERROR;
    }
    PySendResult rc = PYGEN_ERROR;
    if (thrown == NULL || PyErr_GivenExceptionMatches(thrown, group->state->CancelledError)) {
        rc = exit_advance_lock_held(self, thrown, result);
    }
    else {
        PyErr_SetRaisedException(Py_NewRef(thrown));
    }
    if (rc != PYGEN_NEXT) {
        PyObject *exc = PyErr_GetRaisedException();
        finish_lock_held(group);
        PyErr_SetRaisedException(exc);
    }
    return rc;
}

/* wait_for_slot() is over: it leaves no trace. */
static void
leave_waiters_lock_held(Await *self)
{
    Turn *turn = self->turn;
    self->turn = NULL;
    if (turn != NULL) {
        // A Task that waits on it, because this is not its step, can be cancelled still.
        turn_leave_lock_held(turn, turn->waker == NULL ? TURN_ENDED : TURN_QUEUED);
        Py_DECREF(turn);
    }
}

/* async def wait_for_slot(self).  A slot is free only when this says so in the caller's own step: who was woken for one and
   is beaten to it waits on in the old place. */
static PySendResult
slot_step_lock_held(Await *self, PyObject **result)
{
    TaskGroup *group = self->group;
    if (check_open_lock_held(group, 0) < 0) {
        return PYGEN_ERROR;
    }
    if (slot_is_free(group)) {
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
    if (self->turn == NULL) {
        self->turn = Turn_new(group, NULL, TURN_QUEUED);
        if (self->turn == NULL) {
            return PYGEN_ERROR;
        }
        self->turn->waiter = 1;
        Link_append(&group->waiters, &((Turn *)Py_NewRef(self->turn))->link);
    }
    self->turn->state = TURN_QUEUED;
    self->turn->blocking = 1;
    *result = Py_NewRef(self->turn);
    return PYGEN_NEXT;
}

static int
Await_clear(PyObject *op)
{
    Await *self = (Await *)op;
    AWAIT_OBJECTS(CLEAR)
    return 0;
}

static PySendResult
await_advance_lock_held(Await *self, PyObject *thrown, PyObject **result)
{
    PySendResult rc = PYGEN_ERROR;
    if (thrown != NULL && self->stage <= AWAIT_SLOT) {
        PyErr_SetRaisedException(Py_NewRef(thrown));
    }
    else if (self->stage == AWAIT_SLOT) {
        rc = slot_step_lock_held(self, result);
    }
    else if (self->stage != AWAIT_ENTER) {
        rc = exit_step_lock_held(self, thrown, result);
    }
    else if (enter_lock_held(self->group) == 0) {
        *result = Py_NewRef(self->group);
        rc = PYGEN_RETURN;
    }
    if (rc != PYGEN_NEXT) {
        PyObject *exc = rc == PYGEN_ERROR ? PyErr_GetRaisedException() : NULL;
        self->stage = AWAIT_DONE;
        leave_waiters_lock_held(self);
        Await_clear((PyObject *)self);      // nothing that was raised may be held from here
        if (exc != NULL) {
            PyErr_SetRaisedException(exc);
        }
    }
    return rc;
}

static PySendResult
await_step_lock_held(Await *self, PyObject *thrown, PyObject **result)
{
    *result = NULL;
    if (self->running) {
        PyErr_SetString(PyExc_ValueError, "already executing");
        return PYGEN_ERROR;
    }
    self->running = self->started = 1;
    PySendResult rc = await_advance_lock_held(self, thrown, result);
    self->running = 0;
    return rc;
}

static PySendResult
Await_am_send(PyObject *op, PyObject *Py_UNUSED(value), PyObject **result)
{
    PySendResult rc;
    TRANSITION(((Await *)op)->group, rc = await_step_lock_held((Await *)op, NULL, result));
    return rc;
}

static PyObject *
Await_iternext(PyObject *op)
{
    PyObject *result;
    PySendResult rc = Await_am_send(op, Py_None, &result);
    return iternext_result(rc, result);
}

/* Two tasks can't await it: only one would be woken. */
static PyObject *
Await_await(PyObject *op)
{
    Await *self = (Await *)op;
    int waits;
    LOCKED(self->group, waits = self->started && self->stage != AWAIT_DONE);
    if (waits) {
        PyErr_SetString(PyExc_RuntimeError, "coroutine is being awaited already");
        return NULL;
    }
    return Py_NewRef(op);
}

static PyObject *
Await_send(PyObject *op, PyObject *Py_UNUSED(value))
{
    PyObject *result;
    PySendResult rc = Await_am_send(op, Py_None, &result);
    return send_result(rc, result);
}

static PyObject *
Await_throw(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    quattro_state *state = ((Await *)op)->group->state;
    PyObject *thrown = nargs == 1 && PyExceptionInstance_Check(args[0])
                       ? Py_NewRef(args[0]) : PyObject_Vectorcall(state->given_exception, args, nargs, NULL);
    if (thrown == NULL) {
        return NULL;
    }
    PyObject *result;
    PySendResult rc;
    TRANSITION(((Await *)op)->group, rc = await_step_lock_held((Await *)op, thrown, &result));
    Py_DECREF(thrown);
    return send_result(rc, result);
}

/* Broken off while waiting: what GeneratorExit would do to asyncio's coroutine. */
static void
break_off_lock_held(Await *self)
{
    if (self->stage == AWAIT_TASKS || self->stage == AWAIT_LOOP) {
        finish_lock_held(self->group);
    }
    leave_waiters_lock_held(self);
    self->stage = AWAIT_DONE;
    Await_clear((PyObject *)self);
}

static PyObject *
Await_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    Await *self = (Await *)op;
    int running;
    BEGIN_SECTION(self->group);
    running = self->running;
    self->started = 1;
    if (!running) {
        break_off_lock_held(self);
    }
    END_SECTION();
    if (running) {
        PyErr_SetString(PyExc_ValueError, "already executing");
        return NULL;
    }
    Py_RETURN_NONE;
}

static int
Await_traverse(PyObject *op, visitproc visit, void *arg)
{
    Await *self = (Await *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->group);
    AWAIT_OBJECTS(VISIT)
    Py_VISIT(self->turn);
    return 0;
}

/* As a coroutine that is dropped, before its first step or while it waits. */
static void
Await_finalize(PyObject *op)
{
    Await *self = (Await *)op;
    PyObject *exc = PyErr_GetRaisedException();
    if (self->started) {
        LOCKED(self->group, break_off_lock_held(self));
    }
    else if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine 'TaskGroup.%s' was never awaited",
                              self->stage == AWAIT_ENTER ? "__aenter__"
                              : self->stage == AWAIT_SLOT ? "wait_for_slot" : "__aexit__") < 0)
    {
        report_unraisable(op);
    }
    self->stage = AWAIT_DONE;           // whoever has kept it: this is not called again
    PyErr_SetRaisedException(exc);
}

static void
Await_dealloc(PyObject *op)
{
    if (((Await *)op)->stage != AWAIT_DONE && PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    assert(((Await *)op)->turn == NULL);
    Part_dealloc(op);
}

static PyMethodDef Await_methods[] = {
    {"send", Await_send, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))Await_throw, METH_FASTCALL, NULL},
    {"close", Await_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Await_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("What a group's __aenter__() and __aexit__() return. Internal.")},
    {Py_tp_dealloc, Await_dealloc},
    {Py_tp_traverse, Await_traverse},
    {Py_tp_clear, Await_clear},
    {Py_tp_finalize, Await_finalize},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, Await_iternext},
    {Py_am_await, Await_await},
    {Py_am_send, Await_am_send},
    {Py_tp_methods, Await_methods},
    {0, NULL},
};

PyType_Spec Await_spec = {
    .name = "quattro._quattro._Await",
    .basicsize = sizeof(Await),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Await_slots,
};
