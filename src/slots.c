/* The limit: who is granted a slot, who starts, and who hears that it will not. */

#include "slots.h"
#include "coro.h"
#include "loops.h"
#include "turn.h"

int
schedule_start_lock_held(TaskGroup *self)
{
    ASSERT_LOCKED(self);
    int to_start = !Link_is_empty(&self->granted) && TURN_OF(self->granted.next)->waker != NULL
                   && (self->handles == 0 || !self->may_ride);
    // None for these yet only if the loop has refused one.
    int to_tell = !Link_is_empty(&self->cancelled) && self->handles == 0;
    if (self->start == NULL || self->loop == NULL || !(to_start || to_tell)) {
        return 0;
    }
    self->handles++;
    self->may_ride = 1;
    if (call_soon(self, self->start, NULL, NULL) < 0) {
        self->handles -= self->handles > 0;
        self->may_ride = 0;
        return -1;
    }
    return 0;
}

int
tell_cancelled_lock_held(Turn *turn)
{
    TaskGroup *self = turn->group;
    if (turn->waiter) {
        return turn_step_task_lock_held(turn, 0);
    }
    if (turn->waker == NULL || turn->link.next != NULL) {
        return 0;
    }
    Py_INCREF(turn);
    Link_append(&self->cancelled, &turn->link);
    return schedule_start_lock_held(self);
}

int
wake_waiters_lock_held(TaskGroup *self)
{
    ASSERT_LOCKED(self);
    if (Link_is_empty(&self->waiters) || !(self->aborting || self->finished || slot_is_free(self))) {
        return 0;
    }
    PyObject *first = NULL;
    Turn *turn = (Turn *)Py_NewRef(TURN_OF(self->waiters.next));
    while (turn != NULL) {
        if (turn->state == TURN_QUEUED && turn->waker != NULL) {
            turn->state = TURN_RUNNING;
            self->woken = 1;
            int rc = turn_step_task_lock_held(turn, 0);
            if (rc < 0 && turn->state == TURN_RUNNING) {
                turn->state = TURN_QUEUED;      // the next time, then
            }
            collect_error(self, &first, rc);
        }
        // The loop may have changed the list: if this one has left it, begin again, for those that are woken are passed over.
        Link *next = turn->link.next == NULL ? self->waiters.next : turn->link.next;
        Py_SETREF(turn, next == &self->waiters ? NULL : (Turn *)Py_NewRef(TURN_OF(next)));
    }
    return raise_collected(first);
}

/* Is the first step of a granted turn's Task going to be a cancellation?  Then the slot, in which nothing would run, is
   free again. */
static int
withdraw_if_cancelled_lock_held(TaskGroup *self, Turn *turn)
{
    int known = TaskSet_tag(&self->tasks, turn->task) >= 0;
    PyObject *task = known ? Py_NewRef((PyObject *)turn->task) : NULL;
    int must_cancel = known ? attr_is_true(task, self->state->str__must_cancel) : 0;
    if (must_cancel < 0) {
        report_unraisable(task);
    }
    Py_XDECREF(task);
    if (must_cancel <= 0 || turn->state != TURN_GRANTED) {
        return 0;
    }
    turn_leave_lock_held(turn, TURN_CANCELLED);
    turn->slot = 0;
    turn_close_coro(turn);
    self->slots--;              // last, as what is called in between may look at the group
    return 1;
}

/* Move turns from the queue to the free slots. */
static void
fill_slots_lock_held(TaskGroup *self)
{
    ASSERT_LOCKED(self);
    while (!self->aborting && self->slots < self->limit && !Link_is_empty(&self->queue)) {
        Turn *turn = TURN_OF(self->queue.next);
        Py_INCREF(turn);
        Link_remove(&turn->link);
        Link_append(&self->granted, &turn->link);
        turn->state = TURN_GRANTED;
        turn->slot = 1;
        self->queued--;
        self->slots++;
        self->starting++;
        if (turn->waker == NULL) {
            withdraw_if_cancelled_lock_held(self, turn);
        }
        Py_DECREF(turn);
    }
}

