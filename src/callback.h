/* Callback: what the loop calls, at a task's end or to start what has been granted a slot. */

#ifndef QUATTRO_CALLBACK_H
#define QUATTRO_CALLBACK_H

#include "group.h"

extern PyType_Spec Callback_spec;

PyObject *Callback_new(TaskGroup *group, int (*call)(TaskGroup *self, PyObject *task), const char *name, PyCFunction method);

#endif
