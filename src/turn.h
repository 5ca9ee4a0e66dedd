/* Turn, as others use it: a place in the queue, with its states. */

#ifndef QUATTRO_TURN_H
#define QUATTRO_TURN_H

#include "coro.h"
#include "group.h"

static inline Turn *
Turn_new(TaskGroup *group, PyObject *coro, TurnState state)
{
    Turn *self = Part_new(group->state->Turn_Type, group);
    if (self != NULL) {
        self->coro = Py_XNewRef(coro);
        self->state = state;
    }
    return self;
}

/* Is this what asyncio.Task gives a future that it waits on, a builtin method of itself? */
static inline int
is_wakeup(quattro_state *state, PyObject *waker)
{
    return PyCFunction_CheckExact(waker) && PyCFunction_GET_FLAGS(waker) == METH_O && PyCFunction_GET_SELF(waker) != NULL
           && Py_IS_TYPE(PyCFunction_GET_SELF(waker), (PyTypeObject *)state->CTask);
}

/* Nobody will run the coroutine: close it. */
static inline void
turn_close_coro(Turn *self)
{
    PyObject *coro = self->coro;
    self->coro = NULL;
    if (coro != NULL) {
        close_coroutine(self->group->state, coro);
        Py_DECREF(coro);
    }
}

/* Leave the list that it is in, if any, for a state without one; a granted turn keeps its slot.  The list's reference is
   dropped: the caller has another. */
static inline void
turn_leave_lock_held(Turn *self, TurnState state)
{
    ASSERT_LOCKED(self->group);
    int listed = self->link.next != NULL;
    if (listed) {
        Link_remove(&self->link);
        self->group->queued -= self->state == TURN_QUEUED && !self->waiter;
        self->group->starting -= self->state == TURN_GRANTED;
    }
    self->state = state;
    if (listed) {
        Py_DECREF(self);
    }
}

/* What makes the turn its Task's done callback. */
PyObject *turn_new_callback(Turn *self);

#endif
