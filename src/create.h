/* Making a task: refuse, make, adopt, queue. */

#ifndef QUATTRO_CREATE_H
#define QUATTRO_CREATE_H

#include "group.h"

/* The arguments (coro, *, name=None, context=None, eager_start=None, **kwargs). */
PyObject *create(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, int background);

/* Can a task, or a background task, be created now?  0; or -1 and asyncio's RuntimeError, with a note on what to do. */
int check_open_lock_held(TaskGroup *self, int background);

#endif
