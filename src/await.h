/* Entering and leaving: what __aenter__() and __aexit__() return. */

#ifndef QUATTRO_AWAIT_H
#define QUATTRO_AWAIT_H

#include "group.h"

extern PyType_Spec Await_spec;

PyObject *Await_new(TaskGroup *group, AwaitStage stage, PyObject *exc);

#endif
