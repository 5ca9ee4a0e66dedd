/* Coroutines: is it one, has it run, close it, and its names. */

#ifndef QUATTRO_CORO_H
#define QUATTRO_CORO_H

#include "state.h"

/* asyncio.iscoroutine(), the newest: on 3.11 asyncio's own lets plain generators through, too. */
int is_coroutine(quattro_state *state, PyObject *op);

void set_not_a_coroutine(quattro_state *state, PyObject *op);

/* Close what a caller gave us and nobody will run; a callable needs nothing.  Leaves the error indicator as it was. */
void close_coroutine(quattro_state *state, PyObject *coro);

/* Has it run a line (1), not (0), or raised when asked (-1)?  0 also for what does not tell. */
int coroutine_has_started(quattro_state *state, PyObject *coro);

/* The creation of a task failed with the error that is set: close the coroutine unless it has run. */
void close_unstarted(quattro_state *state, PyObject *coro);

/* Show the name of the caller's coroutine (or of the function behind a callable) as that of the coroutine `to` around
   it. */
int copy_names(quattro_state *state, PyObject *to, PyObject *op);

/* A callable led to the TypeError that is set, instead of giving a coroutine: unless it was entered, a note says where it is
   defined. */
void note_callable(quattro_state *state, PyObject *callable);

#endif
