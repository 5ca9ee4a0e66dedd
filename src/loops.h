/* What is known of the insides of event loops, asyncio's and uvloop's: how create_task() may be shortened, whether anything
   is ready, debug mode.  And what every loop is asked: call_soon(). */

#ifndef QUATTRO_LOOPS_H
#define QUATTRO_LOOPS_H

#include "group.h"

/* Have the loop call a function after all that is ready now: with an argument, unless that is NULL, and in a context,
   a copy of the caller's for NULL.  0, or -1 on error. */
int call_soon(TaskGroup *self, PyObject *function, PyObject *arg, PyObject *context);

/* The same; a new reference to the handle, or NULL on error. */
PyObject *schedule(TaskGroup *self, PyObject *function, PyObject *arg, PyObject *context);

/* The last of the handles that are ready: 1 and a new reference, or NULL if there is none; 0 if the loop does not show
   them; -1 on error. */
int loop_last_handle(TaskGroup *self, PyObject **handle);

/* Does the loop report slow callbacks?  -1 on error.  (uvloop's reports name no Task.) */
int loop_times_callbacks(TaskGroup *self);

/* loop.time(), into *now; 0, or -1. */
int loop_time(TaskGroup *self, double *now);

/* Is this code run by the loop itself, and not within a task's step or by another thread?  -1 on error. */
int no_task_is_running(TaskGroup *self);

/* Is this, a task of asyncio's own kind, the one whose step is being taken?  -1 on error. */
int task_is_running(TaskGroup *self, const void *task);

/* Is nothing ready to be called, as far as the loop shows it?  -1 on error. */
int loop_is_idle(TaskGroup *self);

/* Is this keyword among the caller's? */
int call_has(const Call *call, PyObject *name);

/* A task as loop.create_task() makes it; *direct says whether by asyncio.Task().  `park` says that it may start within the
   call to wait for its turn, where that can't be seen. */
PyObject *make_task(TaskGroup *self, const Call *call, int park, int *direct);

#endif
