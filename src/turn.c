/* The type Turn: what run_turn() awaits, and what its Task waits on. */

#include "coro.h"
#include "ending.h"
#include "loops.h"
#include "slots.h"
#include "task.h"
#include "turn.h"

/* The done callback of a Task that is not quiet: clean up after a Task that never awaited it, then what every task's end brings,
   then pass the slot on. */
static int
turn_task_done_lock_held(Turn *self, PyObject *task)
{
    TaskGroup *group = self->group;
    ASSERT_LOCKED(group);
    PyObject *first = NULL;
    if (self->state != TURN_ENDED) {
        turn_leave_lock_held(self, TURN_CANCELLED);
        turn_close_coro(self);
        // Somebody may wait on it still: another Task, which this one or a task factory has shielded.
        collect_error(task, &first, turn_step_task_lock_held(self, 0));
    }
    if (self->hook != NULL) {
        PyObject *result = PyObject_CallOneArg(self->hook, task);
        collect_error(task, &first, result == NULL ? -1 : 0);
        Py_XDECREF(result);
    }
    else {
        collect_error(task, &first, task_ended_lock_held(group, task, NULL));
    }
    collect_error(task, &first, turn_release_lock_held(self));
    return raise_collected(first);
}

static PyObject *
Turn_task_done(PyObject *op, PyObject *task)
{
    RETURN_NONE_LOCKED(TURN(op)->group, turn_task_done_lock_held(TURN(op), task));
}

static PyMethodDef Turn_task_done_def = {"_task_done", Turn_task_done, METH_O, NULL};

PyObject *
turn_new_callback(Turn *self)
{
    return PyCFunction_New(&Turn_task_done_def, (PyObject *)self);
}

static int
turn_add_to_task_lock_held(Turn *self, PyObject *task)
{
    PyObject *callback = turn_new_callback(self);
    int rc = callback == NULL ? -1 : add_done_callback(self->group, task, callback);
    Py_XDECREF(callback);
    return rc;
}

/* A quiet task is going to fail: have the group see it in a done callback.  A slot that the turn still holds is given
   back there, after the group has looked at the error. */
static int
turn_see_failure_lock_held(Turn *self)
{
    TaskGroup *group = self->group;
    ASSERT_LOCKED(group);
    if (!self->quiet) {
        return 0;
    }
    self->quiet = 0;
    int tag = TaskSet_tag(&group->tasks, self->task);
    if (tag < 0) {
        return turn_release_lock_held(self);
    }
    if (self->slot) {
        self->slot = 0;
        TaskSet_set_tag(&group->tasks, self->task, (tag & MARK) | KIND_SLOT);
    }
    return see_end_lock_held(group, self->task, self->context);
}

/* Does run_turn() end in no step of its quiet Task, but closed by its finalizer or run by somebody who got hold of it?
   The loop may have been closed by then, where nobody can be told of an end.  -1 on error. */
static int
turn_ends_outside_lock_held(Turn *self)
{
    if (self->waker != NULL || !self->quiet || self->group->loop == NULL) {
        return self->waker != NULL;
    }
    int running = task_is_running(self->group, self->task);
    return running < 0 ? -1 : !running;
}

/* The Task is to get its step all the same, and with it the error that such a coroutine raises.  So the turn keeps its
   place, unless the group has been told of the end already, and nobody would take it away. */
static int
turn_ended_outside_lock_held(Turn *self)
{
    TaskGroup *group = self->group;
    int known = TaskSet_tag(&group->tasks, self->task) >= 0;
    if (self->quiet && known && turn_add_to_task_lock_held(self, (PyObject *)self->task) < 0) {
        return -1;              // it is still quiet: its own end will tell
    }
    self->quiet = 0;
    if (known || group->finished) {
        return 0;
    }
    PyObject *first = NULL;
    turn_leave_lock_held(self, TURN_ENDED);
    collect_error(self, &first, turn_release_lock_held(self));
    collect_error(self, &first, turn_step_task_lock_held(self, 0));
    return raise_collected(first);
}

/* run_turn() ends in the step that its Task takes. */
static int
turn_ended_inside_lock_held(Turn *self, int failed)
{
    turn_leave_lock_held(self, TURN_ENDED);
    if (failed) {
        return turn_see_failure_lock_held(self);
    }
    if (turn_release_lock_held(self) < 0) {
        // The loop refused to schedule: that is the task's error now.
        PyObject *exc = PyErr_GetRaisedException();
        if (turn_see_failure_lock_held(self) < 0) {
            report_unraisable((PyObject *)self);
        }
        PyErr_SetRaisedException(exc);
        return -1;
    }
    if (!self->quiet) {
        return 0;
    }
    self->quiet = 0;
    return leave_lock_held(self->group, self->task, self->context);
}