int
grant_lock_held(TaskGroup *self)
{
    PyObject *first = NULL;
    fill_slots_lock_held(self);
    collect_error(self, &first, schedule_start_lock_held(self));
    collect_error(self, &first, wake_waiters_lock_held(self));
    return raise_collected(first);
}

int
release_lock_held(TaskGroup *self)
{
    ASSERT_LOCKED(self);
    assert(self->slots > 0);
    self->slots--;
    return grant_lock_held(self);
}

/* What a waker is called with: the turn, but that a Task asks a future that is done much quicker how the wait ended; a new
   reference. */
static PyObject *
waking_future(Turn *turn)
{
    quattro_state *state = turn->group->state;
    PyObject *future = turn->group->done_future != NULL ? turn->group->done_future : state->done_future;
    int quicker = future != Py_None && turn->state != TURN_CANCELLED
                  && (turn->wakeup != NULL || (turn->waker != NULL && is_wakeup(state, turn->waker)));
    return Py_NewRef(quicker ? future : (PyObject *)turn);
}

int
turn_step_task_lock_held(Turn *turn, int now)
{
    ASSERT_LOCKED(turn->group);
    PyObject *future = waking_future(turn);
    PyObject *waker = turn->waker;
    PyObject *context = turn->waker_context;
    PyMethodDef *wakeup = turn->wakeup;
    turn->waker = turn->waker_context = NULL;
    int rc = 0;
    if (waker != NULL && now && (context == NULL || PyContext_Enter(context) == 0)) {
        PyObject *result = wakeup != NULL ? wakeup->ml_meth(waker, future) : PyObject_CallOneArg(waker, future);
        PyObject *first = NULL;
        collect_error(waker, &first, result == NULL ? -1 : 0);
        collect_error(waker, &first, context == NULL ? 0 : PyContext_Exit(context));
        Py_XDECREF(result);
        rc = raise_collected(first);
    }
    else if (waker != NULL) {
        PyErr_Clear();          // PyContext_Enter()'s RuntimeError: somebody is in it
        PyObject *callback = wakeup != NULL ? PyCFunction_New(wakeup, waker) : Py_NewRef(waker);
        rc = callback == NULL ? -1 : call_soon(turn->group, callback, future, context);
        Py_XDECREF(callback);
        if (rc < 0 && turn->waker == NULL) {
            turn->waker = waker;
            turn->waker_context = context;
            waker = context = NULL;     // it waits on
        }
    }
    Py_XDECREF(waker);
    Py_XDECREF(context);
    Py_DECREF(future);
    return rc;
}

int
turn_step_task_now_lock_held(Turn *turn, int timed)
{
    TaskGroup *self = turn->group;
    Callback *callback = self->running;
    self->running = NULL;
    PyObject *task = turn->wakeup == NULL ? NULL : Py_XNewRef(turn->waker);
    PyObject *first = NULL;
    double began = 0, ended = 0;
    collect_error(self, &first, timed ? loop_time(self, &began) : 0);
    collect_error(self, &first, turn_step_task_lock_held(turn, 1));
    if (timed && callback != NULL) {
        collect_error(self, &first, loop_time(self, &ended));
        if (callback->slowest == NULL || ended - began > callback->took) {
            Py_XSETREF(callback->slowest, Py_XNewRef(task));
            callback->took = ended - began;
        }
    }
    Py_XDECREF(task);
    self->running = callback;
    return raise_collected(first);
}

int
turn_release_lock_held(Turn *self)
{
    ASSERT_LOCKED(self->group);
    if (!self->slot) {
        return 0;
    }
    self->slot = 0;
    return release_lock_held(self->group);
}

/* Let the Tasks of the turns that have been granted a slot until now take their first step, each in its own context and
   in the order of the queue.  Those that are granted one meanwhile have a handle of their own coming. */
