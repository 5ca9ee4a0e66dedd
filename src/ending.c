/* What a task's end brings: its error, the abort, the end of the background tasks, the parent's next step. */

#include "ending.h"
#include "loops.h"
#include "slots.h"
#include "task.h"
#include "turn.h"

int
append_error(TaskGroup *self, PyObject *exc)
{
    if (self->errors == NULL) {
        self->errors = PyList_New(0);
        if (self->errors == NULL) {
            return -1;
        }
    }
    return PyList_Append(self->errors, exc);
}

/* Cancel the tasks that the group has not cancelled yet, once each.  A background task that somebody else has cancelled
   is left to its clean-up, and cancelled if it goes on after that.  All are tried; the first error is raised. */
static int
cancel_tasks_lock_held(TaskGroup *self)
{
    ASSERT_LOCKED(self);
    quattro_state *state = self->state;
    PyObject *first = NULL;
    size_t found;
    do {
        size_t at = 0;
        found = 0;
        PyObject *task;
        int kind;
        while ((task = TaskSet_mark_next(&self->tasks, &at, &kind)) != NULL) {
            found++;
            long cancelling = kind == KIND_BACKGROUND ? task_cancelling(state, task) : 0;
            collect_error(self, &first, cancelling < 0 ? -1 : 0);
            // asyncio's own cancel() cancels nothing then; another's is not called for a task that is done.
            int done = Py_IS_TYPE(task, (PyTypeObject *)state->CTask) ? 0 : call_is_true(task, state->str_done);
            collect_error(self, &first, done);
            if (done <= 0) {        // it is asked only once, so it is cancelled if it doesn't say
                PyObject *result = cancelling > 0 ? PyObject_CallOneArg(state->cancel_unless_ending, task)
                                                  : PyObject_CallMethodNoArgs(task, state->str_cancel);
                collect_error(self, &first, result == NULL ? -1 : 0);
                Py_XDECREF(result);
            }
            Py_DECREF(task);
        }
    } while (found > 0);
    return raise_collected(first);
}

int
drain_queue_lock_held(TaskGroup *self)
{
    ASSERT_LOCKED(self);
    PyObject *first = NULL;
    while (!Link_is_empty(&self->queue)) {
        Turn *turn = TURN_OF(self->queue.next);
        Py_INCREF(turn);
        turn_leave_lock_held(turn, TURN_CANCELLED);
        collect_error(self, &first, tell_cancelled_lock_held(turn));
        turn_close_coro(turn);
        Py_DECREF(turn);
    }
    return raise_collected(first);
}

static int
abort_lock_held(TaskGroup *self)
{
    ASSERT_LOCKED(self);
    self->aborting = 1;
    PyObject *first = NULL;
    collect_error(self, &first, cancel_tasks_lock_held(self));
    collect_error(self, &first, drain_queue_lock_held(self));
    collect_error(self, &first, wake_waiters_lock_held(self));
    return raise_collected(first);
}

/* The Callback of a stop that was put off. */
static int
stop_later_lock_held(TaskGroup *self, PyObject *Py_UNUSED(ignored))
{
    self->stop_scheduled = 0;
    return stop_background_lock_held(self);
}

int
stop_background_lock_held(TaskGroup *self)
{
    if (!self->exiting || self->stopping || self->aborting || self->finished
        || self->background == 0 || self->tasks.used != self->background)
    {
        return 0;
    }
    PyObject *first = NULL;
    if (self->woken && !self->stop_scheduled) {
        // Who waited for a slot has been told of one: what it is about to make may be more for the background tasks to
        // serve.  They are stopped now only if this can't be put off.
        self->woken = 0;
        PyObject *callback = Callback_new(self, stop_later_lock_held, "TaskGroup._stop", NULL);
        self->stop_scheduled = callback != NULL && call_soon(self, callback, NULL, NULL) == 0;
        collect_error(self, &first, self->stop_scheduled ? 0 : -1);
        Py_XDECREF(callback);
    }
    if (!self->stop_scheduled) {
        self->stopping = 1;
        collect_error(self, &first, cancel_tasks_lock_held(self));
    }
    return raise_collected(first);
}

int
cancel_lock_held(TaskGroup *self)
{
    ASSERT_LOCKED(self);
    if (!self->entered) {
        self->cancel_on_enter = 1;
        return 0;
    }
    if (self->finished || (self->exiting && self->tasks.used == 0) || self->aborting) {
        return 0;
    }
    PyObject *parent = Py_XNewRef(self->parent);
    PyObject *first = NULL;
    collect_error(self, &first, call_method((PyObject *)self, self->state->str__abort));
    if (parent != NULL && !self->parent_cancel_requested) {
        self->parent_cancel_requested = 1;
        collect_error(parent, &first, call_method(parent, self->state->str_cancel));
    }
    Py_XDECREF(parent);
    return raise_collected(first);
}

PyObject *
TaskGroup__abort(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    RETURN_NONE_LOCKED(op, abort_lock_held(GROUP(op)));
}