/* run_turn() tells that it is about to return, or to raise: CancelledError if `failed` is 0. */
static int
turn_end_lock_held(Turn *self, int failed)
{
    ASSERT_LOCKED(self->group);
    if (self->state == TURN_ENDED) {
        return 0;
    }
    turn_close_coro(self);
    PyObject *first = NULL;
    int outside = turn_ends_outside_lock_held(self);
    failed |= outside < 0;      // an interrupt, say, is what the task fails with
    collect_error(self, &first, outside);
    collect_error(self, &first, outside > 0 ? turn_ended_outside_lock_held(self)
                                            : turn_ended_inside_lock_held(self, failed));
    return raise_collected(first);
}

/* CancelledError, with the message that cancel() was given. */
static void
turn_raise_cancelled(Turn *self)
{
    PyObject *type = self->group->state->CancelledError;
    if (self->message == NULL || self->message == Py_None) {
        PyErr_SetNone(type);
        return;
    }
    (void)raise_made(PyObject_CallOneArg(type, self->message));
}

/* The Task of a callable takes its first step.  It had the group's callback in case that step never comes; from here on
   run_turn() tells the end of a foreground task, and the slot, if it has one, is the turn's. */
static int
turn_tells_end_lock_held(Turn *self)
{
    TaskGroup *group = self->group;
    int tag = self->task == NULL ? -1 : TaskSet_tag(&group->tasks, self->task);
    if (tag < 0 || (tag & KIND_MASK) == KIND_BACKGROUND || group->done == NULL) {
        return 0;
    }
    PyObject *task = Py_NewRef((PyObject *)self->task);
    PyObject *done = Py_NewRef(group->done);
    int taken_back = take_back_callback(group, task, done);
    // The callback's context goes with it, and maybe the last reference to somebody's object, who announces the end.
    tag = TaskSet_tag(&group->tasks, task);
    if (taken_back > 0 && tag >= 0) {
        self->quiet = 1;
        self->slot = (tag & KIND_MASK) == KIND_SLOT;
        TaskSet_set_tag(&group->tasks, task, (tag & MARK) | KIND_PLAIN);
    }
    Py_DECREF(done);
    Py_DECREF(task);
    return taken_back < 0 ? -1 : 0;
}

/* A turn whose coroutine is to run now: what it needs before.  -1 on error. */
static int
turn_prepare_lock_held(Turn *self, TurnState before)
{
    TaskGroup *group = self->group;
    int rc = 0;
    if (before == TURN_CALL) {
        rc = turn_tells_end_lock_held(self);
    }
    else if (self->waker != NULL) {
        // This is no step of its Task, which is to get one all the same.
        rc = turn_step_task_lock_held(self, 0);
    }
    else if (!group->starting_now) {
        // By its Task's own first step: before that the others could not start.
        rc = schedule_start_lock_held(group) < 0 ? -1 : wake_waiters_lock_held(group);
    }
    if (rc == 0 && self->quiet) {
        // asyncio copies it when it adds a done callback, which is before the Task has run as well.
        Py_XSETREF(self->context, PyContext_CopyCurrent());
        rc = self->context == NULL ? -1 : 0;
    }
    return rc;
}

/* Hand the caller's coroutine over, a callable's after calling it; a new reference. */
static PyObject *
turn_begin_lock_held(Turn *self)
{
    quattro_state *state = self->group->state;
    TurnState before = self->state;
    if (before == TURN_CANCELLED) {
        turn_raise_cancelled(self);
        return NULL;
    }
    if (before != TURN_CALL && before != TURN_GRANTED) {
        PyErr_SetString(PyExc_RuntimeError, "a turn can begin only once, after it has been awaited");
        return NULL;
    }
    turn_leave_lock_held(self, TURN_RUNNING);
    int refused = turn_prepare_lock_held(self, before) < 0;
    PyObject *coro = refused ? NULL : self->coro;
    if (coro == NULL) {
        if (!refused) {
            PyErr_SetString(PyExc_RuntimeError, "the coroutine of this turn has been closed");
        }
        return NULL;
    }
    self->coro = NULL;
    int rc = is_coroutine(state, coro);
    if (rc == 0) {
        PyObject *callable = coro;
        coro = PyObject_CallNoArgs(callable);
        rc = coro == NULL ? -1 : is_coroutine(state, coro);
        if (rc == 0) {
            set_not_a_coroutine(state, coro);
        }
        if (rc <= 0 && PyErr_ExceptionMatches(PyExc_TypeError)) {
            note_callable(state, callable);
        }
        Py_DECREF(callable);
    }
    if (rc <= 0) {
        Py_CLEAR(coro);
    }
    return coro;
}

