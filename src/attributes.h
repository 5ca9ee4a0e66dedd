/* What a group shows: its options, and asyncio's private names, because code in the wild uses them. */

#ifndef QUATTRO_ATTRIBUTES_H
#define QUATTRO_ATTRIBUTES_H

#include "group.h"

extern PyGetSetDef TaskGroup_getset[];

PyObject *TaskGroup_get_concurrency_limit(PyObject *op, void *ignored);

#endif
