/* The limit: who is granted a slot, who starts, and who hears that it will not. */

#ifndef QUATTRO_SLOTS_H
#define QUATTRO_SLOTS_H

#include "group.h"

/* Give the slot back, if it has one, to the head of the queue. */
int turn_release_lock_held(Turn *self);

/* Have the oldest granted turn, and those after it, started by a handle of the loop.  One that is due anyway will do,
   unless a newcomer got a slot since: it takes its first step after that handle.  A turn whose Task has yet to park
   needs none: that Task's first step starts it, and the others. */
int schedule_start_lock_held(TaskGroup *self);

/* Have the Task of a turn that was cancelled hear of it.  Without a waker it has not parked yet: its first step will. */
int tell_cancelled_lock_held(Turn *turn);

/* The same, and have them started. */
int grant_lock_held(TaskGroup *self);

/* A slot comes back. */
int release_lock_held(TaskGroup *self);

/* Tell the Task that waits on a turn, if one does, to take its next step in its context: `now`, or by way of the loop,
   also where somebody is in that context. */
int turn_step_task_lock_held(Turn *turn, int now);

/* The same now, from a Callback, which can say how long that took if it is `timed`. */
int turn_step_task_now_lock_held(Turn *turn, int timed);

/* The Callback `start`.  Of several handles only the last one starts somebody: whoever an earlier one was scheduled for
   has gone, or no newcomer could have got a slot behind it. */
int start_lock_held(TaskGroup *self, PyObject *ignored);

/* A task's end gives a slot back.  The loop calls the Callback one iteration after that end, which is when the head of
   the queue is due: it is started right here, unless somebody before it has yet to take a first step. */
int release_and_start_lock_held(TaskGroup *self);

/* Would a foreground task that is created now start without queueing? */
static inline int
slot_is_free(const TaskGroup *self)
{
    return self->limit == 0 || (self->slots < self->limit && self->queued == 0 && self->starting == 0);
}

/* Have all who wait for a slot look again, in the order in which they came, if there is one, or never will be. */
int wake_waiters_lock_held(TaskGroup *self);

#endif