/* `await turn` waits for the turn to come, and gives None: NULL, without an error. */
static PyObject *
turn_next_lock_held(Turn *self)
{
    switch (self->state) {
    case TURN_CALL:
        return NULL;
    case TURN_CANCELLED:
        turn_raise_cancelled(self);
        return NULL;
    case TURN_GRANTED:
        if (self->link.prev == &self->group->granted) {
            return NULL;
        }
        // Others were granted a slot before it, and have yet to start.
        // fall through
    case TURN_QUEUED:
        if (self->waker == NULL) {
            self->blocking = 1;
            return Py_NewRef(self);
        }
        // fall through
    default:
        PyErr_SetString(PyExc_RuntimeError, "a turn can be awaited only once");
        return NULL;
    }
}

static PyObject *
Turn_iternext(PyObject *op)
{
    PyObject *next;
    TRANSITION(TURN(op)->group, next = turn_next_lock_held(TURN(op)));
    return next;
}

static PyObject *
Turn_begin(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    PyObject *coro;
    LOCKED(TURN(op)->group, coro = turn_begin_lock_held(TURN(op)));
    return coro;
}

static PyObject *
turn_ended(PyObject *op, int failed)
{
    RETURN_NONE_LOCKED(TURN(op)->group, turn_end_lock_held(TURN(op), failed));
}

static PyObject *
Turn_end(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return turn_ended(op, 0);
}

static PyObject *
Turn_fail(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return turn_ended(op, 1);
}

static int
turn_cancel_lock_held(Turn *self, PyObject *message)
{
    if (self->state != TURN_QUEUED && self->state != TURN_GRANTED) {
        return 0;
    }
    Py_INCREF(self);
    turn_leave_lock_held(self, TURN_CANCELLED);
    Py_XSETREF(self->message, Py_XNewRef(message));
    PyObject *first = NULL;
    collect_error(self, &first, turn_release_lock_held(self));
    collect_error(self, &first, tell_cancelled_lock_held(self));
    turn_close_coro(self);
    Py_DECREF(self);
    return raise_collected(first) < 0 ? -1 : 1;
}

/* One optional argument, by position or by name, for the two methods that a Task calls with it. */
static int
one_argument(const char *function, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject *name,
             Py_ssize_t skip, PyObject **value)
{
    *value = nargs > skip ? args[skip] : NULL;
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (nkw == 1 && nargs == skip && PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, 0), name) == 0) {
        *value = args[skip];
    }
    else if (nkw != 0 || nargs < skip || nargs > skip + 1) {
        PyErr_Format(PyExc_TypeError, "%s() takes one optional argument, %U", function, name);
        return -1;
    }
    return 0;
}

