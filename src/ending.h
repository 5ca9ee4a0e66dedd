/* What a task's end brings: its error, the abort, the end of the background tasks, the parent's next step. */

#ifndef QUATTRO_ENDING_H
#define QUATTRO_ENDING_H

#include "group.h"

int append_error(TaskGroup *self, PyObject *exc);

/* Whatever is still queued (its Task has yet to take the step that the cancellation will be) runs no line.  All hear
   of it; -1 if the loop has raised. */
int drain_queue_lock_held(TaskGroup *self);

/* The body and the last foreground task have ended: so do the background tasks now. */
int stop_background_lock_held(TaskGroup *self);

/* Empty the lists: of turns whose Tasks have been `announced` to have ended, but have not, whose coroutines will not run;
   or all, for the collector. */
void drop_turns_lock_held(TaskGroup *self, int announced);

/* A finished group without tasks needs no callbacks, which are cycles. */
void drop_callbacks_lock_held(TaskGroup *self);

/* What a task's end brings: the group's _on_task_done().  `error` is what the task is about to fail with, NULL for a task
   that is done. */
int task_ended_lock_held(TaskGroup *self, PyObject *task, PyObject *error);

/* The Callback `done`, with a task, or with a list of them. */
int end_of_task_lock_held(TaskGroup *self, PyObject *task);

/* Have the loop call `done` with a task that has ended well already.  One call will do for several that end one right
   after the other, because nothing could be called in between. */
int end_soon_lock_held(TaskGroup *self, PyObject *task);

/* A quiet task ends within this step: have the loop call us where it would call the task's first done callback, before
   those that others have given it.  If that can't be had, the error that says so is what the task fails with, and its
   end is seen now. */
int see_end_lock_held(TaskGroup *self, const void *key, PyObject *context);

/* A quiet task is about to end without an error. */
int leave_lock_held(TaskGroup *self, const void *key, PyObject *context);

int cancel_lock_held(TaskGroup *self);

PyObject *TaskGroup__abort(PyObject *op, PyObject *ignored);

/* Called by somebody, not by the loop as the Callback is: what the caller does next comes before any task's step. */
PyObject *TaskGroup__on_task_done(PyObject *op, PyObject *task);

#endif
