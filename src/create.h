/* Making a task: refuse, make, adopt, queue. */

#ifndef QUATTRO_CREATE_H
#define QUATTRO_CREATE_H

#include "group.h"

/* The arguments (coro, *, name=None, context=None, eager_start=None, **kwargs). */
PyObject *create(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, int background);

#endif