static PyObject *
Turn_cancel(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *message;
    if (one_argument("cancel", args, nargs, kwnames, TURN(op)->group->state->str_msg, 0, &message) < 0) {
        return NULL;
    }
    int rc;
    TRANSITION(TURN(op)->group, rc = turn_cancel_lock_held(TURN(op), message));
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

static int
turn_add_waker_lock_held(Turn *self, PyObject *waker, PyObject *context)
{
    if (self->waker != NULL) {
        // Who waits for a slot has one still if it was woken although the loop had raised.
        PyObject *known = Py_NewRef(self->waker);
        int again = self->waiter ? PyObject_RichCompareBool(known, waker, Py_EQ) : 0;
        Py_DECREF(known);
        if (again == 0) {
            PyErr_SetString(PyExc_RuntimeError, "a turn has one task");
        }
        if (again <= 0) {
            return -1;
        }
    }
    // asyncio.Task gives a builtin method of itself.  That is not kept while it is queued, which may be long: it is one object
    // more for each task, and for the collector to visit.  Others need it, as there may be no memory for a new one then.
    self->wakeup = NULL;
    if (!self->waiter && is_wakeup(self->group->state, waker)) {
        self->wakeup = ((PyCFunctionObject *)waker)->m_ml;
        waker = PyCFunction_GET_SELF(waker);
    }
    Py_XSETREF(self->waker, Py_NewRef(waker));
    Py_XSETREF(self->waker_context, context == Py_None ? NULL : Py_XNewRef(context));
    switch (self->state) {
    case TURN_QUEUED:
        // Who waits for a slot may have missed it.
        return self->waiter && self->link.next != NULL ? wake_waiters_lock_held(self->group) : 0;
    case TURN_GRANTED:
        return self->group->starting_now ? 0 : schedule_start_lock_held(self->group);
    default:
        // Cancelled between `await turn` and here, by a hook of somebody's; or a stranger comes too late.
        return self->state == TURN_CANCELLED ? tell_cancelled_lock_held(self) : turn_step_task_lock_held(self, 0);
    }
}

static PyObject *
Turn_add_done_callback(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *context;
    if (one_argument("add_done_callback", args, nargs, kwnames, TURN(op)->group->state->str_context, 1, &context) < 0) {
        return NULL;
    }
    RETURN_NONE_LOCKED(TURN(op)->group, turn_add_waker_lock_held(TURN(op), args[0], context));
}

static TurnState
turn_state(PyObject *op)
{
    TurnState state;
    LOCKED(TURN(op)->group, state = TURN(op)->state);
    return state;
}

static PyObject *
turn_result_lock_held(Turn *self)
{
    if (self->state == TURN_CANCELLED) {
        turn_raise_cancelled(self);
        return NULL;
    }
    if (self->state == TURN_QUEUED && !self->waiter) {
        PyErr_SetString(self->group->state->InvalidStateError, "Result is not set.");
        return NULL;
    }
    return Py_NewRef(Py_None);
}

static PyObject *
Turn_result(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    PyObject *result;
    LOCKED(TURN(op)->group, result = turn_result_lock_held(TURN(op)));
    return result;
}

static PyObject *
Turn_done(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(turn_state(op) != TURN_QUEUED);
}

static PyObject *
Turn_cancelled(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(turn_state(op) == TURN_CANCELLED);
}

/* So that isinstance(turn, asyncio.Future) holds: anyio asks that of what a Task waits on, before it asks it for more. */
static PyObject *
Turn_get_class(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(TURN(op)->group->state->CFuture);
}

/* The Task asks a future for get_loop() first; but where there is no such method, an attribute is quicker. */
static PyObject *
Turn_get_loop(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(TURN(op)->group->loop);
}

static PyObject *
Turn_get_blocking(PyObject *op, void *Py_UNUSED(closure))
{
    int blocking;
    LOCKED(TURN(op)->group, blocking = TURN(op)->blocking);
    return PyBool_FromLong(blocking);
}

static int
Turn_set_blocking(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    int rc = value == NULL ? 0 : PyObject_IsTrue(value);
    if (rc < 0) {
        return -1;
    }
    LOCKED(TURN(op)->group, TURN(op)->blocking = rc != 0);
    return 0;
}

static PyObject *
Turn_repr(PyObject *op)
{
    static const char *const names[] = {"call", "queued", "granted", "running", "cancelled", "ended"};
    return PyUnicode_FromFormat("<turn %s>", names[turn_state(op)]);
}

static int
Turn_traverse(PyObject *op, visitproc visit, void *arg)
{
    Turn *self = TURN(op);
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->group);
    TURN_OBJECTS(VISIT)
    return 0;
}

static int
Turn_clear(PyObject *op)
{
    Turn *self = TURN(op);
    TURN_OBJECTS(CLEAR)
    return 0;
}

/* A coroutine that never got its turn is closed, not warned about. */
static void
Turn_finalize(PyObject *op)
{
    Turn *self = TURN(op);
    if (self->coro != NULL && PyCoro_CheckExact(self->coro)) {
        PyObject *exc = PyErr_GetRaisedException();
        PyObject *coro = self->coro;
        self->coro = NULL;
        // Not by way of the module state, which may be gone at shutdown.
        PyObject *result = PyObject_CallMethod(coro, "close", NULL);
        report_unraisable(coro);
        Py_XDECREF(result);
        Py_DECREF(coro);
        PyErr_SetRaisedException(exc);
    }
}

static PyMethodDef Turn_methods[] = {
    {"begin", Turn_begin, METH_NOARGS, PyDoc_STR("The coroutine to run, when the turn has come.")},
    {"end", Turn_end, METH_NOARGS, PyDoc_STR("run_turn() returns, or raises CancelledError.")},
    {"fail", Turn_fail, METH_NOARGS, PyDoc_STR("run_turn() raises another error.")},
    {"cancel", (PyCFunction)(void (*)(void))Turn_cancel, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"add_done_callback", (PyCFunction)(void (*)(void))Turn_add_done_callback, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"result", Turn_result, METH_NOARGS, NULL},
    {"done", Turn_done, METH_NOARGS, NULL},
    {"cancelled", Turn_cancelled, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Turn_getset[] = {
    {"_asyncio_future_blocking", Turn_get_blocking, Turn_set_blocking, NULL, NULL},
    {"_loop", Turn_get_loop, NULL, NULL, NULL},
    {"__class__", Turn_get_class, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot Turn_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A place in a group's queue. Internal.")},
    {Py_tp_dealloc, Part_dealloc},
    {Py_tp_traverse, Turn_traverse},
    {Py_tp_clear, Turn_clear},
    {Py_tp_finalize, Turn_finalize},
    {Py_tp_repr, Turn_repr},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, Turn_iternext},
    {Py_am_await, PyObject_SelfIter},
    {Py_tp_methods, Turn_methods},
    {Py_tp_getset, Turn_getset},
    {0, NULL},
};

PyType_Spec Turn_spec = {
    .name = "quattro._quattro._Turn",
    .basicsize = sizeof(Turn),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Turn_slots,
};
