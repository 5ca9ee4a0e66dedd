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
        callback, turn.h    what the loop calls; a turn's data    attributes what a group shows
                                                                  group.c    the type TaskGroup
*/

#include "await.h"
#include "callback.h"
#include "group.h"
#include "pyutil.h"
#include "turn.h"

static PyMethodDef module_methods[] = {
    {"_shorten", (PyCFunction)(void (*)(void))TaskGroup_shorten, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

/* A new reference to an attribute of a module, which is imported. */
static PyObject *
import_attr(const char *module_name, const char *attr)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *value = module == NULL ? NULL : PyObject_GetAttrString(module, attr);
    Py_XDECREF(module);
    return value;
}

/* The same; NULL without an error where this Python has none. */
static PyObject *
import_optional(const char *module_name, const char *attr)
{
    PyObject *value = import_attr(module_name, attr);
    if (value == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
    }
    return value;
}

/* The descriptor of an attribute of coroutines, which the type itself hides behind its own. */
static PyObject *
coroutine_descriptor(PyObject *name)
{
    PyObject *dict = PyType_GetDict(&PyCoro_Type);
    PyObject *value = dict == NULL ? NULL : PyObject_GetItem(dict, name);
    Py_XDECREF(dict);
    return value;
}

/* Remember asyncio's own BaseEventLoop.create_task, unless somebody patched it before us: its globals are its
   module's, its code says its name, and nothing has been hung on it. */
static int
find_stock_create_task(quattro_state *state)
{
    PyObject *module = PyImport_ImportModule("asyncio.base_events");
    PyObject *cls = module == NULL ? NULL : PyObject_GetAttrString(module, "BaseEventLoop");
    PyObject *function = cls == NULL ? NULL : PyObject_GetAttr(cls, state->str_create_task);
    int rc = function == NULL ? -1 : 0;
    if (rc == 0 && PyFunction_Check(function) && PyFunction_GET_GLOBALS(function) == PyModule_GetDict(module)) {
        PyObject *code = PyFunction_GET_CODE(function);
        PyObject *name = ((PyCodeObject *)code)->co_qualname;
        PyObject *dict = ((PyFunctionObject *)function)->func_dict;
        if (PyUnicode_CompareWithASCIIString(name, "BaseEventLoop.create_task") == 0
            && (dict == NULL || PyDict_GET_SIZE(dict) == 0))
        {
            state->stock_create_task = Py_NewRef(function);
            state->stock_code = Py_NewRef(code);
        }
    }
    Py_XDECREF(function);
    Py_XDECREF(cls);
    Py_XDECREF(module);
    return rc;
}

/* Ask a Task that was never initialised, which needs no loop and no coroutine. */
static int
probe_uncancel(quattro_state *state)
{
    PyTypeObject *type = (PyTypeObject *)state->CTask;
    PyObject *args = PyTuple_New(0);
    PyObject *task = args == NULL ? NULL : type->tp_new(type, args, NULL);
    Py_XDECREF(args);
    int pending = -1;
    if (task != NULL && call_method(task, state->str_cancel) == 0 && call_method(task, state->str_uncancel) == 0) {
        pending = attr_is_true(task, state->str__must_cancel);
    }
    Py_XDECREF(task);
    state->uncancel_resets = pending == 0;
    return pending < 0 ? -1 : 0;
}

static PyTypeObject *
add_type(PyObject *module, PyType_Spec *spec)
{
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    if (type != NULL && PyModule_AddType(module, type) < 0) {
        Py_CLEAR(type);
    }
    return type;
}

static int
module_exec(PyObject *module)
{
    quattro_state *state = get_state(module);
#define X(name) \
    state->str_##name = PyUnicode_InternFromString(#name); \
    if (state->str_##name == NULL) { \
        return -1; \
    }
    STATE_NAMES(X)
#undef X

#define REQUIRE(field, value) \
    do { \
        state->field = (value); \
        if (state->field == NULL) { \
            return -1; \
        } \
    } while (0)
#define OPTIONAL(field, value) \
    do { \
        state->field = (value); \
        if (state->field == NULL && PyErr_Occurred()) { \
            return -1; \
        } \
    } while (0)
    REQUIRE(events, PyImport_ImportModule("asyncio.events"));
    REQUIRE(tasks, PyImport_ImportModule("asyncio.tasks"));
    REQUIRE(CTask, import_attr("_asyncio", "Task"));
    REQUIRE(CFuture, import_attr("_asyncio", "Future"));
    REQUIRE(task_add_done_callback, PyObject_GetAttr(state->CTask, state->str_add_done_callback));
    REQUIRE(task_remove_done_callback, PyObject_GetAttr(state->CTask, state->str_remove_done_callback));
    REQUIRE(task_done, PyObject_GetAttr(state->CTask, state->str_done));
    REQUIRE(task__callbacks, PyObject_GetAttr(state->CTask, state->str__callbacks));
    REQUIRE(task__exception, PyObject_GetAttr(state->CTask, state->str__exception));
    REQUIRE(current_task, import_attr("asyncio.tasks", "current_task"));
    REQUIRE(CancelledError, import_attr("asyncio.exceptions", "CancelledError"));
    REQUIRE(InvalidStateError, import_attr("asyncio.exceptions", "InvalidStateError"));
    REQUIRE(Coroutine, import_attr("collections.abc", "Coroutine"));
    REQUIRE(partial, import_attr("functools", "partial"));
    REQUIRE(deque, import_attr("collections", "deque"));
    REQUIRE(run_turn, import_attr("quattro._turn", "run_turn"));
    REQUIRE(rearm, import_attr("quattro._turn", "rearm"));
    REQUIRE(context_kwname, PyTuple_Pack(1, state->str_context));
    REQUIRE(loop_kwname, PyTuple_Pack(1, state->str_loop));
    REQUIRE(coroutine_name, coroutine_descriptor(state->str___name__));
    REQUIRE(coroutine_qualname, coroutine_descriptor(state->str___qualname__));
    OPTIONAL(add_awaited_by, import_optional("asyncio.futures", "future_add_to_awaited_by"));
    OPTIONAL(discard_awaited_by, import_optional("asyncio.futures", "future_discard_from_awaited_by"));
    OPTIONAL(eager_task_factory, import_optional("asyncio.tasks", "eager_task_factory"));
    REQUIRE(TaskGroup_Type, add_type(module, &TaskGroup_spec));
    REQUIRE(Await_Type, add_type(module, &Await_spec));
    REQUIRE(Turn_Type, add_type(module, &Turn_spec));
    REQUIRE(Callback_Type, add_type(module, &Callback_spec));
    REQUIRE(Statistics_Type, PyStructSequence_NewType(&Statistics_desc));
#undef REQUIRE
#undef OPTIONAL
    if (PyModule_AddType(module, state->Statistics_Type) < 0) {
        return -1;
    }
    if (find_stock_create_task(state) < 0) {
        return -1;
    }
    return probe_uncancel(state);
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    quattro_state *state = get_state(module);
#define X(field) Py_VISIT(state->field);
    STATE_TYPES(X)
    STATE_OBJECTS(X)
#undef X
#define X(name) Py_VISIT(state->str_##name);
    STATE_NAMES(X)
#undef X
    return 0;
}

static int
module_clear(PyObject *module)
{
    quattro_state *state = get_state(module);
#define X(field) Py_CLEAR(state->field);
    STATE_TYPES(X)
    STATE_OBJECTS(X)
#undef X
#define X(name) Py_CLEAR(state->str_##name);
    STATE_NAMES(X)
#undef X
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
    // module state is written during exec only, but for what KEEP_ONE lets it keep.
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