/* May the parent take its step right here, one iteration of the loop earlier than by way of the loop?  Only if it would
   be the next to run in any case: in the last task's Callback, with nothing else ready.  Not in debug mode, which shows
   for how long a callback keeps what it was called with: here, the last task.  -1 on error. */
static int
parent_may_step(TaskGroup *self)
{
    if (self->running == NULL) {
        return 0;
    }
    int debug = loop_times_callbacks(self);
    int idle = debug == 0 ? loop_is_idle(self) : debug < 0 ? -1 : 0;
    return idle <= 0 ? idle : no_task_is_running(self);
}

/* The last task has ended: have the parent, which waits on this turn, take its next step, now if it may or by way of the
   loop. */
static int
wake_parent_lock_held(TaskGroup *self, Turn *waiter, int may_step)
{
    ASSERT_LOCKED(self);
    if (waiter->waker == NULL || self->loop == NULL) {
        return 0;               // add_done_callback() will see that it need not wait
    }
    PyObject *first = NULL;
    int now = may_step ? parent_may_step(self) : 0;
    collect_error(self, &first, now);
    collect_error(self, &first, now > 0 && waiter->waker_context != NULL
                                ? turn_step_task_now_lock_held(waiter, 0)
                                : turn_step_task_lock_held(waiter, 0));
    return raise_collected(first);
}

/* The parent is done, or the group has been left: the loop's handler is told. */
static int
report_late_error(TaskGroup *self, PyObject *task, PyObject *exc, PyObject *parent)
{
    if (self->loop == NULL) {
        return refuse(self, "has not been entered");
    }
    PyObject *result = PyObject_CallFunctionObjArgs(self->state->report_late, self->loop, task, exc, parent, NULL);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* What a task's error does to the group (asyncio's _on_task_done from `self._errors.append(exc)` on).  One that cancels
   nothing is kept for the exit; but what served the other tasks is missed, and what is no Exception is no mere failure. */
static int
take_error_lock_held(TaskGroup *self, PyObject *task, PyObject *exc, int background)
{
    quattro_state *state = self->state;
    PyObject *first = NULL;
    PyObject *parent = Py_XNewRef(self->parent);
    int parent_done = 1;
    if (parent != NULL) {
        collect_error(task, &first, append_error(self, exc));
        if (is_base_error(exc) && self->base_error == NULL) {
            self->base_error = Py_NewRef(exc);
        }
        parent_done = call_is_true(parent, state->str_done);
        collect_error(task, &first, parent_done);
    }
    if (parent_done > 0) {
        self->told += parent != NULL;
        collect_error(task, &first, report_late_error(self, task, exc, parent == NULL ? Py_None : parent));
    }
    else if (parent_done == 0 && !self->aborting && !self->parent_cancel_requested
             && (self->cancel_on_error || background || !PyErr_GivenExceptionMatches(exc, PyExc_Exception)))
    {
        // The parent is cancelled to get it out of the body, and uncancelled in __aexit__().
        collect_error(task, &first, call_method((PyObject *)self, self->state->str__abort));
        self->parent_cancel_requested = 1;
        collect_error(task, &first, call_method(parent, state->str_cancel));
    }
    Py_XDECREF(parent);
    return raise_collected(first);
}

void
drop_turns_lock_held(TaskGroup *self, int announced)
{
    PyObject *exc = PyErr_GetRaisedException();
    Link *heads[] = {&self->queue, &self->granted, &self->cancelled, &self->waiters};
    for (int i = 0; i < 4 - announced; i++) {
        while (!Link_is_empty(heads[i])) {
            Turn *turn = TURN_OF(heads[i]->next);
            Py_INCREF(turn);
            turn_leave_lock_held(turn, announced ? TURN_CANCELLED : TURN_ENDED);
            if (announced) {
                turn_close_coro(turn);
                (void)turn_step_task_lock_held(turn, 0);
                report_unraisable((PyObject *)self);
            }
            Py_DECREF(turn);
        }
    }
    PyErr_SetRaisedException(exc);
}

void
drop_callbacks_lock_held(TaskGroup *self)
{
    if (self->finished && self->tasks.used == 0) {
        drop_turns_lock_held(self, 1);
        GROUP_CALLBACKS(CLEAR)
        TaskSet_clear(&self->tasks);
    }
}

