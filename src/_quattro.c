/* quattro._quattro: asyncio.TaskGroup in C, with background tasks and a concurrency limit.

   The idea.  A group is the state machine of CPython 3.15's asyncio/taskgroups.py, field by field and in the same order,
   so that every CPython from 3.11 runs the same code.  quattro.TaskGroup is a Python class over the C type here and
   asyncio.TaskGroup; no method of the latter is ever called.  The tasks are ordinary asyncio.Task objects, made as
   loop.create_task() makes them.  docs/design.md tells why.

   The life of a group:

        new --__aenter__--> entered --__aexit__--> exiting --last foreground task ends--> stopping --> finished
                               |                      |                                      |
                               +---- abort: an error, cancel(), a cancelled parent ----------+--> aborting

   The life of a task.  It is in the group's TaskSet until it has ended.  A task that has not queued has the group's
   Callback as its first done callback from its creation on: the group hears of its end before anybody else, as in
   asyncio.  With a limit, a task that finds no slot runs run_turn(turn), the `async def` of _turn.py:

        QUEUED --granted a slot--> GRANTED --its step--> RUNNING --end(), fail()--> ENDED
           |                         |
           +---------cancel()--------+--> CANCELLED --its step, end()--> ENDED

   Its coroutine tells the turn how it ends, before the Task schedules its done callbacks.  So where nobody hooks into
   the making of tasks it needs no callback ("quiet"): the loop is asked to call the Callback only if the task failed, or
   may be the last to end.  A callable's task is quiet from its first step on.  Turns start in the order of the queue,
   and none before a newcomer that got a slot earlier.

   Who owns what.  The TaskSet owns its tasks; the lists own their turns; a turn owns its group, the caller's coroutine
   until that is handed over, and the Task that waits on it.  Its `task` is a key into the TaskSet, and borrowed.
   Group -> Callback -> group is a cycle, broken when the group finishes.

   Calls into Python may re-enter the group, finish it or drop the last reference to it.  What is needed afterwards is in
   a local with a reference of its own; fields are updated before the call and read again after it.  Functions named
   ..._lock_held need the group's critical section, for its turns too.

   The files, each of which includes only those before it (tools/includes.py):

        compat, state       versions; the module's state          slots      who gets a slot, starts, is told of one
        pyutil, coro        small helpers; coroutines             ending     a task's end, the abort, the parent's step
        link, taskset       plain C: a list, the set of tasks     turn.c     the type Turn
        group.h             the structs and their invariants      create     making tasks
        loops, task         asking a loop, asking a task          await      entering, leaving, waiting for a slot
        callback, turn.h    what the loop calls; a turn's data    group.c    the type TaskGroup
*/

#include "group.h"
#include "turn.h"

static PyMethodDef module_methods[] = {
    {"_shorten", (PyCFunction)(void (*)(void))TaskGroup_shorten, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

/* A new type of the module; a new reference. */
static PyObject *
add_type(PyObject *module, PyType_Spec *spec)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type != NULL && PyModule_AddType(module, (PyTypeObject *)type) < 0) {
        Py_CLEAR(type);
    }
    return type;
}

static int
module_exec(PyObject *module)
{
    quattro_state *self = get_state(module);
    PyObject *parts = PyImport_ImportModule("quattro._turn");
    int ok = parts != NULL;
#define REQUIRE(field, value) ok = ok && (self->field = (value)) != NULL;
#define NAME(name) REQUIRE(str_##name, PyUnicode_InternFromString(#name))
#define PART(name) REQUIRE(name, PyObject_GetAttrString(parts, #name))
    STATE_NAMES(NAME)
    STATE_PARTS(PART)
    REQUIRE(Await_Type, add_type(module, &Await_spec))
    REQUIRE(Turn_Type, add_type(module, &Turn_spec))
    REQUIRE(Callback_Type, add_type(module, &Callback_spec))
    REQUIRE(TaskGroup_Type, add_type(module, &TaskGroup_spec))
#undef REQUIRE
#undef NAME
#undef PART
    Py_XDECREF(parts);
    return ok ? 0 : -1;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    quattro_state *self = get_state(module);
    STATE_TYPES(VISIT)
    STATE_PARTS(VISIT)
    return 0;
}

static int
module_clear(PyObject *module)
{
    quattro_state *self = get_state(module);
#define CLEAR_NAME(name) Py_CLEAR(self->str_##name);
    STATE_TYPES(CLEAR)
    STATE_PARTS(CLEAR)
    STATE_NAMES(CLEAR_NAME)
#undef CLEAR_NAME
    return 0;
}

static void
module_free(void *module)
{
    (void)module_clear((PyObject *)module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    // All state is in the module and in objects; no object is shared between interpreters.
    SLOT_OWN_GIL
    // Whoever touches a group holds its critical section, and so does whoever touches its turns, callbacks and awaitables;
    // module state is written during exec only.
    SLOT_NO_GIL
    {0, NULL},
};

struct PyModuleDef quattro_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_quattro",
    .m_doc = PyDoc_STR("The C core of quattro: use quattro.TaskGroup."),
    .m_size = sizeof(quattro_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__quattro(void)
{
    return PyModuleDef_Init(&quattro_module);
}