static int
start_granted_lock_held(TaskGroup *self)
{
    ASSERT_LOCKED(self);
    PyObject *first = NULL;
    Py_ssize_t count = self->starting;
    int timed = count == 0 ? 0 : loop_times_callbacks(self);
    collect_error(self, &first, timed);
    if (count > 0 && self->done_future == NULL) {
        PyObject *made = PyObject_CallOneArg(self->state->need_done_future, self->loop);
        collect_error(self, &first, made == NULL ? -1 : 0);
        Py_XSETREF(self->done_future, made);
    }
    self->starting_now = 1;
    while (first == NULL && count-- > 0 && !Link_is_empty(&self->granted)) {
        Turn *turn = TURN_OF(self->granted.next);
        Py_INCREF(turn);
        if (turn->waker != NULL) {
            collect_error(self, &first, turn_step_task_now_lock_held(turn, timed));
        }
        else if (withdraw_if_cancelled_lock_held(self, turn)) {
            fill_slots_lock_held(self);
        }
        else {
            count = 0;          // its first step starts it, and then the others
        }
        Py_DECREF(turn);
    }
    self->starting_now = 0;
    // Who is left, because an error ended the loop (KeyboardInterrupt, say), is not lost.
    collect_error(self, &first, schedule_start_lock_held(self));
    collect_error(self, &first, wake_waiters_lock_held(self));
    return raise_collected(first);
}

/* Let the Tasks of the turns that have been cancelled until now hear of it. */
static int
step_cancelled_lock_held(TaskGroup *self)
{
    PyObject *first = NULL;
    Py_ssize_t count = Link_length(&self->cancelled);
    int timed = count == 0 ? 0 : loop_times_callbacks(self);
    collect_error(self, &first, timed);
    while (first == NULL && count-- > 0 && !Link_is_empty(&self->cancelled)) {
        Turn *turn = TURN_OF(self->cancelled.next);
        Link_remove(&turn->link);       // the list's reference is ours now
        collect_error(self, &first, turn_step_task_now_lock_held(turn, timed));
        Py_DECREF(turn);
    }
    return raise_collected(first);
}

int
start_lock_held(TaskGroup *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *first = NULL;
    self->handles -= self->handles > 0;
    collect_error(self, &first, step_cancelled_lock_held(self));
    if (self->handles == 0) {
        collect_error(self, &first, start_granted_lock_held(self));     // and has the loop called again if need be
    }
    return raise_collected(first);
}

/* Have all that got a slot without queueing taken their first step?  The loop runs first steps in the order in which
   their tasks were made, so that it is enough to look at the newest. */
static int
newest_has_started_lock_held(TaskGroup *self)
{
    PyObject *coro = Py_XNewRef(self->newest);
    if (coro == NULL) {
        return 1;
    }
    int started = coroutine_has_started(self->state, coro);
    if (started > 0 && self->newest == coro) {
        Py_CLEAR(self->newest);
    }
    Py_DECREF(coro);
    return started;
}

int
release_and_start_lock_held(TaskGroup *self)
{
    ASSERT_LOCKED(self);
    PyObject *first = NULL;
    int now = self->running != NULL && !Link_is_empty(&self->queue) && self->starting == 0 && self->loop != NULL;
    // Asked while the slot is still taken: whoever answers may use the group.
    if (now) {
        now = newest_has_started_lock_held(self);
    }
    if (now > 0) {
        now = no_task_is_running(self);
    }
    collect_error(self, &first, now);
    assert(self->slots > 0);
    self->slots--;
    int nobody_before = self->starting == 0;
    fill_slots_lock_held(self);
    collect_error(self, &first, now > 0 && nobody_before ? start_granted_lock_held(self)
                                                         : schedule_start_lock_held(self));
    collect_error(self, &first, wake_waiters_lock_held(self));
    return raise_collected(first);
}