int
task_ended_lock_held(TaskGroup *self, PyObject *task, PyObject *error)
{
    ASSERT_LOCKED(self);
    PyObject *first = NULL;
    int tag = TaskSet_take(&self->tasks, task);
    int kind = tag < 0 ? KIND_PLAIN : tag & KIND_MASK;
    if (kind == KIND_BACKGROUND) {
        self->background--;
    }
    collect_error(task, &first, discard_awaited_by(self, task));
    Turn *waiter = NULL;
    if (self->tasks.used == 0 && self->waiter != NULL && TURN(self->waiter)->state == TURN_QUEUED) {
        waiter = (Turn *)Py_NewRef(self->waiter);
        waiter->state = TURN_RUNNING;
    }
    PyObject *exc = Py_XNewRef(error);
    int failed = error != NULL ? 1 : task_error(self->state, task, &exc, 0);
    collect_error(task, &first, failed);
    if (waiter != NULL && failed > 0) {
        // Before whatever somebody's _abort() or cancel() may schedule, as asyncio's.
        collect_error(task, &first, wake_parent_lock_held(self, waiter, 0));
        Py_CLEAR(waiter);
    }
    if (failed > 0) {
        collect_error(task, &first, take_error_lock_held(self, task, exc, kind == KIND_BACKGROUND));
        Py_DECREF(exc);
    }
    if (kind == KIND_SLOT) {
        collect_error(task, &first, release_and_start_lock_held(self));
    }
    collect_error(task, &first, stop_background_lock_held(self));
    if (waiter != NULL) {
        collect_error(task, &first, wake_parent_lock_held(self, waiter, 1));
        Py_DECREF(waiter);
    }
    drop_callbacks_lock_held(self);
    if (tag >= 0) {
        Py_DECREF(task);        // the set's
    }
    return raise_collected(first);
}

int
end_of_task_lock_held(TaskGroup *self, PyObject *task)
{
    if (!PyList_CheckExact(task)) {
        return task_ended_lock_held(self, task, NULL);
    }
    PyObject *first = NULL;
    PyObject *list = task;
    if (self->ended == list) {
        Py_CLEAR(self->ended);
        Py_CLEAR(self->ended_handle);
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        task = PySequence_GetItem(list, i);
        collect_error(self, &first, task == NULL ? -1 : task_ended_lock_held(self, task, NULL));
        Py_XDECREF(task);
    }
    return raise_collected(first);
}

int
end_soon_lock_held(TaskGroup *self, PyObject *task)
{
    PyObject *last;
    int shown = loop_last_handle(self, &last);
    int together = shown > 0 && last != NULL && last == self->ended_handle && self->ended != NULL;
    Py_XDECREF(last);
    if (shown <= 0 || self->done == NULL) {
        return shown < 0 ? -1 : self->done == NULL ? refuse(self, "is finished") : call_soon(self, self->done, task, NULL);
    }
    if (together) {
        return PyList_Append(self->ended, task);
    }
    PyObject *list = Py_BuildValue("[O]", task);
    PyObject *handle = list == NULL ? NULL : schedule(self, self->done, list, NULL);
    if (handle == NULL) {
        Py_XDECREF(list);
        return -1;
    }
    Py_XSETREF(self->ended, list);
    Py_XSETREF(self->ended_handle, handle);
    return 0;
}

int
see_end_lock_held(TaskGroup *self, const void *key, PyObject *context)
{
    ASSERT_LOCKED(self);
    PyObject *task = Py_NewRef((PyObject *)key);
    int rc = self->done == NULL || self->loop == NULL ? refuse(self, "is finished")
                                                      : call_soon(self, self->done, task, context);
    if (rc < 0) {
        PyObject *exc = PyErr_GetRaisedException();
        if (task_ended_lock_held(self, task, exc) < 0) {
            report_unraisable(task);
        }
        PyErr_SetRaisedException(exc);
    }
    Py_DECREF(task);
    return rc;
}

/* Has another foreground task of the group yet to end?  A few of the newest are asked; 0 if that does not tell. */
static int
another_runs_lock_held(TaskGroup *self, const void *key)
{
    TaskSet *set = &self->tasks;
    for (size_t i = 1; i <= SCAN && i <= set->end - set->begin; i++) {
        uintptr_t entry = set->entries[set->end - i];
        if (entry != 0 && ENTRY_TASK(entry) != key && (entry & KIND_MASK) != KIND_BACKGROUND) {
            PyObject *task = Py_NewRef(ENTRY_TASK(entry));
            int runs = task_runs(self->state, task);
            Py_DECREF(task);
            if (runs) {
                return 1;
            }
        }
    }
    return 0;
}

int
leave_lock_held(TaskGroup *self, const void *key, PyObject *context)
{
    ASSERT_LOCKED(self);
    if (!another_runs_lock_held(self, key) && TaskSet_tag(&self->tasks, key) >= 0) {
        // The others may have ended, and their callbacks be on their way: the group ends with this one's, after those that
        // the task has been given.
        return see_end_lock_held(self, key, context);
    }
    if (TaskSet_take(&self->tasks, key) < 0) {
        return 0;               // somebody has announced its end
    }
    PyObject *task = (PyObject *)key;
    int rc = discard_awaited_by(self, task);
    Py_DECREF(task);            // the set's
    return rc;
}

PyObject *
TaskGroup__on_task_done(PyObject *op, PyObject *task)
{
    int rc;
    BEGIN_SECTION(op);
    struct Callback *outer = GROUP(op)->running;
    GROUP(op)->running = NULL;
    rc = task_ended_lock_held(GROUP(op), task, NULL);
    GROUP(op)->running = outer;
    check_lock_held(GROUP(op));
    END_SECTION();
    if (rc < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}
