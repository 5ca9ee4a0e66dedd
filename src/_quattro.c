/* quattro._quattro: asyncio.TaskGroup in C, with background tasks and a concurrency limit.

   THE IDEA

   A group is the state machine of CPython 3.15's asyncio/taskgroups.py, field by field and in the same order, written
   so that every CPython from 3.11 runs the same code.  quattro.TaskGroup is a Python class over the C type here and
   asyncio.TaskGroup; no method of the latter is ever called.  Three things are added to it:

   - a task of the group has a kind: foreground, foreground with a slot, or background;
   - with a concurrency limit, a foreground task that finds no slot gets a turn in a queue;
   - when the body and the last foreground task have ended, the background tasks are cancelled.

   The tasks are ordinary asyncio.Task objects, made as loop.create_task() makes them, so that every tool sees them.

   THE LIFE OF A GROUP

        new --__aenter__--> entered --__aexit__--> exiting --last foreground task ends--> stopping --> finished
                               |                      |                                      |
                               +---- abort: an error, cancel(), a cancelled parent ----------+--> aborting

   The flags are asyncio's (_entered, _exiting, _aborting, _parent_cancel_requested) and `stopping`, set while the
   background tasks are being cancelled at the end of a group that is not aborting.  __aenter__() and __aexit__()
   return an Await: a C iterator that the parent task's coroutine delegates to, the local variables of what is an
   `async def` in asyncio.

   THE LIFE OF A TASK

   Every task is in the group's TaskSet from create_task() until it has ended, under its address, with a tag: its kind
   and whether the group has cancelled it (once: MARK).  One callable a group, its bound _on_task_done, is the done
   callback of the tasks, so a task costs no allocation of ours.

   With a limit, a task that may start at once holds a slot (kind SLOT), given back by its done callback.  Otherwise
   its Task runs run_turn(turn), the `async def` of _turn.py, and parks in `await turn`:

        QUEUED --grant--> GRANTED --its step--> RUNNING --end(), fail()--> ENDED
           |                 |
           +-----cancel()----+--> CANCELLED --its step, end()--> ENDED

   A Turn is three things in one allocation: the node of the queue, the awaitable that run_turn() awaits, and the
   future-like that the Task waits on (add_done_callback, cancel, result).  It owns the caller's coroutine until the
   coroutine is handed over, and closes it if that never comes.  A granted (or cancelled) turn joins the wake list; one
   handle a pass of the loop, TaskGroup_wake, makes their Tasks step.

   Where asyncio.Task can start eagerly and nobody hooks into the creation of tasks, the Task is made so that it parks
   within create_task().  Such a task is "quiet": run_turn() tells the turn how it ended, which frees the slot at once
   and takes the task out of the set, and a done callback is added only to a task that failed (the group acts when the
   callback runs, as asyncio does) and to the last one (its own callbacks run before the parent goes on).  Otherwise
   the turn itself is the Task's done callback, for a task that is cancelled before its first step runs nothing.

   A callable is wrapped in a Turn as well, one that has no place in the queue and no slot (state CALL).  And the parent
   waits at the exit on a turn of its own, QUEUED in no queue until the last task's end makes it RUNNING.  That end is
   seen by a done callback, which steps the parent right there if it would be the next to run in any case (see
   parent_may_step), one pass of the loop earlier than a future could.

   ORDER OF STARTS

   A newcomer gets a slot only when one is free, nobody is queued, and nobody who was granted a slot has yet to move
   (`starting`).  What a task that failed held is passed on only after the group has decided whether to abort.

   WHO OWNS WHAT

   The TaskSet owns its tasks.  The queue and the wake list own their turns (a linked turn is never deallocated).  A
   turn owns its group, the caller's coroutine or callable, and the Task that waits on it (or what else is to be called)
   with its context; its `task` is borrowed: a key into the TaskSet.  Group -> done callback -> group is a cycle, broken
   when the group finishes.  The module keeps the memory of one Await, and in it the StopIteration with which that gave
   its result; and uvloop's functions, once a group has seen them.

   CALLS INTO PYTHON

   Any of them may re-enter the group, finish it or drop the last reference to it.  So: what is needed afterwards is
   held in a local with a reference of its own, fields are updated before the call and read again after it, and what is
   replaced is moved to a local and cleared first.  The public entry points hold the critical section of the group;
   functions named ..._lock_held need it (always the group's, for turns too).  On a free-threaded build such a section
   may be suspended wherever Python code can run, which is where re-entry is possible anyway: one discipline serves both.
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

/* A new reference to the namespace of a module, which is imported. */
static PyObject *
import_namespace(const char *module_name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *dict = module == NULL ? NULL : Py_NewRef(PyModule_GetDict(module));
    Py_XDECREF(module);
    return dict;
}

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
    REQUIRE(events_dict, import_namespace("asyncio.events"));
    REQUIRE(tasks_dict, import_namespace("asyncio.tasks"));
    REQUIRE(CTask, import_attr("_asyncio", "Task"));
    REQUIRE(CFuture, import_attr("_asyncio", "Future"));
    REQUIRE(task_add_done_callback, PyObject_GetAttr(state->CTask, state->str_add_done_callback));
    REQUIRE(task_cancel, PyObject_GetAttr(state->CTask, state->str_cancel));
    REQUIRE(task_cancelling, PyObject_GetAttr(state->CTask, state->str_cancelling));
    REQUIRE(task_exception, PyObject_GetAttr(state->CTask, state->str_exception));
    REQUIRE(task__exception, PyObject_GetAttr(state->CTask, state->str__exception));
    REQUIRE(CancelledError, import_attr("asyncio.exceptions", "CancelledError"));
    REQUIRE(InvalidStateError, import_attr("asyncio.exceptions", "InvalidStateError"));
    REQUIRE(Coroutine, import_attr("collections.abc", "Coroutine"));
    REQUIRE(partial, import_attr("functools", "partial"));
    REQUIRE(deque, import_attr("collections", "deque"));
    REQUIRE(run_turn, import_attr("quattro._turn", "run_turn"));
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
