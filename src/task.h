/* Asking a task: its callbacks, its cancellation, how it ended, who awaits it. */

#ifndef QUATTRO_TASK_H
#define QUATTRO_TASK_H

#include "group.h"

/* task.cancelling(), 0 for a task of a kind that does not count, -1 on error. */
long task_cancelling(quattro_state *state, PyObject *task);

/* How did a task end that is done?  1 and a new reference to its error in *exc; 0 for a result or a cancellation; -1 if it
   can't be asked.  If we only `peek`, one of asyncio's own kind does not count as asked. */
int task_error(quattro_state *state, PyObject *task, PyObject **exc, int peek);

int discard_awaited_by(TaskGroup *self, PyObject *task);

/* task.add_done_callback(callback), which runs in a copy of the context of now, as in asyncio. */
int add_done_callback(TaskGroup *self, PyObject *task, PyObject *callback);

/* Take a callback back from a task of asyncio's own kind, if it is the only one, so that it is compared with nobody's: 1,
   or 0 if it is not.  -1 on error. */
int take_back_callback(TaskGroup *self, PyObject *task, PyObject *callback);

/* Is this a task of asyncio's own kind that has yet to end? */
int task_runs(quattro_state *state, PyObject *task);

int add_awaited_by(TaskGroup *self, PyObject *task);

/* A task that may have run eagerly: where is it?  -1 on error. */
enum { TASK_RUNS, TASK_ENDED_WELL, TASK_FAILED, TASK_BROKE_OFF };   // with an Exception; with no Exception
int task_progress(quattro_state *state, PyObject *task);

#endif
