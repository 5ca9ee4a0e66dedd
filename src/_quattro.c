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

#include <Python.h>
#include <stddef.h>             // offsetof()
#include <stdint.h>             // uintptr_t
#include "compat.h"
#include "state.h"

static struct PyModuleDef quattro_module;

static inline quattro_state *
get_state(PyObject *module)
{
    return (quattro_state *)PyModule_GetState(module);
}


/* --- Small helpers ------------------------------------------------------------------------------------------------ */

/* An error that must not hide the one that is set (or about to be): reported, and dropped. */
static void
report_unraisable(PyObject *where)
{
    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable(where);
    }
}

/* Keep the first of two errors: `first` is owned and may be NULL; the one that is set now, if any, is dropped. */
static void
restore_first_error(PyObject *first, PyObject *where)
{
    if (first != NULL) {
        report_unraisable(where);
        PyErr_SetRaisedException(first);
    }
}

/* Every one of several calls is made, whichever fails: of one that has (rc < 0), take the error that is set.  The first
   one is kept in *first, others are reported. */
static void
collect_error(void *where, PyObject **first, int rc)
{
    if (rc < 0 && *first == NULL) {
        *first = PyErr_GetRaisedException();
    }
    else if (rc < 0) {
        report_unraisable((PyObject *)where);
    }
}

/* Raise what collect_error() has kept: -1; or 0. */
static int
raise_collected(PyObject *first)
{
    PyErr_SetRaisedException(first);
    return first == NULL ? 0 : -1;
}

/* Is dict[key] this object?  -1 on error. */
static int
dict_item_is(PyObject *dict, PyObject *key, PyObject *value)
{
#ifdef Py_GIL_DISABLED
    PyObject *item;
    int rc = PyDict_GetItemRef(dict, key, &item);
    Py_XDECREF(item);
    return rc < 0 ? -1 : item == value;
#else
    PyObject *item = PyDict_GetItemWithError(dict, key);
    return item == NULL && PyErr_Occurred() ? -1 : item == value;
#endif
}

/* The truth of an attribute; 0 where there is none, -1 on error. */
static int
attr_is_true(PyObject *op, PyObject *name)
{
    PyObject *value;
    int rc = PyObject_GetOptionalAttr(op, name, &value);
    if (rc <= 0) {
        return rc;
    }
    rc = PyObject_IsTrue(value);
    Py_DECREF(value);
    return rc;
}

/* The truth of what a method without arguments returns, -1 on error. */
static int
call_is_true(PyObject *op, PyObject *method)
{
    PyObject *value = PyObject_CallMethodNoArgs(op, method);
    if (value == NULL) {
        return -1;
    }
    int rc = PyObject_IsTrue(value);
    Py_DECREF(value);
    return rc;
}

/* Call a method for its effect. */
static int
call_method(PyObject *op, PyObject *method)
{
    PyObject *value = PyObject_CallMethodNoArgs(op, method);
    Py_XDECREF(value);
    return value == NULL ? -1 : 0;
}

/* A function of a module (or what a tool has put in its place), called with one argument or none. */
static PyObject *
call_in_module(PyObject *module_dict, PyObject *name, PyObject *arg)
{
    PyObject *function;
    if (PyDict_GetItemRef(module_dict, name, &function) <= 0) {
        if (!PyErr_Occurred()) {
            PyErr_SetObject(PyExc_AttributeError, name);
        }
        return NULL;
    }
    PyObject *result = arg == NULL ? PyObject_CallNoArgs(function) : PyObject_CallOneArg(function, arg);
    Py_DECREF(function);
    return result;
}

/* Call a method of a task without arguments; `own` is asyncio.Task's, which nobody can patch. */
static PyObject *
call_task(quattro_state *state, PyObject *task, PyObject *name, PyObject *own)
{
    if (Py_IS_TYPE(task, (PyTypeObject *)state->CTask)) {
        return PyObject_CallOneArg(own, task);
    }
    return PyObject_CallMethodNoArgs(task, name);
}

/* task.cancel(); 0, or -1. */
static int
cancel_task(quattro_state *state, PyObject *task)
{
    PyObject *value = call_task(state, task, state->str_cancel, state->task_cancel);
    Py_XDECREF(value);
    return value == NULL ? -1 : 0;
}

/* task.cancelling(), 0 for a task of a kind that does not count, -1 on error. */
static long
task_cancelling(quattro_state *state, PyObject *task)
{
    PyObject *count;
    if (Py_IS_TYPE(task, (PyTypeObject *)state->CTask)) {
        count = PyObject_CallOneArg(state->task_cancelling, task);
    }
    else {
        PyObject *method;
        int rc = PyObject_GetOptionalAttr(task, state->str_cancelling, &method);
        if (rc <= 0) {
            return rc;
        }
        count = PyObject_CallNoArgs(method);
        Py_DECREF(method);
    }
    if (count == NULL) {
        return -1;
    }
    long value = PyLong_AsLong(count);
    Py_DECREF(count);
    return value < 0 && !PyErr_Occurred() ? 0 : value;
}

static int
is_base_error(PyObject *exc)
{
    return PyErr_GivenExceptionMatches(exc, PyExc_SystemExit)
           || PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt);
}

/* Is this the bound method that a C function of our own makes of this object? */
static int
is_own_method(PyObject *self, PyObject *method, PyCFunction function)
{
    return PyCFunction_Check(method) && PyCFunction_GET_FUNCTION(method) == function
           && PyCFunction_GET_SELF(method) == self;
}

/* Raise an exception object as `raise` does: with the exception being handled as its context. */
static void
raise_exception(PyObject *exc)
{
    PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
}


/* --- Coroutines --------------------------------------------------------------------------------------------------- */

/* asyncio.iscoroutine(), the newest: on 3.11 asyncio's own lets plain generators through, too. */
static int
is_coroutine(quattro_state *state, PyObject *op)
{
    if (PyCoro_CheckExact(op)) {
        return 1;
    }
    if (PyFunction_Check(op) || PyMethod_Check(op) || PyCFunction_Check(op)) {
        return 0;
    }
    return PyObject_IsInstance(op, state->Coroutine);
}

static void
set_not_a_coroutine(PyObject *op)
{
    PyErr_Format(PyExc_TypeError, "a coroutine was expected, got %R", op);
}

/* Close what a caller gave us and nobody will run; a callable needs nothing.  Leaves the error indicator as it was. */
static void
close_coroutine(quattro_state *state, PyObject *coro)
{
    PyObject *exc = PyErr_GetRaisedException();
    int rc = is_coroutine(state, coro);
    if (rc > 0) {
        rc = call_method(coro, state->str_close);
    }
    if (rc < 0) {
        report_unraisable(coro);
    }
    PyErr_SetRaisedException(exc);
}

/* Has it run a line (1), not (0), or raised when asked (-1)?  0 also for what does not tell. */
static int
coroutine_has_started(quattro_state *state, PyObject *coro)
{
    int rc = attr_is_true(coro, state->str_cr_running);
    PyObject *value;
    if (rc == 0 && (rc = PyObject_GetOptionalAttr(coro, state->str_cr_await, &value)) > 0) {
        rc = value != Py_None;          // suspended
        Py_DECREF(value);
    }
    if (rc == 0 && (rc = PyObject_GetOptionalAttr(coro, state->str_cr_frame, &value)) > 0) {
        rc = value == Py_None;          // finished
        Py_DECREF(value);
    }
    return rc;
}

/* The creation of a task failed with the error that is set: close the coroutine unless it has run. */
static void
close_unstarted(quattro_state *state, PyObject *coro)
{
    PyObject *exc = PyErr_GetRaisedException();
    int started = coroutine_has_started(state, coro);
    if (started < 0) {
        report_unraisable(coro);
    }
    if (started <= 0) {
        close_coroutine(state, coro);
    }
    PyErr_SetRaisedException(exc);
}

/* Show the name of the caller's coroutine (or of the function behind a callable) as that of the coroutine `to` around
   it. */
static int
copy_names(quattro_state *state, PyObject *to, PyObject *from)
{
    Py_INCREF(from);
    for (int depth = 0; depth < 16 && Py_IS_TYPE(from, (PyTypeObject *)state->partial); depth++) {
        PyObject *func = PyObject_GetAttr(from, state->str_func);
        Py_DECREF(from);
        if (func == NULL) {
            return -1;
        }
        from = func;
    }
    PyObject *names[] = {state->str___name__, state->str___qualname__};
    PyObject *descriptors[] = {state->coroutine_name, state->coroutine_qualname};
    for (int i = 0; i < 2; i++) {
        PyObject *value, *own = descriptors[i];
        int rc;
        if (PyCoro_CheckExact(from)) {
            value = Py_TYPE(own)->tp_descr_get(own, from, (PyObject *)&PyCoro_Type);
            rc = value == NULL ? -1 : 1;
        }
        else {
            rc = PyObject_GetOptionalAttr(from, names[i], &value);
        }
        if (rc > 0 && PyUnicode_Check(value)) {
            rc = Py_TYPE(own)->tp_descr_set(own, to, value);
        }
        Py_XDECREF(value);
        if (rc < 0) {
            Py_DECREF(from);
            return -1;
        }
    }
    Py_DECREF(from);
    return 0;
}


/* --- TaskSet: the tasks of a group, in the order in which they joined --------------------------------------------- */

/* A plain C array of tagged addresses, owned.  What leaves makes a hole (0); holes are squeezed out when the array is
   full.  Tasks mostly end in the order in which they were made, so a task is looked for where the last one was found
   (`hint`), then among a few entries; only if that fails is an index made, a hash table of positions, which lasts until
   positions change.  No Python code runs in here, and __hash__ and __eq__ of a task are never asked.  */

enum {
    KIND_PLAIN = 0,             // foreground, no slot of its own in the set
    KIND_SLOT = 1,              // foreground, its done callback gives a slot back
    KIND_BACKGROUND = 2,
    KIND_MASK = 3,
    MARK = 4,                   // the group has cancelled it
    TAG_MASK = 7,
};

typedef struct {
    uintptr_t *entries;         // NULL while nothing was ever added
    size_t begin, end;          // the entries in use, holes among them
    size_t capacity;
    size_t used;                // tasks
    size_t hint;                // where the next task to leave is likely to be
    size_t *index;              // positions + 1, 0 where free; NULL while not needed
    size_t mask;                // the index's size - 1
} TaskSet;

#define ENTRY_TASK(entry) ((PyObject *)((entry) & ~(uintptr_t)TAG_MASK))
#define NOT_FOUND SIZE_MAX
#define SCAN 16                 // entries that are looked at one by one

/* The slot in the index that leads to a task, or the free one where it belongs. */
static inline size_t
TaskSet_slot(const TaskSet *set, const void *task)
{
    uint64_t hash = (uint64_t)((uintptr_t)task >> 4) * UINT64_C(0x9E3779B97F4A7C15);
    size_t i = (size_t)(hash >> 32) & set->mask;
    while (set->index[i] != 0 && ENTRY_TASK(set->entries[set->index[i] - 1]) != task) {
        i = (i + 1) & set->mask;
    }
    return i;
}

static void
TaskSet_drop_index(TaskSet *set)
{
    PyMem_Free(set->index);
    set->index = NULL;
}

/* Index all entries; there is none afterwards if memory is short, and everything works without. */
static void
TaskSet_make_index(TaskSet *set)
{
    size_t size = 64;
    while (size < set->capacity * 2) {
        size *= 2;
    }
    set->index = PyMem_Calloc(size, sizeof(size_t));
    set->mask = size - 1;
    for (size_t i = set->begin; set->index != NULL && i < set->end; i++) {
        if (set->entries[i] != 0) {
            set->index[TaskSet_slot(set, ENTRY_TASK(set->entries[i]))] = i + 1;
        }
    }
}

static size_t
TaskSet_scan(const TaskSet *set, const void *task, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        if (ENTRY_TASK(set->entries[i]) == task) {
            return i;
        }
    }
    return NOT_FOUND;
}

/* The position of a task, or NOT_FOUND. */
static size_t
TaskSet_find(TaskSet *set, const void *task)
{
    if (set->hint < set->end && ENTRY_TASK(set->entries[set->hint]) == task) {
        return set->hint;
    }
    if (set->index == NULL) {
        size_t from = set->hint > set->begin && set->hint < set->end ? set->hint : set->begin;
        size_t to = set->end - from > SCAN ? from + SCAN : set->end;
        size_t found = TaskSet_scan(set, task, from, to);
        if (found != NOT_FOUND || (from == set->begin && to == set->end)) {
            return found;
        }
        TaskSet_make_index(set);
        if (set->index == NULL) {
            return TaskSet_scan(set, task, set->begin, set->end);
        }
    }
    return set->index[TaskSet_slot(set, task)] - 1;     // 0 - 1 is NOT_FOUND
}

/* Room for one more: squeeze the holes out, into a larger array unless they were many.  0, or -1 and MemoryError. */
static int
TaskSet_make_room(TaskSet *set)
{
    uintptr_t *entries = set->entries;
    size_t capacity = set->capacity;
    if (set->used >= capacity / 2) {
        capacity = capacity == 0 ? 8 : capacity * 2;
        entries = PyMem_New(uintptr_t, capacity);
        if (entries == NULL) {
            PyErr_NoMemory();
            return -1;
        }
    }
    size_t n = 0;
    for (size_t i = set->begin; i < set->end; i++) {
        if (set->entries[i] != 0) {
            entries[n++] = set->entries[i];
        }
    }
    if (entries != set->entries) {
        PyMem_Free(set->entries);
        set->entries = entries;
        set->capacity = capacity;
    }
    set->begin = set->hint = 0;
    set->end = n;
    TaskSet_drop_index(set);
    return 0;
}

/* Add a task that is not in the set; takes a new reference.  0, or -1 and MemoryError. */
static int
TaskSet_add(TaskSet *set, PyObject *task, int tag)
{
    if (set->end == set->capacity && TaskSet_make_room(set) < 0) {
        return -1;
    }
    set->entries[set->end++] = (uintptr_t)Py_NewRef(task) | (uintptr_t)tag;
    set->used++;
    if (set->index != NULL) {
        set->index[TaskSet_slot(set, task)] = set->end;
    }
    return 0;
}

/* The tag of a task, -1 when it is not there. */
static int
TaskSet_tag(TaskSet *set, const void *task)
{
    size_t at = TaskSet_find(set, task);
    return at == NOT_FOUND ? -1 : (int)(set->entries[at] & TAG_MASK);
}

static void
TaskSet_set_tag(TaskSet *set, const void *task, int tag)
{
    size_t at = TaskSet_find(set, task);
    assert(at != NOT_FOUND);
    set->entries[at] = (set->entries[at] & ~(uintptr_t)TAG_MASK) | (uintptr_t)tag;
}

/* Take what leads to a task out of the index, moving what follows back, so that there are no tombstones. */
static void
TaskSet_unindex(TaskSet *set, const void *task)
{
    size_t hole = TaskSet_slot(set, task);
    for (size_t i = (hole + 1) & set->mask; set->index[i] != 0; i = (i + 1) & set->mask) {
        size_t position = set->index[i];
        set->index[i] = 0;
        set->index[hole] = 0;
        // Where it would go if it were added now: the hole, or where it is.
        size_t to = TaskSet_slot(set, ENTRY_TASK(set->entries[position - 1]));
        set->index[to] = position;
        if (to == hole) {
            hole = i;
        }
    }
    set->index[hole] = 0;
}

/* Take a task out: its tag, and its reference, which is now the caller's to drop; -1 when it is not there. */
static int
TaskSet_take(TaskSet *set, const void *task)
{
    size_t at = TaskSet_find(set, task);
    if (at == NOT_FOUND) {
        return -1;
    }
    int tag = (int)(set->entries[at] & TAG_MASK);
    if (set->index != NULL) {
        TaskSet_unindex(set, task);
    }
    set->entries[at] = 0;
    set->used--;
    if (set->used == 0) {
        set->begin = set->end = set->hint = 0;
        TaskSet_drop_index(set);
        return tag;
    }
    while (set->entries[set->begin] == 0) {
        set->begin++;
    }
    set->hint = at + 1 < set->end && at + 1 > set->begin ? at + 1 : set->begin;
    return tag;
}

/* The next entry without MARK from position *at on, now marked; a new reference and its kind, or NULL at the end.
   Whoever loops with this has to start again at 0 until nothing is found: entries move. */
static PyObject *
TaskSet_mark_next(TaskSet *set, size_t *at, int *kind)
{
    for (; *at < set->end; ++*at) {
        uintptr_t *entry = &set->entries[*at];
        if (*entry != 0 && !(*entry & MARK)) {
            *kind = (int)(*entry & KIND_MASK);
            *entry |= MARK;
            return Py_NewRef(ENTRY_TASK(*entry));
        }
    }
    return NULL;
}

static void
TaskSet_clear(TaskSet *set)
{
    if (set->entries == NULL) {
        return;                 // and no index
    }
    TaskSet old = *set;
    *set = (TaskSet){0};
    for (size_t i = old.begin; i < old.end; i++) {
        Py_XDECREF(ENTRY_TASK(old.entries[i]));
    }
    PyMem_Free(old.entries);
    PyMem_Free(old.index);
}


/* --- Link: a circular, doubly linked, intrusive list -------------------------------------------------------------- */

typedef struct Link {
    struct Link *prev, *next;   // NULL, NULL while in no list; a list's head is linked to itself while empty
} Link;

static inline void
Link_init_head(Link *head)
{
    head->prev = head->next = head;
}

static inline int
Link_is_empty(const Link *head)
{
    return head->next == head;
}

static inline Py_ssize_t
Link_length(const Link *head)
{
    Py_ssize_t length = 0;
    for (const Link *link = head->next; link != head; link = link->next) {
        length++;
    }
    return length;
}

static inline void
Link_append(Link *head, Link *link)
{
    assert(link->next == NULL);
    link->prev = head->prev;
    link->next = head;
    head->prev->next = link;
    head->prev = link;
}

static inline void
Link_remove(Link *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link->prev = link->next = NULL;
}


/* --- The objects -------------------------------------------------------------------------------------------------- */

/* uvloop.loop.Loop's own functions, and itself. */
enum { UVLOOP_CREATE_TASK, UVLOOP_GET_TASK_FACTORY, UVLOOP_TYPE, UVLOOP_SIZE };

typedef struct {
    PyObject_HEAD
    quattro_state *state;       // borrowed: our type keeps the module
    PyObject *loop;
    PyObject *parent;           // the task that entered the group
    PyObject *errors;           // a list, NULL while there are none
    PyObject *base_error;       // the first SystemExit or KeyboardInterrupt
    struct Turn *waiter;        // the turn that the exit waits on
    PyObject *done;             // the Callback of the tasks, NULL until the first one
    PyObject *start;            // the Callback that starts the granted turns, NULL until somebody had to queue
    struct Callback *running;   // the Callback that the loop is calling, borrowed; NULL in everything else's code
    PyObject *kwargs;           // {"loop": loop}, for asyncio.Task()
    PyObject *eager_kwargs;     // the same with "eager_start": True
    PyObject *uvloop;           // a tuple of them, once the first has been seen
    PyObject *done_future;      // one that is done, for waking; NULL until somebody had to queue
    PyObject *newest;           // the last coroutine that got a slot without queueing, until seen started
    TaskSet tasks;
    size_t background;          // of them
    unsigned long thread;       // that entered the group
    Py_ssize_t limit;           // 0: none
    Py_ssize_t slots;           // taken, <= limit
    Py_ssize_t starting;        // turns that are GRANTED, <= slots
    Py_ssize_t queued;          // turns in the queue
    Py_ssize_t handles;         // of `start`, that are to come; the last of them starts what is granted
    Link queue;                 // turns that are QUEUED, the oldest first
    Link granted;               // turns that are GRANTED, the oldest first
    Link cancelled;             // turns that are CANCELLED and whose Tasks have yet to hear of it
    unsigned entered : 1;
    unsigned exiting : 1;
    unsigned aborting : 1;
    unsigned stopping : 1;
    unsigned finished : 1;
    unsigned parent_cancel_requested : 1;
    unsigned cancel_on_enter : 1;
    unsigned has_tasks : 1;     // or has had some
    unsigned may_ride : 1;      // no newcomer takes its first step after the last handle of `start`
    unsigned starting_now : 1;  // start_granted() is at work
    unsigned loop_is_asyncio : 1; // its create_task is asyncio's own
} TaskGroup;

typedef enum {
    TURN_CALL, TURN_QUEUED, TURN_GRANTED, TURN_RUNNING, TURN_CANCELLED, TURN_ENDED,
} TurnState;

typedef struct Turn {
    PyObject_HEAD
    Link link;                  // in the group's queue or list of granted turns, which own a reference
    TaskGroup *group;
    PyObject *coro;             // the caller's coroutine or callable, until it is handed over
    PyObject *waker;            // what to call when it may go on, or, with `wakeup`, the Task whose method that is
    PyObject *waker_context;
    PyMethodDef *wakeup;
    PyObject *message;          // cancel()'s
    PyObject *hook;             // somebody's _on_task_done, NULL for ours
    const void *task;           // a key into group->tasks, never followed
    TurnState state;
    unsigned blocking : 1;      // _asyncio_future_blocking
    unsigned slot : 1;          // holds one
    unsigned quiet : 1;         // the Task has no done callback of ours
    unsigned yields : 1;        // a callable's: its Task is going to wait, for what is its first step to others
    unsigned exit : 1;          // what the parent waits on, or has waited on
} Turn;

typedef enum {
    AWAIT_ENTER, AWAIT_EXIT, AWAIT_TASKS, AWAIT_LOOP, AWAIT_DONE,
} AwaitStage;

typedef struct Await {
    PyObject_HEAD
    TaskGroup *group;
    PyObject *exc;              // what the body raised
    PyObject *propagate;        // the CancelledError to raise unless there are errors
    PyObject *pending;          // the last CancelledError that arrived while waiting
    AwaitStage stage;           // where to go on
    unsigned running : 1;
    unsigned started : 1;
} Await;

#define GROUP(op) ((TaskGroup *)(op))
#define TURN(op) ((Turn *)(op))
#define TURN_OF(ptr) ((Turn *)((char *)(ptr) - offsetof(Turn, link)))

static int schedule_start_lock_held(TaskGroup *self);
static int release_lock_held(TaskGroup *self);
static int task_ended_lock_held(TaskGroup *self, PyObject *task, PyObject *error);
static int add_done_callback(TaskGroup *self, PyObject *task, PyObject *callback);
static int leave_lock_held(TaskGroup *self, const void *task);
static int see_end_lock_held(TaskGroup *self, const void *task);
static PyObject *TaskGroup__on_task_done(PyObject *op, PyObject *task);
static int end_of_task_lock_held(TaskGroup *self, PyObject *task);
static void drain_queue_lock_held(TaskGroup *self);
static int turn_add_to_task_lock_held(Turn *self, PyObject *task);
static int turn_step_task_lock_held(Turn *turn, PyObject *future);
static int tell_cancelled_lock_held(Turn *turn);


/* --- The state's invariants, checked after each transition where QUATTRO_DEBUG is set ------------------------------ */

#ifdef QUATTRO_DEBUG
/* Of one of the two lists: are its links, its owner and its turns' states right?  How many there are. */
static Py_ssize_t
check_list(TaskGroup *self, const Link *head)
{
    Py_ssize_t count = 0;
    for (const Link *link = head->next; link != head; link = link->next, count++) {
        const Turn *turn = TURN_OF(link);
        assert(link->next->prev == link && link->prev->next == link);
        assert(Py_REFCNT(turn) > 0 && turn->group == self && !turn->exit);
        assert(turn->task != NULL);
        assert(turn->state == (head == &self->queue ? TURN_QUEUED : head == &self->granted ? TURN_GRANTED : TURN_CANCELLED));
        assert(turn->slot == (head == &self->granted));
    }
    return count;
}

static void
check_tasks(TaskGroup *self)
{
    TaskSet *set = &self->tasks;
    size_t used = 0, background = 0;
    Py_ssize_t slots = 0;
    assert(set->begin <= set->end && set->end <= set->capacity && (set->entries != NULL || set->capacity == 0));
    for (size_t i = set->begin; i < set->end; i++) {
        if (set->entries[i] != 0) {
            PyObject *task = ENTRY_TASK(set->entries[i]);
            assert(Py_REFCNT(task) > 0);
            assert(set->index == NULL || set->index[TaskSet_slot(set, task)] == i + 1);
            used++;
            background += (set->entries[i] & KIND_MASK) == KIND_BACKGROUND;
            slots += (set->entries[i] & KIND_MASK) == KIND_SLOT;
        }
    }
    assert(used == set->used && background == self->background);
    assert(used == 0 || set->entries[set->begin] != 0);
    assert(slots <= self->slots || self->finished);
}

static void
check_lock_held(TaskGroup *self)
{
    ASSERT_LOCKED(self);
    assert(self->slots >= 0 && self->slots <= (self->limit > 0 ? self->limit : 0));
    assert(self->starting >= 0 && self->starting <= self->slots);
    assert(self->handles >= 0);
    // What is checked after every transition must not make ten thousand of them a matter of their square.
    if (self->tasks.end - self->tasks.begin < 64 || self->tasks.used % 64 == 0) {
        check_tasks(self);
        assert(check_list(self, &self->queue) == self->queued);
        assert(check_list(self, &self->granted) == self->starting);
        check_list(self, &self->cancelled);
    }
    // Never fewer than the limit while somebody is queued.
    assert(self->queued == 0 || self->aborting || self->finished || self->slots == self->limit);
    assert(!self->exiting || self->entered);
    assert(!self->stopping || self->exiting);
    assert(self->entered || self->finished || self->tasks.used == 0);
    assert(self->waiter == NULL || (self->exiting && self->waiter->group == self && self->waiter->coro == NULL));
    if (self->finished) {
        assert(self->parent == NULL && self->errors == NULL && self->base_error == NULL && self->waiter == NULL);
        assert(self->tasks.used > 0 || (self->done == NULL && self->start == NULL));
    }
    else {
        assert(!self->entered || (self->loop != NULL && self->parent != NULL));
        assert(self->tasks.used == 0 || self->done != NULL);
    }
}
#else
#  define check_lock_held(group) ((void)(group))
#endif


/* --- Turn: a place in the queue, what run_turn() awaits, and what its Task waits on ------------------------------- */

static Turn *
Turn_new(TaskGroup *group, PyObject *coro, TurnState state)
{
    PyTypeObject *type = group->state->Turn_Type;
    Turn *self = (Turn *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->group = (TaskGroup *)Py_NewRef(group);
        self->coro = Py_XNewRef(coro);
        self->state = state;
    }
    return self;
}

/* Nobody will run the coroutine: close it. */
static void
turn_close_coro(Turn *self)
{
    PyObject *coro = self->coro;
    self->coro = NULL;
    if (coro != NULL) {
        close_coroutine(self->group->state, coro);
        Py_DECREF(coro);
    }
}

/* Leave the list that it is in, if any, for a state without one; a granted turn keeps its slot.  The list's reference is
   dropped: the caller has another. */
static void
turn_leave_lock_held(Turn *self, TurnState state)
{
    ASSERT_LOCKED(self->group);
    int listed = self->link.next != NULL;
    if (listed) {
        Link_remove(&self->link);
        self->group->queued -= self->state == TURN_QUEUED;
        self->group->starting -= self->state == TURN_GRANTED;
    }
    self->state = state;
    if (listed) {
        Py_DECREF(self);
    }
}

/* Give the slot back, if it has one, to the head of the queue. */
static int
turn_release_lock_held(Turn *self)
{
    ASSERT_LOCKED(self->group);
    if (!self->slot) {
        return 0;
    }
    self->slot = 0;
    return release_lock_held(self->group);
}

/* A quiet task is going to fail: have the group see it in a done callback.  A slot that the turn still holds is given
   back there, after the group has looked at the error. */
static int
turn_see_failure_lock_held(Turn *self)
{
    TaskGroup *group = self->group;
    ASSERT_LOCKED(group);
    if (!self->quiet) {
        return 0;
    }
    self->quiet = 0;
    int tag = TaskSet_tag(&group->tasks, self->task);
    if (tag < 0) {
        return turn_release_lock_held(self);
    }
    if (self->slot) {
        self->slot = 0;
        TaskSet_set_tag(&group->tasks, self->task, (tag & MARK) | KIND_SLOT);
    }
    return see_end_lock_held(group, self->task);
}

/* run_turn() tells that it is about to return, or to raise: CancelledError if `failed` is 0. */
static int
turn_end_lock_held(Turn *self, int failed)
{
    ASSERT_LOCKED(self->group);
    if (self->state == TURN_ENDED) {
        return 0;
    }
    turn_close_coro(self);
    if (self->waker != NULL) {
        // Its Task still waits for us, so this is no step of it: run_turn() is being closed, by its finalizer or by
        // somebody who got hold of it.  The place in the queue stays, so that the Task gets its step, and with it the
        // error that a closed coroutine raises.
        if (self->quiet && TaskSet_tag(&self->group->tasks, self->task) >= 0
            && turn_add_to_task_lock_held(self, (PyObject *)self->task) < 0)
        {
            return -1;          // it is still quiet: its own end will tell
        }
        self->quiet = 0;
        return 0;
    }
    turn_leave_lock_held(self, TURN_ENDED);
    if (failed) {
        return turn_see_failure_lock_held(self);
    }
    if (turn_release_lock_held(self) < 0) {
        // The loop refused to schedule: that is the task's error now.
        PyObject *exc = PyErr_GetRaisedException();
        if (turn_see_failure_lock_held(self) < 0) {
            report_unraisable((PyObject *)self);
        }
        PyErr_SetRaisedException(exc);
        return -1;
    }
    if (!self->quiet) {
        return 0;
    }
    self->quiet = 0;
    return leave_lock_held(self->group, self->task);
}

/* CancelledError, with the message that cancel() was given. */
static void
turn_raise_cancelled(Turn *self)
{
    PyObject *type = self->group->state->CancelledError;
    if (self->message == NULL || self->message == Py_None) {
        PyErr_SetNone(type);
        return;
    }
    PyObject *exc = PyObject_CallOneArg(type, self->message);
    if (exc != NULL) {
        PyErr_SetObject(type, exc);
        Py_DECREF(exc);
    }
}

/* Hand the caller's coroutine over, a callable's after calling it; a new reference. */
static PyObject *
turn_begin_lock_held(Turn *self)
{
    TaskGroup *group = self->group;
    quattro_state *state = group->state;
    turn_leave_lock_held(self, TURN_RUNNING);
    PyObject *coro = self->coro;
    self->coro = NULL;
    if (coro == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the coroutine of this turn has been closed");
        return NULL;
    }
    // By its Task's own first step, before which the others could not start.
    if (!group->starting_now && schedule_start_lock_held(group) < 0) {
        close_coroutine(state, coro);
        Py_DECREF(coro);
        return NULL;
    }
    int rc = is_coroutine(state, coro);
    if (rc == 0) {
        Py_SETREF(coro, PyObject_CallNoArgs(coro));
        rc = coro == NULL ? -1 : is_coroutine(state, coro);
        if (rc == 0) {
            set_not_a_coroutine(coro);
        }
    }
    if (rc <= 0) {
        Py_CLEAR(coro);
    }
    return coro;
}

/* `await turn` waits for the turn to come, and gives None. */
static PySendResult
turn_send_lock_held(Turn *self, PyObject **result)
{
    *result = NULL;
    switch (self->state) {
    case TURN_GRANTED:
        if (self->link.prev == &self->group->granted) {
            *result = Py_NewRef(Py_None);
            return PYGEN_RETURN;
        }
        // Others were granted a slot before it, and have yet to start.
        // fall through
    case TURN_QUEUED:
        self->blocking = 1;
        *result = Py_NewRef(self);
        return PYGEN_NEXT;
    case TURN_CALL:
        if (!self->yields) {
            *result = Py_NewRef(Py_None);
            return PYGEN_RETURN;
        }
        self->yields = 0;
        self->blocking = 1;
        *result = Py_NewRef(self);
        return PYGEN_NEXT;
    case TURN_CANCELLED:
        turn_raise_cancelled(self);
        return PYGEN_ERROR;
    default:
        PyErr_SetString(PyExc_RuntimeError, "a turn can be awaited only once");
        return PYGEN_ERROR;
    }
}

static PySendResult
Turn_am_send(PyObject *op, PyObject *Py_UNUSED(value), PyObject **result)
{
    PySendResult rc;
    BEGIN_SECTION(TURN(op)->group);
    rc = turn_send_lock_held(TURN(op), result);
    check_lock_held(TURN(op)->group);
    END_SECTION();
    return rc;
}

/* What tp_iternext makes of am_send's answer.  None is a mere NULL: before 3.15 `await` asks tp_iternext, and a
   StopIteration to be made and taken apart costs more than all the rest. */
static PyObject *
iternext_result(PySendResult rc, PyObject *result)
{
    if (rc != PYGEN_RETURN) {
        return result;
    }
    if (result != Py_None) {
        // Not by PyErr_SetObject(), which would take a tuple for the arguments.
        PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
        if (stop != NULL) {
            PyErr_SetRaisedException(stop);
        }
    }
    Py_DECREF(result);
    return NULL;
}

/* The same for send() and throw(). */
static PyObject *
send_result(PySendResult rc, PyObject *result)
{
    result = iternext_result(rc, result);
    if (result == NULL && !PyErr_Occurred()) {
        PyErr_SetNone(PyExc_StopIteration);
    }
    return result;
}

static PyObject *
Turn_iternext(PyObject *op)
{
    PyObject *result;
    PySendResult rc = Turn_am_send(op, Py_None, &result);
    return iternext_result(rc, result);
}

static PyObject *
Turn_begin(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    Turn *self = TURN(op);
    PyObject *coro = NULL;
    BEGIN_SECTION(self->group);
    if (self->state == TURN_CALL || self->state == TURN_GRANTED) {
        coro = turn_begin_lock_held(self);
    }
    else if (self->state == TURN_CANCELLED) {
        turn_raise_cancelled(self);
    }
    else {
        PyErr_SetString(PyExc_RuntimeError, "a turn can begin only once, after it has been awaited");
    }
    END_SECTION();
    return coro;
}

static PyObject *
turn_ended(PyObject *op, int failed)
{
    int rc;
    BEGIN_SECTION(TURN(op)->group);
    rc = turn_end_lock_held(TURN(op), failed);
    check_lock_held(TURN(op)->group);
    END_SECTION();
    if (rc < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Turn_end(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return turn_ended(op, 0);
}

static PyObject *
Turn_fail(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return turn_ended(op, 1);
}

/* The done callback of a Task that is not quiet: clean up after a Task that never awaited it, then what every task's end brings,
   then pass the slot on. */
static int
turn_task_done_lock_held(Turn *self, PyObject *task)
{
    TaskGroup *group = self->group;
    ASSERT_LOCKED(group);
    if (self->state != TURN_ENDED) {
        turn_leave_lock_held(self, TURN_ENDED);
        turn_close_coro(self);
    }
    int rc;
    if (self->hook != NULL) {
        PyObject *result = PyObject_CallOneArg(self->hook, task);
        rc = result == NULL ? -1 : 0;
        Py_XDECREF(result);
    }
    else {
        rc = task_ended_lock_held(group, task, NULL);
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (turn_release_lock_held(self) < 0) {
        rc = -1;
    }
    restore_first_error(exc, task);
    return rc;
}

static PyObject *
Turn_task_done(PyObject *op, PyObject *task)
{
    int rc;
    BEGIN_SECTION(TURN(op)->group);
    rc = turn_task_done_lock_held(TURN(op), task);
    check_lock_held(TURN(op)->group);
    END_SECTION();
    if (rc < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef Turn_task_done_def = {"_task_done", Turn_task_done, METH_O, NULL};

/* Make the turn its Task's done callback. */
static int
turn_add_to_task_lock_held(Turn *self, PyObject *task)
{
    PyObject *callback = PyCFunction_New(&Turn_task_done_def, (PyObject *)self);
    int rc = callback == NULL ? -1 : add_done_callback(self->group, task, callback);
    Py_XDECREF(callback);
    return rc;
}

static int
turn_cancel_lock_held(Turn *self, PyObject *message)
{
    if (self->state != TURN_QUEUED && self->state != TURN_GRANTED) {
        return 0;
    }
    assert(self->state == TURN_QUEUED || !self->exit);
    Py_INCREF(self);
    turn_leave_lock_held(self, TURN_CANCELLED);
    Py_XSETREF(self->message, Py_XNewRef(message));
    int rc = turn_release_lock_held(self);
    if (rc == 0) {
        rc = tell_cancelled_lock_held(self);
    }
    turn_close_coro(self);
    Py_DECREF(self);
    return rc < 0 ? -1 : 1;
}

/* One optional argument, by position or by name, for the two methods that a Task calls with it. */
static int
one_argument(const char *function, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject *name,
             Py_ssize_t skip, PyObject **value)
{
    *value = nargs > skip ? args[skip] : NULL;
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (nkw == 1 && nargs == skip && PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, 0), name) == 0) {
        *value = args[skip];
    }
    else if (nkw != 0 || nargs < skip || nargs > skip + 1) {
        PyErr_Format(PyExc_TypeError, "%s() takes one optional argument, %U", function, name);
        return -1;
    }
    return 0;
}

static PyObject *
Turn_cancel(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *message;
    if (one_argument("cancel", args, nargs, kwnames, TURN(op)->group->state->str_msg, 0, &message) < 0) {
        return NULL;
    }
    int rc;
    BEGIN_SECTION(TURN(op)->group);
    rc = turn_cancel_lock_held(TURN(op), message);
    check_lock_held(TURN(op)->group);
    END_SECTION();
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

static int
turn_add_waker_lock_held(Turn *self, PyObject *waker, PyObject *context)
{
    if (self->waker != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a turn has one task");
        return -1;
    }
    // asyncio.Task gives a builtin method of itself.  That is not kept while it waits, which may be long: it is one object
    // more for each task that queues, and for the collector to visit.
    self->wakeup = NULL;
    if (PyCFunction_CheckExact(waker) && PyCFunction_GET_FLAGS(waker) == METH_O
        && PyCFunction_GET_SELF(waker) != NULL
        && Py_IS_TYPE(PyCFunction_GET_SELF(waker), (PyTypeObject *)self->group->state->CTask))
    {
        self->wakeup = ((PyCFunctionObject *)waker)->m_ml;
        waker = PyCFunction_GET_SELF(waker);
    }
    self->waker = Py_NewRef(waker);
    self->waker_context = context == Py_None ? NULL : Py_XNewRef(context);
    switch (self->state) {
    case TURN_QUEUED:
    case TURN_CALL:
        return 0;
    case TURN_GRANTED:
        return self->group->starting_now ? 0 : schedule_start_lock_held(self->group);
    case TURN_CANCELLED:
        // Between `await turn` and here, by a hook of somebody's.
        return tell_cancelled_lock_held(self);
    default:
        return turn_step_task_lock_held(self, NULL);
    }
}

static PyObject *
Turn_add_done_callback(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *context;
    if (one_argument("add_done_callback", args, nargs, kwnames, TURN(op)->group->state->str_context, 1, &context) < 0) {
        return NULL;
    }
    int rc;
    BEGIN_SECTION(TURN(op)->group);
    rc = turn_add_waker_lock_held(TURN(op), args[0], context);
    check_lock_held(TURN(op)->group);
    END_SECTION();
    if (rc < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Turn_result(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    Turn *self = TURN(op);
    PyObject *result = NULL;
    BEGIN_SECTION(self->group);
    if (self->state == TURN_CANCELLED) {
        turn_raise_cancelled(self);
    }
    else if (self->state == TURN_QUEUED) {
        PyErr_SetString(self->group->state->InvalidStateError, "Result is not set.");
    }
    else {
        result = Py_NewRef(Py_None);
    }
    END_SECTION();
    return result;
}

static PyObject *
Turn_done(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    int done;
    BEGIN_SECTION(TURN(op)->group);
    done = TURN(op)->state != TURN_QUEUED;
    END_SECTION();
    return PyBool_FromLong(done);
}

/* The Task asks a future for get_loop() first; but where there is no such method, an attribute is quicker. */
static PyObject *
Turn_get_loop(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *result;
    BEGIN_SECTION(TURN(op)->group);
    PyObject *loop = TURN(op)->group->loop;
    result = Py_NewRef(loop == NULL ? Py_None : loop);
    END_SECTION();
    return result;
}

static PyObject *
Turn_get_blocking(PyObject *op, void *Py_UNUSED(closure))
{
    int blocking;
    BEGIN_SECTION(TURN(op)->group);
    blocking = TURN(op)->blocking;
    END_SECTION();
    return PyBool_FromLong(blocking);
}

static int
Turn_set_blocking(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    int rc = value == NULL ? 0 : PyObject_IsTrue(value);
    if (rc < 0) {
        return -1;
    }
    BEGIN_SECTION(TURN(op)->group);
    TURN(op)->blocking = rc != 0;
    END_SECTION();
    return 0;
}

static PyObject *
Turn_repr(PyObject *op)
{
    static const char *const names[] = {"call", "queued", "granted", "running", "cancelled", "ended"};
    TurnState state;
    BEGIN_SECTION(TURN(op)->group);
    state = TURN(op)->state;
    END_SECTION();
    return PyUnicode_FromFormat("<turn %s>", names[state]);
}

static int
Turn_traverse(PyObject *op, visitproc visit, void *arg)
{
    Turn *self = TURN(op);
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->group);
    Py_VISIT(self->coro);
    Py_VISIT(self->waker);
    Py_VISIT(self->waker_context);
    Py_VISIT(self->message);
    Py_VISIT(self->hook);
    return 0;
}

/* The group stays until the turn goes: its methods count on it, and the group clears its own side. */
static int
Turn_clear(PyObject *op)
{
    Turn *self = TURN(op);
    Py_CLEAR(self->coro);
    Py_CLEAR(self->waker);
    Py_CLEAR(self->waker_context);
    Py_CLEAR(self->message);
    Py_CLEAR(self->hook);
    return 0;
}

/* A coroutine that never got its turn is closed, not warned about. */
static void
Turn_finalize(PyObject *op)
{
    Turn *self = TURN(op);
    if (self->coro != NULL && PyCoro_CheckExact(self->coro)) {
        PyObject *exc = PyErr_GetRaisedException();
        PyObject *coro = self->coro;
        self->coro = NULL;
        // Not by way of the module state, which may be gone at shutdown.
        PyObject *result = PyObject_CallMethod(coro, "close", NULL);
        if (result == NULL) {
            report_unraisable(coro);
        }
        Py_XDECREF(result);
        Py_DECREF(coro);
        PyErr_SetRaisedException(exc);
    }
}

static void
Turn_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    if (PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    PyObject_GC_UnTrack(op);
    assert(TURN(op)->link.next == NULL);
    Turn_clear(op);
    Py_CLEAR(TURN(op)->group);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef Turn_methods[] = {
    {"begin", Turn_begin, METH_NOARGS, PyDoc_STR("The coroutine to run, when the turn has come.")},
    {"end", Turn_end, METH_NOARGS, PyDoc_STR("run_turn() returns, or raises CancelledError.")},
    {"fail", Turn_fail, METH_NOARGS, PyDoc_STR("run_turn() raises another error.")},
    {"cancel", (PyCFunction)(void (*)(void))Turn_cancel, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"add_done_callback", (PyCFunction)(void (*)(void))Turn_add_done_callback, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"result", Turn_result, METH_NOARGS, NULL},
    {"done", Turn_done, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Turn_getset[] = {
    {"_asyncio_future_blocking", Turn_get_blocking, Turn_set_blocking, NULL, NULL},
    {"_loop", Turn_get_loop, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot Turn_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A place in a group's queue. Internal.")},
    {Py_tp_dealloc, Turn_dealloc},
    {Py_tp_traverse, Turn_traverse},
    {Py_tp_clear, Turn_clear},
    {Py_tp_finalize, Turn_finalize},
    {Py_tp_repr, Turn_repr},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, Turn_iternext},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, Turn_am_send},
    {Py_tp_methods, Turn_methods},
    {Py_tp_getset, Turn_getset},
    {0, NULL},
};

static PyType_Spec Turn_spec = {
    .name = "quattro._quattro._Turn",
    .basicsize = sizeof(Turn),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Turn_slots,
};


/* --- Callback: what the loop calls, at a task's end or to start what has been granted a slot ------------------------ */

/* One a group and kind, so that a task costs no allocation of ours.  It is no builtin method, because what it calls may
   step Tasks, and debug mode's report of a slow callback asks a callback's __self__ for the Task to name. */
typedef struct Callback {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    TaskGroup *group;
    int (*call)(TaskGroup *self, PyObject *task);
    PyObject *slowest;          // in debug mode: the Task whose step, of those that the last call made, took longest
    double took;                // by loop.time()
} Callback;

static PyObject *
Callback_vectorcall(PyObject *op, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    Callback *self = (Callback *)op;
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
    if (nargs > 1 || kwnames != NULL || (nargs == 0 && self->call == end_of_task_lock_held)) {
        PyErr_SetString(PyExc_TypeError, "a task group's callback is called by the loop, with the task");
        return NULL;
    }
    TaskGroup *group = (TaskGroup *)Py_NewRef(self->group);
    int rc;
    Py_CLEAR(self->slowest);
    Py_INCREF(op);
    BEGIN_SECTION(group);
    struct Callback *outer = group->running;
    group->running = self;
    rc = self->call(group, nargs == 0 ? NULL : args[0]);
    group->running = outer;
    check_lock_held(group);
    END_SECTION();
    Py_DECREF(op);
    Py_DECREF(group);
    if (rc < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Callback_new(TaskGroup *group, int (*call)(TaskGroup *self, PyObject *task))
{
    PyTypeObject *type = group->state->Callback_Type;
    Callback *self = (Callback *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->vectorcall = Callback_vectorcall;
        self->group = (TaskGroup *)Py_NewRef(group);
        self->call = call;
    }
    return (PyObject *)self;
}

/* asyncio's report names a Task that it finds here, and the callback otherwise. */
static PyObject *
Callback_get_self(PyObject *op, void *Py_UNUSED(closure))
{
    Callback *self = (Callback *)op;
    PyObject *result;
    BEGIN_SECTION(self->group);
    result = Py_NewRef(self->slowest == NULL ? (PyObject *)self->group : self->slowest);
    END_SECTION();
    return result;
}

static PyObject *
Callback_get_name(PyObject *op, void *qualified)
{
    const char *name = ((Callback *)op)->call == end_of_task_lock_held ? "_on_task_done" : "_start";
    return PyUnicode_FromFormat("%s%s", qualified == NULL ? "" : "TaskGroup.", name);
}

static PyObject *
Callback_repr(PyObject *op)
{
    return PyUnicode_FromFormat("<callback of %R>", ((Callback *)op)->group);
}

/* task.remove_done_callback(tg._on_task_done) finds it, as it finds asyncio's. */
static PyObject *
Callback_richcompare(PyObject *op, PyObject *other, int how)
{
    Callback *self = (Callback *)op;
    if ((how != Py_EQ && how != Py_NE) || !PyCFunction_Check(other)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    int equal = self->call == end_of_task_lock_held
                && is_own_method((PyObject *)self->group, other, TaskGroup__on_task_done);
    return PyBool_FromLong(equal == (how == Py_EQ));
}

static Py_hash_t
Callback_hash(PyObject *op)
{
    return (Py_hash_t)((uintptr_t)((Callback *)op)->group >> 4);
}

static int
Callback_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((Callback *)op)->group);
    Py_VISIT(((Callback *)op)->slowest);
    return 0;
}

/* The group, which the call counts on, stays until the callback goes; it clears its own side. */
static int
Callback_clear(PyObject *op)
{
    Py_CLEAR(((Callback *)op)->slowest);
    return 0;
}

static void
Callback_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Callback_clear(op);
    Py_CLEAR(((Callback *)op)->group);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMemberDef Callback_members[] = {
    {"__vectorcalloffset__", Py_T_PYSSIZET, offsetof(Callback, vectorcall), Py_READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef Callback_getset[] = {
    {"__self__", Callback_get_self, NULL, NULL, NULL},
    {"__name__", Callback_get_name, NULL, NULL, NULL},
    {"__qualname__", Callback_get_name, NULL, NULL, (void *)1},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot Callback_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("What the loop calls for a group. Internal.")},
    {Py_tp_dealloc, Callback_dealloc},
    {Py_tp_traverse, Callback_traverse},
    {Py_tp_clear, Callback_clear},
    {Py_tp_repr, Callback_repr},
    {Py_tp_richcompare, Callback_richcompare},
    {Py_tp_hash, Callback_hash},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, Callback_members},
    {Py_tp_getset, Callback_getset},
    {0, NULL},
};

static PyType_Spec Callback_spec = {
    .name = "quattro._quattro._Callback",
    .basicsize = sizeof(Callback),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Callback_slots,
};


/* --- The queue: granting slots, and starting those who got one ---------------------------------------------------- */

/* Have the loop call a function after all that is ready now: with an argument, unless that is NULL, and in a context,
   a copy of the caller's for NULL.  0, or -1 on error. */
static int
call_soon(TaskGroup *self, PyObject *function, PyObject *arg, PyObject *context)
{
    PyObject *args[4] = {self->loop, function};
    size_t count = 2;
    if (arg != NULL) {
        args[count++] = arg;
    }
    args[count] = context;
    for (size_t i = 0; i <= count; i++) {
        Py_XINCREF(args[i]);
    }
    PyObject *handle = PyObject_VectorcallMethod(self->state->str_call_soon, args, count,
                                                 context == NULL ? NULL : self->state->context_kwname);
    for (size_t i = 0; i <= count; i++) {
        Py_XDECREF(args[i]);
    }
    Py_XDECREF(handle);
    return handle == NULL ? -1 : 0;
}

/* Have the loop call the Callback `start`, after all that is ready now. */
static int
schedule_handle_lock_held(TaskGroup *self)
{
    ASSERT_LOCKED(self);
    if (self->start == NULL || self->loop == NULL) {
        return 0;
    }
    self->handles++;
    self->may_ride = 1;
    if (call_soon(self, self->start, NULL, NULL) < 0) {
        self->handles -= self->handles > 0;
        self->may_ride = 0;
        return -1;
    }
    return 0;
}

/* Have the oldest granted turn, and those after it, started by a handle of the loop.  One that is due anyway will do,
   unless a newcomer got a slot since: it takes its first step after that handle.  A turn whose Task has yet to park
   needs none: that Task's first step starts it, and the others. */
static int
schedule_start_lock_held(TaskGroup *self)
{
    int to_start = !Link_is_empty(&self->granted) && TURN_OF(self->granted.next)->waker != NULL
                   && (self->handles == 0 || !self->may_ride);
    // None for these yet only if the loop has refused one.
    int to_tell = !Link_is_empty(&self->cancelled) && self->handles == 0;
    return to_start || to_tell ? schedule_handle_lock_held(self) : 0;
}

/* Have the Task of a turn that was cancelled hear of it.  Without a waker it has not parked yet: its first step will. */
static int
tell_cancelled_lock_held(Turn *turn)
{
    TaskGroup *self = turn->group;
    if (turn->exit) {
        return turn_step_task_lock_held(turn, NULL);
    }
    if (turn->waker == NULL || turn->link.next != NULL) {
        return 0;
    }
    Py_INCREF(turn);
    Link_append(&self->cancelled, &turn->link);
    return self->handles > 0 ? 0 : schedule_handle_lock_held(self);
}

/* Is the first step of a granted turn's Task going to be a cancellation?  Then the slot, in which nothing would run, is
   free again. */
static int
withdraw_if_cancelled_lock_held(TaskGroup *self, Turn *turn)
{
    if (TaskSet_tag(&self->tasks, turn->task) < 0) {
        return 0;
    }
    PyObject *task = Py_NewRef((PyObject *)turn->task);
    int must_cancel = attr_is_true(task, self->state->str__must_cancel);
    if (must_cancel < 0) {
        report_unraisable(task);
    }
    Py_DECREF(task);
    if (must_cancel <= 0 || turn->state != TURN_GRANTED) {
        return 0;
    }
    turn_leave_lock_held(turn, TURN_CANCELLED);
    turn->slot = 0;
    self->slots--;
    turn_close_coro(turn);
    return 1;
}

/* Move turns from the queue to the free slots. */
static void
fill_slots_lock_held(TaskGroup *self)
{
    ASSERT_LOCKED(self);
    while (!self->aborting && self->slots < self->limit && !Link_is_empty(&self->queue)) {
        Turn *turn = TURN_OF(self->queue.next);
        Py_INCREF(turn);
        Link_remove(&turn->link);
        Link_append(&self->granted, &turn->link);
        turn->state = TURN_GRANTED;
        turn->slot = 1;
        self->queued--;
        self->slots++;
        self->starting++;
        if (turn->waker == NULL) {
            withdraw_if_cancelled_lock_held(self, turn);
        }
        Py_DECREF(turn);
    }
}

/* The same, and have them started. */
static int
grant_lock_held(TaskGroup *self)
{
    fill_slots_lock_held(self);
    return schedule_start_lock_held(self);
}

/* A slot comes back. */
static int
release_lock_held(TaskGroup *self)
{
    ASSERT_LOCKED(self);
    assert(self->slots > 0);
    self->slots--;
    return grant_lock_held(self);
}

/* A future that is done, with which the Tasks of granted turns are woken: a Task asks a future of asyncio's own kind for
   its result much quicker than the turn.  A new reference, or NULL and an error. */
static PyObject *
get_done_future(TaskGroup *self)
{
    if (self->done_future == NULL) {
        quattro_state *state = self->state;
        PyObject *args[] = {self->loop};
        PyObject *future = PyObject_Vectorcall(state->CFuture, args, 0, state->loop_kwname);
        PyObject *result = future == NULL ? NULL : PyObject_CallMethodOneArg(future, state->str_set_result, Py_None);
        if (result == NULL) {
            Py_XDECREF(future);
            return NULL;
        }
        Py_DECREF(result);
        Py_XSETREF(self->done_future, future);
    }
    return Py_NewRef(self->done_future);
}

/* Tell the Task that waits on a turn, if one does, to take its next step in its context: now, with a future that is
   done; or by way of the loop, where `future` is NULL or somebody is in that context. */
static int
turn_step_task_lock_held(Turn *turn, PyObject *future)
{
    ASSERT_LOCKED(turn->group);
    PyObject *waker = turn->waker;
    PyObject *context = turn->waker_context;
    PyMethodDef *wakeup = turn->wakeup;
    turn->waker = turn->waker_context = NULL;
    if (waker == NULL) {
        return 0;
    }
    int rc = 0;
    int now = future != NULL && (context == NULL || PyContext_Enter(context) == 0);
    if (now) {
        PyObject *result = wakeup != NULL ? wakeup->ml_meth(waker, future) : PyObject_CallOneArg(waker, future);
        rc = result == NULL ? -1 : 0;
        Py_XDECREF(result);
        PyObject *exc = PyErr_GetRaisedException();
        if (context != NULL && PyContext_Exit(context) < 0) {
            rc = -1;
        }
        restore_first_error(exc, waker);
    }
    else {
        PyErr_Clear();          // PyContext_Enter()'s RuntimeError: somebody is in it
        PyObject *callback = wakeup != NULL ? PyCFunction_New(wakeup, waker) : Py_NewRef(waker);
        rc = callback == NULL ? -1 : call_soon(turn->group, callback, (PyObject *)turn, context);
        Py_XDECREF(callback);
    }
    Py_DECREF(waker);
    Py_XDECREF(context);
    return rc;
}

/* Does the loop report slow callbacks?  -1 on error.  (uvloop's reports name no Task.) */
static int
loop_times_callbacks(TaskGroup *self)
{
    return self->loop_is_asyncio ? attr_is_true(self->loop, self->state->str__debug) : 0;
}

static double
loop_time(TaskGroup *self)
{
    PyObject *now = PyObject_CallMethodNoArgs(self->loop, self->state->str_time);
    double value = now == NULL ? -1 : PyFloat_AsDouble(now);
    Py_XDECREF(now);
    if (value == -1) {
        report_unraisable(self->loop);
    }
    return value;
}

/* The same now, with a future that is done, from a Callback, which can say how long that took if it is `timed`. */
static int
turn_step_task_now_lock_held(Turn *turn, PyObject *future, int timed)
{
    TaskGroup *self = turn->group;
    Callback *callback = self->running;
    self->running = NULL;
    PyObject *task = turn->wakeup == NULL ? NULL : Py_XNewRef(turn->waker);
    double began = timed ? loop_time(self) : 0;
    int rc = turn_step_task_lock_held(turn, future);
    if (timed && callback != NULL) {
        PyObject *exc = PyErr_GetRaisedException();
        double took = loop_time(self) - began;
        if (callback->slowest == NULL || took > callback->took) {
            Py_XSETREF(callback->slowest, Py_XNewRef(task));
            callback->took = took;
        }
        PyErr_SetRaisedException(exc);
    }
    Py_XDECREF(task);
    self->running = callback;
    return rc;
}

/* Let the Tasks of the turns that have been granted a slot until now take their first step, each in its own context and
   in the order of the queue.  Those that are granted one meanwhile have a handle of their own coming. */
static int
start_granted_lock_held(TaskGroup *self)
{
    ASSERT_LOCKED(self);
    PyObject *first = NULL;
    Py_ssize_t count = self->starting;
    int timed = count == 0 ? 0 : loop_times_callbacks(self);
    collect_error(self, &first, timed);
    PyObject *future = count == 0 || self->loop == NULL ? NULL : get_done_future(self);
    collect_error(self, &first, count > 0 && future == NULL ? -1 : 0);
    self->starting_now = 1;
    while (first == NULL && count-- > 0 && !Link_is_empty(&self->granted)) {
        Turn *turn = TURN_OF(self->granted.next);
        Py_INCREF(turn);
        if (turn->waker != NULL) {
            collect_error(self, &first, turn_step_task_now_lock_held(turn, future, timed));
        }
        else if (withdraw_if_cancelled_lock_held(self, turn)) {
            fill_slots_lock_held(self);
        }
        else {
            count = 0;          // its first step starts it, and then the others
        }
        Py_DECREF(turn);
    }
    self->starting_now = 0;
    Py_XDECREF(future);
    // Who is left, because an error ended the loop (KeyboardInterrupt, say), is not lost.
    collect_error(self, &first, schedule_start_lock_held(self));
    return raise_collected(first);
}

/* Let the Tasks of the turns that have been cancelled until now hear of it. */
static int
step_cancelled_lock_held(TaskGroup *self)
{
    PyObject *first = NULL;
    Py_ssize_t count = Link_length(&self->cancelled);
    int timed = count == 0 ? 0 : loop_times_callbacks(self);
    collect_error(self, &first, timed);
    while (first == NULL && count-- > 0 && !Link_is_empty(&self->cancelled)) {
        Turn *turn = TURN_OF(self->cancelled.next);
        Link_remove(&turn->link);       // the list's reference is ours now
        collect_error(self, &first, turn_step_task_now_lock_held(turn, (PyObject *)turn, timed));
        Py_DECREF(turn);
    }
    return raise_collected(first);
}

/* The Callback `start`.  Of several handles only the last one starts somebody: whoever an earlier one was scheduled for
   has gone, or no newcomer could have got a slot behind it. */
static int
start_lock_held(TaskGroup *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *first = NULL;
    self->handles -= self->handles > 0;
    collect_error(self, &first, step_cancelled_lock_held(self));
    if (self->handles == 0) {
        collect_error(self, &first, start_granted_lock_held(self));     // and has the loop called again if need be
    }
    return raise_collected(first);
}

/* Have all that got a slot without queueing taken their first step?  The loop runs first steps in the order in which
   their tasks were made, so that it is enough to look at the newest. */
static int
newest_has_started_lock_held(TaskGroup *self)
{
    PyObject *coro = Py_XNewRef(self->newest);
    if (coro == NULL) {
        return 1;
    }
    int started = coroutine_has_started(self->state, coro);
    if (started > 0 && self->newest == coro) {
        Py_CLEAR(self->newest);
    }
    Py_DECREF(coro);
    return started;
}

/* Is this code run by the loop itself, and not within a task's step or by another thread?  -1 on error. */
static int
no_task_is_running(TaskGroup *self)
{
    if (PyThread_get_thread_ident() != self->thread) {
        return 0;
    }
    PyObject *current = call_in_module(self->state->tasks_dict, self->state->str_current_task, self->loop);
    int rc = current == NULL ? -1 : current == Py_None;
    Py_XDECREF(current);
    return rc;
}

/* A task's end gives a slot back.  The loop calls the Callback one iteration after that end, which is when the head of
   the queue is due: it is started right here, unless somebody before it has yet to take a first step. */
static int
release_and_start_lock_held(TaskGroup *self)
{
    ASSERT_LOCKED(self);
    PyObject *first = NULL;
    int now = self->running != NULL && !Link_is_empty(&self->queue) && self->starting == 0 && self->loop != NULL;
    // Asked while the slot is still taken: whoever answers may use the group.
    if (now) {
        now = newest_has_started_lock_held(self);
    }
    if (now > 0) {
        now = no_task_is_running(self);
    }
    collect_error(self, &first, now);
    assert(self->slots > 0);
    self->slots--;
    int nobody_before = self->starting == 0;
    fill_slots_lock_held(self);
    collect_error(self, &first, now > 0 && nobody_before ? start_granted_lock_held(self)
                                                         : schedule_start_lock_held(self));
    return raise_collected(first);
}


/* --- Errors, and the abort ---------------------------------------------------------------------------------------- */

/* loop.call_exception_handler({"message": ..., "exception": ..., "task": ...}) */
static int
report_to_loop(TaskGroup *self, PyObject *message, PyObject *exc, PyObject *task)
{
    quattro_state *state = self->state;
    if (self->loop == NULL) {
        Py_XDECREF(message);
        PyErr_Format(PyExc_RuntimeError, "TaskGroup %R has not been entered", self);
        return -1;
    }
    PyObject *context = message == NULL ? NULL : PyDict_New();
    PyObject *loop = Py_NewRef(self->loop);
    PyObject *result = NULL;
    if (context != NULL
        && PyDict_SetItem(context, state->str_message, message) == 0
        && PyDict_SetItem(context, state->str_exception, exc) == 0
        && (task == NULL || PyDict_SetItem(context, state->str_task, task) == 0))
    {
        result = PyObject_CallMethodOneArg(loop, state->str_call_exception_handler, context);
    }
    Py_DECREF(loop);
    Py_XDECREF(context);
    Py_XDECREF(message);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static int
append_error(TaskGroup *self, PyObject *exc)
{
    if (self->errors == NULL) {
        self->errors = PyList_New(0);
        if (self->errors == NULL) {
            return -1;
        }
    }
    return PyList_Append(self->errors, exc);
}

/* self._abort(), which a subclass may override. */
static int
call_abort(TaskGroup *self)
{
    return call_method((PyObject *)self, self->state->str__abort);
}

/* Cancel the tasks that the group has not cancelled yet, once each.  A background task that somebody else has cancelled
   is left to its clean-up.  All are tried; the first error is raised. */
static int
cancel_tasks_lock_held(TaskGroup *self)
{
    ASSERT_LOCKED(self);
    quattro_state *state = self->state;
    PyObject *first = NULL;
    size_t found;
    do {
        size_t at = 0;
        found = 0;
        PyObject *task;
        int kind;
        while ((task = TaskSet_mark_next(&self->tasks, &at, &kind)) != NULL) {
            found++;
            long cancelling = kind == KIND_BACKGROUND ? task_cancelling(state, task) : 0;
            collect_error(self, &first, cancelling < 0 ? -1 : 0);
            if (cancelling <= 0) {      // it is asked only once, so it is cancelled if it doesn't say
                collect_error(self, &first, cancel_task(state, task));
            }
            Py_DECREF(task);
        }
    } while (found > 0);
    return raise_collected(first);
}

/* Whatever is still queued (its Task has yet to take the step that the cancellation will be) runs no line. */
static void
drain_queue_lock_held(TaskGroup *self)
{
    ASSERT_LOCKED(self);
    while (!Link_is_empty(&self->queue)) {
        Turn *turn = TURN_OF(self->queue.next);
        Py_INCREF(turn);
        turn_leave_lock_held(turn, TURN_CANCELLED);
        if (tell_cancelled_lock_held(turn) < 0) {
            report_unraisable((PyObject *)self);
        }
        turn_close_coro(turn);
        Py_DECREF(turn);
    }
}

static int
abort_lock_held(TaskGroup *self)
{
    ASSERT_LOCKED(self);
    self->aborting = 1;
    int rc = cancel_tasks_lock_held(self);
    PyObject *exc = PyErr_GetRaisedException();
    drain_queue_lock_held(self);
    PyErr_SetRaisedException(exc);
    return rc;
}

/* The body and the last foreground task have ended: so do the background tasks now. */
static int
stop_background_lock_held(TaskGroup *self)
{
    if (!self->exiting || self->stopping || self->aborting || self->finished
        || self->background == 0 || self->tasks.used != self->background)
    {
        return 0;
    }
    self->stopping = 1;
    return cancel_tasks_lock_held(self);
}

/* How did a task end that is done?  1 and a new reference to its error in *exc; 0 for a result or a cancellation; -1 if it
   can't be asked. */
static int
task_error(quattro_state *state, PyObject *task, PyObject **exc)
{
    if (Py_IS_TYPE(task, (PyTypeObject *)state->CTask)) {
        // None for a cancelled one, too; and exception(), which then says that the error was asked for, is slow.
        *exc = Py_TYPE(state->task__exception)->tp_descr_get(state->task__exception, task, state->CTask);
        if (*exc == Py_None) {
            Py_CLEAR(*exc);
            return 0;
        }
        if (*exc != NULL) {
            Py_SETREF(*exc, PyObject_CallOneArg(state->task_exception, task));
        }
    }
    else {
        *exc = NULL;
        int cancelled = call_is_true(task, state->str_cancelled);
        if (cancelled != 0) {
            return cancelled < 0 ? -1 : 0;
        }
        *exc = PyObject_CallMethodNoArgs(task, state->str_exception);
    }
    if (*exc == Py_None) {
        Py_CLEAR(*exc);
        return 0;
    }
    return *exc == NULL ? -1 : 1;
}

#ifdef Py_GIL_DISABLED
/* Another thread may be about to change what would be walked here. */
static int
uvloop_is_idle(quattro_state *Py_UNUSED(state), PyObject *Py_UNUSED(loop))
{
    return 0;
}
#else
typedef struct {
    PyTypeObject *type;
    PyObject *last;
    int count;
} Found;

static int
find_instances(PyObject *op, void *arg)
{
    Found *found = (Found *)arg;
    if (Py_IS_TYPE(op, found->type)) {
        found->last = op;
        found->count++;
    }
    return 0;
}

/* Is nothing ready to be called?  uvloop has no attribute that tells, but it shows the collector what it holds, as
   gc.get_referents() does: one deque, of the handles that are ready.  If that ever changes, the answer is no. */
static int
uvloop_is_idle(quattro_state *state, PyObject *loop)
{
    Found deques = {(PyTypeObject *)state->deque, NULL, 0};
    Py_TYPE(loop)->tp_traverse(loop, find_instances, &deques);
    return deques.count == 1 && PyObject_Size(deques.last) == 0;
}
#endif

/* The same of asyncio's own loops, where call_soon() keeps what is ready in _ready.  (qasync's has a _ready that is always
   empty, and a call_soon() of its own.)  -1 on error. */
static int
asyncio_is_idle(quattro_state *state, PyObject *loop)
{
    PyObject *call_soon, *ready;
    int rc = PyObject_GetOptionalAttr(loop, state->str_call_soon, &call_soon);
    if (rc <= 0) {
        return rc;
    }
    PyObject *function = PyMethod_Check(call_soon) ? PyMethod_GET_FUNCTION(call_soon) : NULL;
    int is_own = function != NULL && PyFunction_Check(function)
                 && PyFunction_GET_GLOBALS(function) == PyFunction_GET_GLOBALS(state->stock_create_task);
    Py_DECREF(call_soon);
    if (!is_own || (rc = PyObject_GetOptionalAttr(loop, state->str__ready, &ready)) <= 0) {
        return is_own ? rc : 0;
    }
    rc = Py_IS_TYPE(ready, (PyTypeObject *)state->deque) && PyObject_Size(ready) == 0;
    Py_DECREF(ready);
    return rc;
}

/* May the parent take its step right here, one iteration of the loop earlier than by way of the loop?  Only if it would
   be the next to run in any case: in the last task's Callback, with nothing else ready.  -1 on error. */
static int
parent_may_step(TaskGroup *self)
{
    if (self->running == NULL) {
        return 0;
    }
    int idle = self->loop_is_asyncio ? asyncio_is_idle(self->state, self->loop)
               : self->uvloop != NULL ? uvloop_is_idle(self->state, self->loop) : 0;
    return idle <= 0 ? idle : no_task_is_running(self);
}

/* The last task has ended: have the parent, which waits on this turn, take its next step, now or by way of the loop. */
static int
wake_parent_lock_held(TaskGroup *self, Turn *waiter)
{
    ASSERT_LOCKED(self);
    if (waiter->waker == NULL || self->loop == NULL) {
        return 0;               // add_done_callback() will see that it need not wait
    }
    PyObject *first = NULL;
    int timed = 0;
    int now = parent_may_step(self);
    if (now > 0) {
        timed = loop_times_callbacks(self);
    }
    collect_error(self, &first, now < 0 || timed < 0 ? -1 : 0);
    collect_error(self, &first, now > 0 && first == NULL && waiter->waker_context != NULL
                                ? turn_step_task_now_lock_held(waiter, (PyObject *)waiter, timed)
                                : turn_step_task_lock_held(waiter, NULL));
    return raise_collected(first);
}

/* What a task's error does to the group (asyncio's _on_task_done from `self._errors.append(exc)` on). */
static int
take_error_lock_held(TaskGroup *self, PyObject *task, PyObject *exc)
{
    quattro_state *state = self->state;
    PyObject *first = NULL;
    PyObject *parent = Py_XNewRef(self->parent);
    int parent_done = 1;
    if (parent != NULL) {
        collect_error(task, &first, append_error(self, exc));
        if (is_base_error(exc) && self->base_error == NULL) {
            self->base_error = Py_NewRef(exc);
        }
        parent_done = call_is_true(parent, state->str_done);
        collect_error(task, &first, parent_done);
    }
    if (parent_done > 0) {
        PyObject *message = PyUnicode_FromFormat("Task %R has errored out but its parent task %R is already completed",
                                                 task, parent == NULL ? Py_None : parent);
        collect_error(task, &first, report_to_loop(self, message, exc, task));
    }
    else if (parent_done == 0 && !self->aborting && !self->parent_cancel_requested) {
        // The parent is cancelled to get it out of the body, and uncancelled in __aexit__().
        collect_error(task, &first, call_abort(self));
        self->parent_cancel_requested = 1;
        collect_error(task, &first, cancel_task(state, parent));
    }
    Py_XDECREF(parent);
    return raise_collected(first);
}

/* Ask a task that is done how it ended. */
static int
take_outcome_lock_held(TaskGroup *self, PyObject *task)
{
    PyObject *exc;
    int rc = task_error(self->state, task, &exc);
    if (rc > 0) {
        rc = take_error_lock_held(self, task, exc);
        Py_DECREF(exc);
    }
    return rc;
}

static int
discard_awaited_by(TaskGroup *self, PyObject *task)
{
    if (self->state->discard_awaited_by == NULL || self->parent == NULL) {
        return 0;
    }
    PyObject *args[] = {task, Py_NewRef(self->parent)};
    lend_sections(task);
    PyObject *result = PyObject_Vectorcall(self->state->discard_awaited_by, args, 2, NULL);
    Py_DECREF(args[1]);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Turns whose Tasks have been announced to have ended, but have not: their coroutines will not run. */
static void
drop_turns_lock_held(TaskGroup *self)
{
    Link *heads[] = {&self->queue, &self->granted, &self->cancelled};
    for (int i = 0; i < 3; i++) {
        while (!Link_is_empty(heads[i])) {
            Turn *turn = TURN_OF(heads[i]->next);
            Py_INCREF(turn);
            turn_leave_lock_held(turn, TURN_ENDED);
            turn_close_coro(turn);
            Py_DECREF(turn);
        }
    }
}

/* A finished group without tasks needs no callbacks, which are cycles. */
static void
drop_callbacks_lock_held(TaskGroup *self)
{
    if (self->finished && self->tasks.used == 0) {
        drop_turns_lock_held(self);
        Py_CLEAR(self->done);
        Py_CLEAR(self->start);
        TaskSet_clear(&self->tasks);
    }
}

/* What a task's end brings: the group's _on_task_done().  `error` is what the task is about to fail with, NULL for a task
   that is done. */
static int
task_ended_lock_held(TaskGroup *self, PyObject *task, PyObject *error)
{
    ASSERT_LOCKED(self);
    PyObject *first = NULL;
    int tag = TaskSet_take(&self->tasks, task);
    int kind = tag < 0 ? KIND_PLAIN : tag & KIND_MASK;
    if (kind == KIND_BACKGROUND) {
        self->background--;
    }
    collect_error(task, &first, discard_awaited_by(self, task));
    Turn *waiter = NULL;
    if (self->tasks.used == 0 && self->waiter != NULL && self->waiter->state == TURN_QUEUED) {
        waiter = (Turn *)Py_NewRef(self->waiter);
        waiter->state = TURN_RUNNING;
    }
    collect_error(task, &first, error == NULL ? take_outcome_lock_held(self, task)
                                              : take_error_lock_held(self, task, error));
    if (kind == KIND_SLOT) {
        collect_error(task, &first, release_and_start_lock_held(self));
    }
    collect_error(task, &first, stop_background_lock_held(self));
    if (waiter != NULL) {
        collect_error(task, &first, wake_parent_lock_held(self, waiter));
        Py_DECREF(waiter);
    }
    drop_callbacks_lock_held(self);
    if (tag >= 0) {
        Py_DECREF(task);        // the set's
    }
    return raise_collected(first);
}

/* The Callback `done`. */
static int
end_of_task_lock_held(TaskGroup *self, PyObject *task)
{
    return task_ended_lock_held(self, task, NULL);
}

/* A task that ends well, and is not the last one, leaves the set. */
static int
forget_lock_held(TaskGroup *self, PyObject *task)
{
    ASSERT_LOCKED(self);
    int tag = TaskSet_take(&self->tasks, task);
    int rc = 0;
    if (tag >= 0) {             // another thread may have announced its end
        rc = discard_awaited_by(self, task);
        Py_DECREF(task);        // the set's
    }
    return rc;
}

/* A quiet task ends within this step: have the loop call us where it would call the task's first done callback, before
   those that others have given it.  If that can't be had, the error that says so is what the task fails with, and its
   end is seen now. */
static int
see_end_lock_held(TaskGroup *self, const void *key)
{
    ASSERT_LOCKED(self);
    PyObject *task = Py_NewRef((PyObject *)key);
    int rc = -1;
    if (self->done == NULL || self->loop == NULL) {
        PyErr_Format(PyExc_RuntimeError, "TaskGroup %R is finished", self);
    }
    else {
        rc = call_soon(self, self->done, task, NULL);
    }
    if (rc < 0) {
        PyObject *exc = PyErr_GetRaisedException();
        if (task_ended_lock_held(self, task, exc) < 0) {
            report_unraisable(task);
        }
        PyErr_SetRaisedException(exc);
    }
    Py_DECREF(task);
    return rc;
}

/* A quiet task is about to end without an error. */
static int
leave_lock_held(TaskGroup *self, const void *key)
{
    ASSERT_LOCKED(self);
    if (TaskSet_tag(&self->tasks, key) < 0) {
        return 0;
    }
    if (self->tasks.used - self->background == 1) {
        // The parent waits for this one: its own done callbacks come before ours, and so before the parent.
        return see_end_lock_held(self, key);
    }
    return forget_lock_held(self, (PyObject *)key);
}


/* --- Making tasks ------------------------------------------------------------------------------------------------- */

/* A call of create_task() or create_background_task(), its keywords apart from `coro` as they came. */
typedef struct {
    PyObject *coro;
    PyObject *const *values;
    PyObject *kwnames;          // NULL or a tuple
} Call;

/* How much of loop.create_task() may be left out. */
typedef enum {
    LOOP_UNKNOWN,               // nothing: somebody's hook
    LOOP_STOCK,                 // asyncio's or uvloop's own, unpatched; but with a task factory, or another Task class
    LOOP_STOCK_EAGER,           // the factory is asyncio.eager_task_factory
    LOOP_DIRECT,                // it would do nothing but asyncio.Task(coro, loop=loop, ...)
} LoopKind;

/* uvloop.loop.Loop cannot be patched: the functions that are found there under their names are uvloop's own.  The tuple
   of them; NULL if the loop is none of uvloop's, or on error. */
static PyObject *
find_uvloop(quattro_state *state, PyObject *loop)
{
    PyObject *own = state->uvloop;
    if (own != NULL && PyObject_TypeCheck(loop, (PyTypeObject *)PyTuple_GET_ITEM(own, UVLOOP_TYPE))) {
        return Py_NewRef(own);
    }
    PyTypeObject *type = Py_TYPE(loop);
    while (!(type->tp_flags & Py_TPFLAGS_IMMUTABLETYPE) || strcmp(type->tp_name, "uvloop.loop.Loop") != 0) {
        type = type->tp_base;
        if (type == NULL) {
            return NULL;
        }
    }
    PyObject *names[] = {state->str_create_task, state->str_get_task_factory};
    PyObject *dict = PyType_GetDict(type);
    own = dict == NULL ? NULL : PyTuple_New(UVLOOP_SIZE);
    int rc = own != NULL;
    for (int i = 0; rc > 0 && i < UVLOOP_TYPE; i++) {
        PyObject *value;
        rc = PyDict_GetItemRef(dict, names[i], &value);
        PyTuple_SET_ITEM(own, i, value);
    }
    Py_XDECREF(dict);
    PyObject *result = NULL;
    if (rc > 0) {
        PyTuple_SET_ITEM(own, UVLOOP_TYPE, Py_NewRef(type));
        result = Py_NewRef(own);
        if (KEEP_ONE) {
            Py_XSETREF(state->uvloop, Py_NewRef(own));
        }
    }
    Py_XDECREF(own);
    return result;
}

static int
is_uvloop_function(TaskGroup *self, PyObject *function)
{
    if (self->uvloop == NULL) {
        PyObject *own = find_uvloop(self->state, self->loop);
        if (own == NULL) {
            return PyErr_Occurred() ? -1 : 0;
        }
        if (function != PyTuple_GET_ITEM(own, UVLOOP_CREATE_TASK)) {
            Py_DECREF(own);
            return 0;
        }
        Py_XSETREF(self->uvloop, own);
    }
    return function == PyTuple_GET_ITEM(self->uvloop, UVLOOP_CREATE_TASK);
}

/* Is this asyncio's own create_task(), which nobody has patched since our import?  (Not looked at: __kwdefaults__, and who
   watches its code by sys.monitoring.) */
static int
is_stock_function(quattro_state *state, PyObject *function)
{
    if (function != state->stock_create_task) {
        return 0;
    }
    PyFunctionObject *stock = (PyFunctionObject *)function;
    return stock->func_code == state->stock_code
           && (stock->func_dict == NULL || PyDict_GET_SIZE(stock->func_dict) == 0);
}

/* The loop's task factory, None or a new reference; NULL without an error if its create_task(), here `create_task`, is
   not asyncio's or uvloop's own.  What those would read is read as they read it.  (Not from the loop's __dict__: an
   instance whose dictionary has been asked for is slower to read for the interpreter ever after.) */
static PyObject *
stock_task_factory(TaskGroup *self, PyObject *create_task)
{
    quattro_state *state = self->state;
    self->loop_is_asyncio = 0;
    if (!PyMethod_Check(create_task) || PyMethod_GET_SELF(create_task) != self->loop) {
        return NULL;
    }
    PyObject *function = PyMethod_GET_FUNCTION(create_task);
    PyObject *factory = NULL;
    if (is_stock_function(state, function)) {
        self->loop_is_asyncio = 1;
        (void)PyObject_GetOptionalAttr(self->loop, state->str__task_factory, &factory);
    }
    else if (is_uvloop_function(self, function) > 0) {
        PyObject *uvloop = Py_NewRef(self->uvloop);
        factory = PyObject_CallOneArg(PyTuple_GET_ITEM(uvloop, UVLOOP_GET_TASK_FACTORY), self->loop);
        Py_DECREF(uvloop);
    }
    return factory;
}

/* The one place that decides whether a hook could be skipped; a LoopKind, or -1.  Asked for every task, because tools
   patch the class or the instance at any time. */
static int
loop_kind(TaskGroup *self, PyObject *create_task)
{
    quattro_state *state = self->state;
    PyObject *factory = stock_task_factory(self, create_task);
    if (factory == NULL) {
        return PyErr_Occurred() ? -1 : LOOP_UNKNOWN;
    }
    int is_none = factory == Py_None;
    int is_eager = self->loop_is_asyncio && factory == state->eager_task_factory;
    Py_DECREF(factory);
    if (!is_none) {
        return is_eager ? LOOP_STOCK_EAGER : LOOP_STOCK;
    }
    int c_task = dict_item_is(state->tasks_dict, state->str_Task, state->CTask);
    return c_task < 0 ? -1 : c_task ? LOOP_DIRECT : LOOP_STOCK;
}

/* Is this keyword among the caller's? */
static int
call_has(const Call *call, PyObject *name)
{
    Py_ssize_t n = call->kwnames == NULL ? 0 : PyTuple_GET_SIZE(call->kwnames);
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *kwname = PyTuple_GET_ITEM(call->kwnames, i);
        if (kwname == name || PyUnicode_Compare(kwname, name) == 0) {
            return 1;
        }
    }
    return 0;
}

/* Does the caller give no keyword but those that asyncio.Task() has? */
static int
call_is_plain(quattro_state *state, const Call *call)
{
    if (call->kwnames == NULL) {
        return 1;
    }
    Py_ssize_t known = call_has(call, state->str_name) + call_has(call, state->str_context)
                       + (TASK_TAKES_EAGER_START && call_has(call, state->str_eager_start));
    return known == PyTuple_GET_SIZE(call->kwnames);
}

/* A loop that is closed has refused the first step of a new task.  asyncio's create_task() asks that before there is a
   task, so nobody may hear that this one "was destroyed but it is pending". */
static void
forget_refused_task(TaskGroup *self, PyObject *task)
{
    PyObject *exc = PyErr_GetRaisedException();
    int closed = call_is_true(self->loop, self->state->str_is_closed);
    if (closed < 0 || (closed && PyObject_SetAttr(task, self->state->str__log_destroy_pending, Py_False) < 0)) {
        report_unraisable(self->loop);
    }
    PyErr_SetRaisedException(exc);
}

/* asyncio.Task(coro, loop=loop, **keywords), eagerly if `eager`. */
static PyObject *
make_task_directly(TaskGroup *self, const Call *call, int eager)
{
    quattro_state *state = self->state;
    PyObject **cache = eager ? &self->eager_kwargs : &self->kwargs;
    if (*cache == NULL) {
        PyObject *dict = PyDict_New();
        if (dict == NULL || PyDict_SetItem(dict, state->str_loop, self->loop) < 0
            || (eager && PyDict_SetItem(dict, state->str_eager_start, Py_True) < 0))
        {
            Py_XDECREF(dict);
            return NULL;
        }
        Py_XSETREF(*cache, dict);
    }
    PyObject *kwargs = Py_NewRef(*cache);
    if (call->kwnames != NULL && PyTuple_GET_SIZE(call->kwnames) > 0) {
        Py_SETREF(kwargs, PyDict_Copy(kwargs));
        for (Py_ssize_t i = 0; kwargs != NULL && i < PyTuple_GET_SIZE(call->kwnames); i++) {
            PyObject *name = PyTuple_GET_ITEM(call->kwnames, i);
            if (eager && PyUnicode_Compare(name, state->str_eager_start) == 0) {
                continue;
            }
            if (PyDict_SetItem(kwargs, name, call->values[i]) < 0) {
                Py_CLEAR(kwargs);
            }
        }
    }
    PyTypeObject *type = (PyTypeObject *)state->CTask;
    PyObject *args = PyTuple_Pack(1, call->coro);
    PyObject *task = NULL;
    if (args != NULL && kwargs != NULL) {
        task = type->tp_new(type, args, kwargs);
        if (task != NULL && type->tp_init(task, args, kwargs) < 0) {
            forget_refused_task(self, task);
            Py_CLEAR(task);
        }
    }
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return task;
}

/* callable(coro, **keywords) with the caller's keywords; before `coro`, `first` unless it is NULL. */
static PyObject *
call_with_keywords(PyObject *callable, PyObject *first, const Call *call)
{
    PyObject *stack[8];
    Py_ssize_t nkw = call->kwnames == NULL ? 0 : PyTuple_GET_SIZE(call->kwnames);
    PyObject **args = nkw + 2 <= 8 ? stack : PyMem_New(PyObject *, nkw + 2);
    if (args == NULL) {
        return PyErr_NoMemory();
    }
    args[0] = first;
    args[1] = call->coro;
    for (Py_ssize_t i = 0; i < nkw; i++) {
        args[2 + i] = call->values[i];
    }
    PyObject *result;
    if (first == NULL) {
        result = PyObject_Vectorcall(callable, args + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, call->kwnames);
    }
    else {
        result = PyObject_Vectorcall(callable, args, 2, call->kwnames);
    }
    if (args != stack) {
        PyMem_Free(args);
    }
    return result;
}

/* A task as loop.create_task() makes it; *direct says whether by asyncio.Task().  `park` is NULL, or the turn that the task
   may start to wait for within the call, where that can't be seen. */
static PyObject *
make_task(TaskGroup *self, const Call *call, Turn *park, int *direct)
{
    quattro_state *state = self->state;
    *direct = 0;
    PyObject *create_task = PyObject_GetAttr(self->loop, state->str_create_task);
    int kind = create_task == NULL ? -1 : loop_kind(self, create_task);
    if (kind < 0) {
        Py_XDECREF(create_task);
        return NULL;
    }
    int plain = call_is_plain(state, call);
    if (kind == LOOP_DIRECT && plain) {
        Py_DECREF(create_task);
        *direct = 1;
        if (park != NULL) {
            park->yields = park->state == TURN_CALL;
        }
        return make_task_directly(self, call, park != NULL);
    }
    PyObject *task;
    int has_eager_start = call_has(call, state->str_eager_start);
    if (!TASK_TAKES_EAGER_START && kind == LOOP_DIRECT && has_eager_start) {
        // uvloop would ignore it.
        PyErr_SetString(PyExc_TypeError, "eager_start needs CPython 3.12 or newer");
        task = NULL;
    }
    else if (!LOOP_PASSES_KEYWORDS && kind == LOOP_STOCK_EAGER && plain && !has_eager_start) {
        // The loop would set the name when the task has already run.
        task = call_with_keywords(state->eager_task_factory, self->loop, call);
    }
    else {
        task = call_with_keywords(create_task, NULL, call);
    }
    Py_DECREF(create_task);
    if (task != NULL && (((uintptr_t)task & TAG_MASK) != 0 || TaskSet_tag(&self->tasks, task) >= 0)) {
        PyErr_Format(PyExc_TypeError, "a new task was expected from the loop and its task factory, got %R", task);
        Py_CLEAR(task);
    }
    return task;
}

/* task.add_done_callback(callback), which runs in a copy of the context of now, as in asyncio. */
static int
add_done_callback(TaskGroup *self, PyObject *task, PyObject *callback)
{
    quattro_state *state = self->state;
    PyObject *args[] = {task, Py_NewRef(callback)};
    lend_sections(task);
    PyObject *result;
    if (Py_IS_TYPE(task, (PyTypeObject *)state->CTask)) {
        result = PyObject_Vectorcall(state->task_add_done_callback, args, 2, NULL);
    }
    else {
        result = PyObject_VectorcallMethod(state->str_add_done_callback, args, 2, NULL);
    }
    Py_DECREF(args[1]);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Who is called at the end of the task that is about to be made: *hook is somebody's _on_task_done, which is looked up
   for each task, as asyncio does, or NULL for ours. */
static int
find_hook(TaskGroup *self, PyObject **hook)
{
    *hook = PyObject_GetAttr((PyObject *)self, self->state->str__on_task_done);
    if (*hook == NULL) {
        return -1;
    }
    if (is_own_method((PyObject *)self, *hook, TaskGroup__on_task_done)) {
        Py_CLEAR(*hook);
    }
    if (self->done == NULL) {
        PyObject *done = Callback_new(self, end_of_task_lock_held);
        if (done == NULL) {
            Py_CLEAR(*hook);
            return -1;
        }
        self->has_tasks = 1;
        Py_XSETREF(self->done, done);
    }
    return 0;
}

static int
add_awaited_by(TaskGroup *self, PyObject *task)
{
    if (self->state->add_awaited_by == NULL || self->parent == NULL) {
        return 0;
    }
    PyObject *args[] = {task, Py_NewRef(self->parent)};
    PyObject *result = PyObject_Vectorcall(self->state->add_awaited_by, args, 2, NULL);
    Py_DECREF(args[1]);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* An eager task may have aborted the group before it was in the set (CPython issue 155418).  It is asked only once, so it
   is cancelled whatever it says. */
static int
cancel_newcomer_lock_held(TaskGroup *self, PyObject *task)
{
    PyObject *first = NULL;
    int done = call_is_true(task, self->state->str_done);
    collect_error(task, &first, done);
    int tag = TaskSet_tag(&self->tasks, task);
    if (done <= 0 && tag >= 0 && !(tag & MARK)) {
        TaskSet_set_tag(&self->tasks, task, tag | MARK);
        collect_error(task, &first, cancel_task(self->state, task));
    }
    return raise_collected(first);
}

/* A new task, which has run already if it is eager, joins the group, with a callback that is added unless it is NULL.  0;
   or -1, and it is not in the group.  Then *slot is cleared if its end has been seen all the same. */
static int
join_lock_held(TaskGroup *self, PyObject *task, int kind, PyObject *callback, int *slot)
{
    ASSERT_LOCKED(self);
    if (self->finished) {
        // Under the call that made the task, by a hook or another thread.
        PyErr_Format(PyExc_RuntimeError, "TaskGroup %R is finished", self);
        return -1;
    }
    if (TaskSet_add(&self->tasks, task, kind) < 0) {
        return -1;
    }
    self->background += kind == KIND_BACKGROUND;
    if (add_awaited_by(self, task) == 0 && (callback == NULL || add_done_callback(self, task, callback) == 0)) {
        return 0;
    }
    if (TaskSet_take(&self->tasks, task) >= 0) {
        Py_DECREF(task);
        self->background -= kind == KIND_BACKGROUND;
    }
    else {
        *slot = 0;              // somebody has announced its end
    }
    return -1;
}

/* The group can't have a new task, for the reason that is set: drop the reference to it, and give back the slot that it
   may hold. */
static PyObject *
refuse_task_lock_held(TaskGroup *self, PyObject *task, PyObject *coro, int slot)
{
    PyObject *first = PyErr_GetRaisedException();
    if (cancel_task(self->state, task) < 0) {
        PyErr_Clear();          // it may not even be a task
        close_unstarted(self->state, coro);
    }
    if (slot) {
        collect_error(self, &first, release_lock_held(self));
    }
    Py_DECREF(task);
    PyErr_SetRaisedException(first);
    return NULL;
}

/* Take over the reference to a new task, which runs `coro`, and return it; or drop it, with an error, and give back the
   slot of a KIND_SLOT.  `callback` is what is to be called at its end, NULL if it tells. */
static PyObject *
adopt_lock_held(TaskGroup *self, PyObject *task, PyObject *coro, int kind, PyObject *callback)
{
    int slot = kind == KIND_SLOT;
    if (join_lock_held(self, task, kind, callback, &slot) < 0) {
        return refuse_task_lock_held(self, task, coro, slot);
    }
    if (self->aborting && cancel_newcomer_lock_held(self, task) < 0) {
        Py_CLEAR(task);         // the group waits for it all the same
    }
    return task;
}

/* run_turn(turn), under the name of what it stands for. */
static PyObject *
start_turn(TaskGroup *self, Turn *turn)
{
    quattro_state *state = self->state;
    PyObject *runner = PyObject_CallOneArg(state->run_turn, (PyObject *)turn);
    if (runner != NULL && copy_names(state, runner, turn->coro) < 0) {
        close_coroutine(state, runner);
        Py_CLEAR(runner);
    }
    return runner;
}

/* May a task start within the call that makes it, to wait at once for its turn?  Not where somebody could see that.  In
   another thread it would be the loop's current task while that runs another one.  In a context that somebody is in (who
   creates tasks that share it, say) none can, and CPython's Task, which finds that out too late, stays the loop's current
   task; a copy of its own is entered by nobody. */
static int
may_park(TaskGroup *self, const Call *call, PyObject *hook)
{
    return TASK_TAKES_EAGER_START && hook == NULL && PyThread_get_thread_ident() == self->thread
           && !call_has(call, self->state->str_context);
}

/* No slot: the turn, which has a task now, goes to the end of the queue. */
static int
queue_turn_lock_held(TaskGroup *self, Turn *turn)
{
    if (turn->state != TURN_QUEUED || self->finished) {
        return 0;
    }
    Py_INCREF(turn);
    Link_append(&self->queue, &turn->link);
    self->queued++;
    if (self->aborting) {
        drain_queue_lock_held(self);
    }
    return grant_lock_held(self);
}

/* A task for a turn, which runs `runner`. */
static PyObject *
create_for_turn_lock_held(TaskGroup *self, const Call *call, Turn *turn, PyObject *runner, PyObject *hook)
{
    int direct;
    Call runner_call = {runner, call->values, call->kwnames};
    PyObject *task = make_task(self, &runner_call, may_park(self, call, hook) ? turn : NULL, &direct);
    if (task == NULL) {
        close_unstarted(self->state, runner);
        return NULL;
    }
    turn->task = task;
    turn->hook = Py_XNewRef(hook);
    turn->quiet = direct && hook == NULL && turn->waker != NULL;
    PyObject *callback = turn->quiet ? NULL : PyCFunction_New(&Turn_task_done_def, (PyObject *)turn);
    if (callback == NULL && !turn->quiet) {
        return refuse_task_lock_held(self, task, runner, 0);
    }
    task = adopt_lock_held(self, task, runner, KIND_PLAIN, callback);
    Py_XDECREF(callback);
    return task;
}

static PyObject *
create_queued_lock_held(TaskGroup *self, const Call *call, PyObject *hook)
{
    ASSERT_LOCKED(self);
    if (self->start == NULL) {
        PyObject *start = Callback_new(self, start_lock_held);
        if (start == NULL) {
            close_coroutine(self->state, call->coro);
            return NULL;
        }
        Py_XSETREF(self->start, start);
    }
    Turn *turn = Turn_new(self, call->coro, TURN_QUEUED);
    if (turn == NULL) {
        close_coroutine(self->state, call->coro);
        return NULL;
    }
    PyObject *runner = start_turn(self, turn);
    PyObject *task = runner == NULL ? NULL : create_for_turn_lock_held(self, call, turn, runner, hook);
    Py_XDECREF(runner);
    if (task == NULL) {
        PyObject *exc = PyErr_GetRaisedException();
        turn->quiet = 0;
        if (turn->state == TURN_QUEUED) {
            turn->state = TURN_ENDED;
        }
        turn_close_coro(turn);
        PyErr_SetRaisedException(exc);
    }
    // In the queue only now: nobody may be granted a slot before there is a task to take it.
    else if (queue_turn_lock_held(self, turn) < 0) {
        Py_CLEAR(task);
    }
    Py_DECREF(turn);
    return task;
}

/* A task that may have run eagerly: has it ended so that its slot is free?  An error is looked at by its callback first.
   -1 on error. */
static int
has_ended_well(quattro_state *state, PyObject *task)
{
    int rc = call_is_true(task, state->str_done);
    if (rc > 0) {
        PyObject *exc = NULL;
        rc = task_error(state, task, &exc);
        Py_XDECREF(exc);
        rc = rc < 0 ? -1 : !rc;
    }
    return rc;
}

/* A newcomer that found a free slot has a task: does it still hold the slot?  Whoever is granted one from now on takes a
   first step after that of the newcomer. */
static int
keeps_slot_lock_held(TaskGroup *self, PyObject *task, PyObject *coro, int may_be_eager)
{
    int ended = may_be_eager ? has_ended_well(self->state, task) : 0;
    if (ended > 0) {
        return 0;
    }
    if (ended < 0) {
        PyErr_Clear();          // not a task that could be asked: adopt() says so, unless add_done_callback() works
    }
    Py_XSETREF(self->newest, Py_NewRef(coro));
    self->may_ride = 0;
    return 1;
}

/* A task for a coroutine that may start at once, with a slot if it is of KIND_SLOT.  `turn` is that of a callable, which
   `coro` calls; NULL for others. */
static PyObject *
create_started_lock_held(TaskGroup *self, const Call *call, PyObject *coro, Turn *turn, int *kind, PyObject *hook)
{
    int has_eager_start = call_has(call, self->state->str_eager_start);
    // A callable's task can tell its own end, and needs no callback then; but a slot and a background task have one.
    Turn *park = turn != NULL && *kind == KIND_PLAIN && !has_eager_start && may_park(self, call, hook) ? turn : NULL;
    int direct;
    Call coro_call = {coro, call->values, call->kwnames};
    PyObject *task = make_task(self, &coro_call, park, &direct);
    if (task == NULL) {
        close_unstarted(self->state, coro);
        *kind = KIND_PLAIN;
        return NULL;
    }
    if (*kind == KIND_SLOT && !keeps_slot_lock_held(self, task, coro, !direct || has_eager_start)) {
        *kind = KIND_PLAIN;     // and the caller gives the slot back
    }
    if (park != NULL && direct && turn->waker != NULL) {
        // A first step is scheduled when the task is made.
        if (turn_step_task_lock_held(turn, NULL) < 0) {
            return refuse_task_lock_held(self, task, coro, 0);
        }
        turn->task = task;
        turn->quiet = 1;
        task = adopt_lock_held(self, task, coro, *kind, NULL);
        turn->quiet = task != NULL;
        return task;
    }
    PyObject *callback = Py_XNewRef(hook != NULL ? hook : self->done);
    if (callback == NULL) {
        PyErr_Format(PyExc_RuntimeError, "TaskGroup %R is finished", self);
        return refuse_task_lock_held(self, task, coro, *kind == KIND_SLOT);
    }
    task = adopt_lock_held(self, task, coro, *kind, callback);
    Py_DECREF(callback);
    return task;
}

static PyObject *
create_now_lock_held(TaskGroup *self, const Call *call, int callable, int kind, PyObject *hook)
{
    ASSERT_LOCKED(self);
    int slot = kind == KIND_SLOT;
    self->slots += slot;        // before the callable is asked for its name, or the task may run, and create others
    Turn *turn = NULL;
    PyObject *coro = Py_NewRef(call->coro);
    if (callable) {
        turn = Turn_new(self, coro, TURN_CALL);
        Py_SETREF(coro, turn == NULL ? NULL : start_turn(self, turn));
    }
    PyObject *task = NULL;
    if (coro != NULL) {
        task = create_started_lock_held(self, call, coro, turn, &kind, hook);
        slot = slot && kind == KIND_PLAIN;
    }
    Py_XDECREF(coro);
    Py_XDECREF(turn);
    if (slot) {
        PyObject *first = task == NULL ? PyErr_GetRaisedException() : NULL;
        collect_error(self, &first, release_lock_held(self));
        if (first != NULL) {
            Py_CLEAR(task);
        }
        PyErr_SetRaisedException(first);
    }
    return task;
}

/* asyncio's RuntimeError with asyncio's text, and what to do about it as a note below it in the traceback. */
static PyObject *
refuse(TaskGroup *self, PyObject *coro, const char *why, const char *note)
{
    close_coroutine(self->state, coro);
    PyErr_Format(PyExc_RuntimeError, "TaskGroup %R %s", self, why);
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *result = PyObject_CallMethod(exc, "add_note", "s", note);
    if (result == NULL) {
        PyErr_Clear();
    }
    Py_XDECREF(result);
    PyErr_SetRaisedException(exc);
    return NULL;
}

static PyObject *
create_lock_held(TaskGroup *self, const Call *call, int background)
{
    ASSERT_LOCKED(self);
    quattro_state *state = self->state;
    PyObject *coro = call->coro;
    int rc = is_coroutine(state, coro);
    if (rc < 0) {
        return NULL;
    }
    if (rc == 0 && !PyCallable_Check(coro)) {
        set_not_a_coroutine(coro);
        return NULL;
    }
    if (!self->entered) {
        return refuse(self, coro, "has not been entered", "Create tasks inside `async with TaskGroup() as tg:`.");
    }
    if (self->finished || (self->exiting && self->tasks.used == 0)) {
        return refuse(self, coro, "is finished",
                      "Its `async with` block has ended: create tasks inside it, or from the group's own tasks.");
    }
    if (self->aborting) {
        return refuse(self, coro, "is shutting down",
                      "Its tasks are being cancelled: one of them or the body failed, it was cancelled from outside, "
                      "or somebody called cancel(). The exit of the group raises the errors, if there are any.");
    }
    if (background && self->stopping) {
        return refuse(self, coro, "is shutting down",
                      "Its body and foreground tasks have ended, and its background tasks are being cancelled. What "
                      "has to be done still can be a task made by create_task().");
    }
    PyObject *hook;
    if (find_hook(self, &hook) < 0) {
        close_coroutine(state, coro);
        return NULL;
    }
    PyObject *task;
    if (background) {
        task = create_now_lock_held(self, call, !rc, KIND_BACKGROUND, hook);
    }
    else if (self->limit == 0) {
        task = create_now_lock_held(self, call, !rc, KIND_PLAIN, hook);
    }
    else if (self->slots < self->limit && Link_is_empty(&self->queue) && self->starting == 0) {
        task = create_now_lock_held(self, call, !rc, KIND_SLOT, hook);
    }
    else {
        task = create_queued_lock_held(self, call, hook);
    }
    Py_XDECREF(hook);
    return task;
}

/* The arguments (coro, *, name=None, context=None, eager_start=None, **kwargs). */
static PyObject *
create(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, int background)
{
    TaskGroup *self = GROUP(op);
    quattro_state *state = self->state;
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (nargs == 0) {
        // create_task(coro=...): the same call with `coro` in front.
        for (Py_ssize_t i = 0; i < nkw; i++) {
            if (PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, i), state->str_coro) != 0) {
                continue;
            }
            PyObject *names = PyTuple_New(nkw - 1);
            PyObject **moved = PyMem_New(PyObject *, nkw);
            PyObject *task = NULL;
            if (names == NULL || moved == NULL) {
                PyErr_NoMemory();
                close_coroutine(state, args[i]);
            }
            else {
                moved[0] = args[i];
                for (Py_ssize_t j = 0, k = 0; j < nkw; j++) {
                    if (j != i) {
                        moved[k + 1] = args[j];
                        PyTuple_SET_ITEM(names, k++, Py_NewRef(PyTuple_GET_ITEM(kwnames, j)));
                    }
                }
                task = create(op, moved, 1, names, background);
            }
            Py_XDECREF(names);
            PyMem_Free(moved);
            return task;
        }
    }
    const char *method = background ? "create_background_task" : "create_task";
    if (nargs != 1 || (nkw > 0 && call_has(&(Call){NULL, NULL, kwnames}, state->str_coro))) {
        for (Py_ssize_t i = 0; i < nargs + nkw; i++) {
            close_coroutine(state, args[i]);
        }
        if (nargs > 1) {
            PyErr_Format(PyExc_TypeError,
                         "%s() takes one coroutine or callable (%zd arguments given): call the function with its "
                         "arguments and pass what it returns; name, context and eager_start are keyword-only",
                         method, nargs);
        }
        else {
            PyErr_Format(PyExc_TypeError, nargs == 0 ? "%s() missing 1 required positional argument: 'coro'"
                         : "%s() got multiple values for argument 'coro'", method);
        }
        return NULL;
    }
    Call call = {args[0], args + 1, kwnames};
    PyObject *task;
    BEGIN_SECTION(op);
    task = create_lock_held(self, &call, background);
    if (task == NULL) {
        drop_callbacks_lock_held(self);     // finished meanwhile, for all that it could run
    }
    check_lock_held(self);
    END_SECTION();
    return task;
}


/* --- Await: what __aenter__() and __aexit__() return -------------------------------------------------------------- */

static PyObject *
Await_new(TaskGroup *group, AwaitStage stage, PyObject *exc)
{
    PyTypeObject *type = group->state->Await_Type;
    Await *self = (Await *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->group = (TaskGroup *)Py_NewRef(group);
        self->exc = Py_XNewRef(exc);
        self->stage = stage;
    }
    return (PyObject *)self;
}

/* async def __aenter__(self) */
static int
enter_lock_held(TaskGroup *group)
{
    ASSERT_LOCKED(group);
    quattro_state *state = group->state;
    if (group->entered) {
        PyErr_Format(PyExc_RuntimeError, "TaskGroup %R has already been entered", group);
        return -1;
    }
    PyObject *loop = Py_XNewRef(group->loop);
    if (loop == NULL) {
        loop = call_in_module(state->events_dict, state->str_get_running_loop, NULL);
        if (loop == NULL) {
            return -1;
        }
    }
    PyObject *parent = call_in_module(state->tasks_dict, state->str_current_task, loop);
    if (parent == NULL || parent == Py_None || group->entered) {
        if (parent != NULL) {
            PyErr_Format(PyExc_RuntimeError,
                         parent == Py_None ? "TaskGroup %R cannot determine the parent task"
                                           : "TaskGroup %R has already been entered", group);
        }
        Py_DECREF(loop);
        Py_XDECREF(parent);
        return -1;
    }
    Py_XSETREF(group->loop, loop);
    Py_XSETREF(group->parent, parent);
    group->thread = PyThread_get_thread_ident();
    group->entered = 1;
    return group->cancel_on_enter ? call_method((PyObject *)group, state->str_cancel) : 0;
}

/* What the making of tasks has left, but for the callbacks. */
static void
drop_tools(TaskGroup *self)
{
    Py_CLEAR(self->kwargs);
    Py_CLEAR(self->eager_kwargs);
    Py_CLEAR(self->uvloop);
    Py_CLEAR(self->done_future);
    Py_CLEAR(self->newest);
}

/* What the `finally` of asyncio's __aexit__() does, and more: nothing of what the group held stays. */
static void
finish_lock_held(TaskGroup *group)
{
    ASSERT_LOCKED(group);
    group->finished = 1;
    for (size_t i = group->tasks.begin; i < group->tasks.end; i++) {
        // Only if the exit was broken off.
        PyObject *task = Py_XNewRef(ENTRY_TASK(group->tasks.entries[i]));
        if (task != NULL && discard_awaited_by(group, task) < 0) {
            report_unraisable(task);
        }
        Py_XDECREF(task);
    }
    Py_CLEAR(group->parent);
    Py_CLEAR(group->errors);
    Py_CLEAR(group->base_error);
    Py_CLEAR(group->waiter);
    if (group->has_tasks) {
        drop_tools(group);
        // Tasks are left only if the exit itself was broken off: their ends are still to be seen.
        drop_callbacks_lock_held(group);
    }
}

/* Wait until the last task is done, or the parent is cancelled: the object to yield. */
static PyObject *
exit_wait_lock_held(TaskGroup *group)
{
    Turn *turn = Turn_new(group, NULL, TURN_QUEUED);
    if (turn != NULL) {
        turn->blocking = turn->exit = 1;
        Py_XSETREF(group->waiter, (Turn *)Py_NewRef(turn));
    }
    return (PyObject *)turn;
}

/* Report an error that a base error displaces. */
static int
report_displaced(TaskGroup *group, PyObject *exc)
{
    PyObject *message = PyUnicode_FromFormat("unhandled error in a TaskGroup that raises %s instead",
                                             Py_TYPE(group->base_error)->tp_name);
    return report_to_loop(group, message, exc, NULL);
}

/* Raise what the group has to raise (-1 and the error set), or nothing (0); 1 if the parent has to pass through the
   loop once first, because uncancel() left a cancellation pending (CPython before 3.13). */
static int
exit_uncancel_lock_held(Await *self)
{
    TaskGroup *group = self->group;
    quattro_state *state = group->state;
    if (!group->parent_cancel_requested) {
        return 0;
    }
    PyObject *parent = Py_NewRef(group->parent);
    PyObject *count = PyObject_CallMethodNoArgs(parent, state->str_uncancel);
    int rc = count == NULL ? -1 : PyObject_IsTrue(count);
    Py_XDECREF(count);
    if (rc > 0) {
        // A cancellation from outside remains: it is not ours to drop (CPython issue 155433).
        if (self->propagate == NULL) {
            self->propagate = Py_XNewRef(self->pending);
        }
        rc = 0;
    }
    else if (rc == 0) {
        Py_CLEAR(self->propagate);
        rc = attr_is_true(parent, state->str__must_cancel);
    }
    Py_DECREF(parent);
    return rc;
}

static PyObject *
TaskGroup_rearm(PyObject *parent, PyObject *Py_UNUSED(ignored))
{
    PyObject *count = PyObject_CallMethod(parent, "cancelling", NULL);
    int wanted = count == NULL ? -1 : PyObject_IsTrue(count);
    Py_XDECREF(count);
    for (int i = 0; wanted > 0 && i < 2; i++) {
        PyObject *result = PyObject_CallMethod(parent, i == 0 ? "uncancel" : "cancel", NULL);
        Py_XDECREF(result);
        if (result == NULL) {
            wanted = -1;
        }
    }
    if (wanted < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef TaskGroup_rearm_def = {"_rearm", TaskGroup_rearm, METH_NOARGS, NULL};

/* The parent was cancelled from outside, and the group raises an error instead: cancel it again, so that its next
   await sees the cancellation.  Where uncancel() does not reset a pending cancellation, a timeout around the group
   could not take this one back: so it is done from the loop, if it is still wanted then. */
static int
exit_rearm_lock_held(TaskGroup *group)
{
    quattro_state *state = group->state;
    PyObject *parent = Py_NewRef(group->parent);
    long cancelling = task_cancelling(state, parent);
    int rc = cancelling < 0 ? -1 : 0;
    if (cancelling > 0 && state->uncancel_resets) {
        rc = call_method(parent, state->str_uncancel) < 0 ? -1 : call_method(parent, state->str_cancel);
    }
    else if (cancelling > 0) {
        PyObject *rearm = PyCFunction_New(&TaskGroup_rearm_def, parent);
        rc = rearm == NULL ? -1 : call_soon(group, rearm, NULL, NULL);
        Py_XDECREF(rearm);
    }
    Py_DECREF(parent);
    return rc;
}

/* The end of asyncio's _aexit(), from `if self._base_error is not None` on; -1 and an error, or 0. */
static int
exit_raise_lock_held(Await *self)
{
    TaskGroup *group = self->group;
    quattro_state *state = group->state;
    PyObject *exc = self->exc;
    int exc_is_cancel = exc != NULL && PyErr_GivenExceptionMatches(exc, state->CancelledError);
    if (group->base_error != NULL) {
        // Everything that it displaces is reported.
        PyObject *base = Py_NewRef(group->base_error);
        PyObject *errors = Py_XNewRef(group->errors);
        int rc = 0;
        for (Py_ssize_t i = 0; rc == 0 && errors != NULL && i < PyList_GET_SIZE(errors); i++) {
            PyObject *error = PyList_GetItemRef(errors, i);
            rc = error == NULL ? -1 : error == base ? 0 : report_displaced(group, error);
            Py_XDECREF(error);
        }
        if (rc == 0 && exc != NULL && exc != base && !exc_is_cancel) {
            rc = report_displaced(group, exc);
        }
        if (rc < 0) {
            report_unraisable((PyObject *)group);
        }
        raise_exception(base);
        Py_XDECREF(errors);
        Py_DECREF(base);
        return -1;
    }
    int has_errors = group->errors != NULL && PyList_GET_SIZE(group->errors) > 0;
    if (self->propagate != NULL && !has_errors) {
        raise_exception(self->propagate);
        return -1;
    }
    if (exc != NULL && !exc_is_cancel && append_error(group, exc) < 0) {
        return -1;
    }
    if (!has_errors && (exc == NULL || exc_is_cancel)) {
        return 0;
    }
    if (exit_rearm_lock_held(group) < 0) {
        return -1;
    }
    if (exc != NULL && PyErr_GivenExceptionMatches(exc, PyExc_GeneratorExit) && PyList_GET_SIZE(group->errors) == 1) {
        raise_exception(exc);
        return -1;
    }
    PyObject *error = PyObject_CallFunction(PyExc_BaseExceptionGroup, "sO", "unhandled errors in a TaskGroup",
                                            group->errors);
    if (error != NULL) {
        PyException_SetCause(error, NULL);      // from None
        raise_exception(error);
        Py_DECREF(error);
    }
    return -1;
}

/* asyncio's _aexit(); `thrown` is the exception that the parent's coroutine was resumed with, NULL for a value. */
static PySendResult
exit_step_lock_held(Await *self, PyObject *thrown, PyObject **result)
{
    TaskGroup *group = self->group;
    quattro_state *state = group->state;
    ASSERT_LOCKED(group);
    int cancelled = thrown != NULL && PyErr_GivenExceptionMatches(thrown, state->CancelledError);
    if (group->finished && self->stage != AWAIT_EXIT) {
        self->stage = AWAIT_DONE;       // the collector has been here
    }
    switch (self->stage) {
    case AWAIT_EXIT:
        if (!group->entered || group->exiting) {
            PyErr_Format(PyExc_RuntimeError, "TaskGroup %R %s", group,
                         group->entered ? "is already exiting" : "has not been entered");
            self->stage = AWAIT_DONE;
            return PYGEN_ERROR;
        }
        group->exiting = 1;
        self->stage = AWAIT_TASKS;
        if (self->exc != NULL) {
            if (is_base_error(self->exc) && group->base_error == NULL) {
                group->base_error = Py_NewRef(self->exc);
            }
            if (PyErr_GivenExceptionMatches(self->exc, state->CancelledError)) {
                self->propagate = Py_NewRef(self->exc);
            }
            if (!group->aborting && call_abort(group) < 0) {
                goto error;
            }
        }
        if (stop_background_lock_held(group) < 0) {
            goto error;
        }
        break;
    case AWAIT_TASKS:
        // The parent may be cancelled many times: each time a new turn is waited on.
        if (thrown != NULL && !cancelled) {
            PyErr_SetRaisedException(Py_NewRef(thrown));
            goto error;
        }
        if (cancelled) {
            Py_XSETREF(self->pending, Py_NewRef(thrown));
            if (!group->aborting) {
                Py_XSETREF(self->propagate, Py_NewRef(thrown));
                if (call_abort(group) < 0 || stop_background_lock_held(group) < 0) {
                    goto error;
                }
            }
        }
        break;
    case AWAIT_LOOP:
        if (thrown != NULL && !cancelled) {
            PyErr_SetRaisedException(Py_NewRef(thrown));
            goto error;
        }
        if (cancelled) {
            long cancelling = task_cancelling(state, group->parent);
            if (cancelling < 0) {
                goto error;
            }
            if (cancelling > 0) {
                Py_XSETREF(self->propagate, Py_NewRef(thrown));
            }
        }
        goto end;
    default:
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited __aenter__() or __aexit__()");
        return PYGEN_ERROR;
    }

    if (group->tasks.used != 0) {
        *result = exit_wait_lock_held(group);
        if (*result == NULL) {
            goto error;
        }
        return PYGEN_NEXT;
    }
    int again = exit_uncancel_lock_held(self);
    if (again < 0) {
        goto error;
    }
    if (again) {
        self->stage = AWAIT_LOOP;
        *result = Py_NewRef(Py_None);
        return PYGEN_NEXT;
    }
end:
    self->stage = AWAIT_DONE;
    if (exit_raise_lock_held(self) < 0) {
        goto error;
    }
    finish_lock_held(group);
    *result = Py_NewRef(self->exc == NULL ? Py_None : Py_True);
    return PYGEN_RETURN;

error:
    self->stage = AWAIT_DONE;
    {
        PyObject *exc = PyErr_GetRaisedException();
        finish_lock_held(group);
        PyErr_SetRaisedException(exc);
    }
    return PYGEN_ERROR;
}

static int
Await_clear(PyObject *op)
{
    Await *self = (Await *)op;
    Py_CLEAR(self->exc);
    Py_CLEAR(self->propagate);
    Py_CLEAR(self->pending);
    return 0;
}

static PySendResult
await_advance_lock_held(Await *self, PyObject *thrown, PyObject **result)
{
    if (self->stage == AWAIT_ENTER) {
        self->stage = AWAIT_DONE;
        if (thrown != NULL) {
            PyErr_SetRaisedException(Py_NewRef(thrown));
            return PYGEN_ERROR;
        }
        if (enter_lock_held(self->group) < 0) {
            return PYGEN_ERROR;
        }
        *result = Py_NewRef(self->group);
        return PYGEN_RETURN;
    }
    if (thrown != NULL && self->stage == AWAIT_EXIT) {
        // Before its first step, as a coroutine would.
        self->stage = AWAIT_DONE;
        PyErr_SetRaisedException(Py_NewRef(thrown));
        return PYGEN_ERROR;
    }
    PySendResult rc = exit_step_lock_held(self, thrown, result);
    // Nothing that was raised may be held from here.
    if (rc == PYGEN_RETURN) {
        Await_clear((PyObject *)self);
    }
    else if (rc == PYGEN_ERROR) {
        PyObject *exc = PyErr_GetRaisedException();
        Await_clear((PyObject *)self);
        PyErr_SetRaisedException(exc);
    }
    return rc;
}

static PySendResult
await_step_lock_held(Await *self, PyObject *thrown, PyObject **result)
{
    *result = NULL;
    if (self->running) {
        PyErr_SetString(PyExc_ValueError, "already executing");
        return PYGEN_ERROR;
    }
    self->running = self->started = 1;
    PySendResult rc = await_advance_lock_held(self, thrown, result);
    self->running = 0;
    return rc;
}

static PySendResult
Await_am_send(PyObject *op, PyObject *Py_UNUSED(value), PyObject **result)
{
    PySendResult rc;
    BEGIN_SECTION(((Await *)op)->group);
    rc = await_step_lock_held((Await *)op, NULL, result);
    check_lock_held(((Await *)op)->group);
    END_SECTION();
    return rc;
}

static PyObject *
Await_iternext(PyObject *op)
{
    PyObject *result;
    PySendResult rc = Await_am_send(op, Py_None, &result);
    return iternext_result(rc, result);
}

static PyObject *
Await_send(PyObject *op, PyObject *Py_UNUSED(value))
{
    PyObject *result;
    PySendResult rc = Await_am_send(op, Py_None, &result);
    return send_result(rc, result);
}

/* The exception that throw(type_or_exc, value, traceback) was given, a new reference; NULL and TypeError for none. */
static PyObject *
thrown_exception(PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1 || nargs > 3) {
        PyErr_Format(PyExc_TypeError, "throw() takes 1 to 3 arguments (%zd given)", nargs);
        return NULL;
    }
    PyObject *type = args[0];
    PyObject *value = nargs > 1 && args[1] != Py_None ? args[1] : NULL;
    PyObject *exc;
    if (value != NULL && PyExceptionInstance_Check(value)) {
        exc = Py_NewRef(value);
    }
    else if (PyExceptionClass_Check(type)) {
        exc = value == NULL ? PyObject_CallNoArgs(type) : PyObject_CallOneArg(type, value);
    }
    else {
        exc = Py_NewRef(type);
    }
    if (exc != NULL && !PyExceptionInstance_Check(exc)) {
        PyErr_Format(PyExc_TypeError, "throw() takes an exception, not %R", exc);
        Py_CLEAR(exc);
    }
    if (exc != NULL && nargs == 3 && args[2] != Py_None && PyException_SetTraceback(exc, args[2]) < 0) {
        Py_CLEAR(exc);
    }
    return exc;
}

static PyObject *
Await_throw(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *thrown = thrown_exception(args, nargs);
    if (thrown == NULL) {
        return NULL;
    }
    PyObject *result;
    PySendResult rc;
    BEGIN_SECTION(((Await *)op)->group);
    rc = await_step_lock_held((Await *)op, thrown, &result);
    check_lock_held(((Await *)op)->group);
    END_SECTION();
    Py_DECREF(thrown);
    return send_result(rc, result);
}

/* Broken off while waiting: what GeneratorExit would do to asyncio's coroutine. */
static PyObject *
Await_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    Await *self = (Await *)op;
    int running;
    BEGIN_SECTION(self->group);
    running = self->running;
    self->started = 1;
    if (!running) {
        if (self->stage == AWAIT_TASKS || self->stage == AWAIT_LOOP) {
            finish_lock_held(self->group);
        }
        self->stage = AWAIT_DONE;
        Await_clear(op);
    }
    END_SECTION();
    if (running) {
        PyErr_SetString(PyExc_ValueError, "already executing");
        return NULL;
    }
    Py_RETURN_NONE;
}

static int
Await_traverse(PyObject *op, visitproc visit, void *arg)
{
    Await *self = (Await *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->group);
    Py_VISIT(self->exc);
    Py_VISIT(self->propagate);
    Py_VISIT(self->pending);
    return 0;
}

/* As a coroutine that is dropped before its first step. */
static void
Await_finalize(PyObject *op)
{
    Await *self = (Await *)op;
    if (self->started) {
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine 'TaskGroup.%s' was never awaited",
                         self->stage == AWAIT_ENTER ? "__aenter__" : "__aexit__") < 0)
    {
        report_unraisable(op);
    }
    PyErr_SetRaisedException(exc);
}

static void
Await_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    if (!((Await *)op)->started && PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    PyObject_GC_UnTrack(op);
    Await_clear(op);
    Py_CLEAR(((Await *)op)->group);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef Await_methods[] = {
    {"send", Await_send, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))Await_throw, METH_FASTCALL, NULL},
    {"close", Await_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Await_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("What a group's __aenter__() and __aexit__() return. Internal.")},
    {Py_tp_dealloc, Await_dealloc},
    {Py_tp_traverse, Await_traverse},
    {Py_tp_clear, Await_clear},
    {Py_tp_finalize, Await_finalize},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, Await_iternext},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, Await_am_send},
    {Py_tp_methods, Await_methods},
    {0, NULL},
};

static PyType_Spec Await_spec = {
    .name = "quattro._quattro._Await",
    .basicsize = sizeof(Await),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Await_slots,
};


/* --- TaskGroup ---------------------------------------------------------------------------------------------------- */

static PyObject *
TaskGroup_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    PyObject *module = PyType_GetModuleByDef(type, &quattro_module);
    if (module == NULL) {
        return NULL;
    }
    TaskGroup *self = (TaskGroup *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->state = get_state(module);
        Link_init_head(&self->queue);
        Link_init_head(&self->granted);
        Link_init_head(&self->cancelled);
    }
    return (PyObject *)self;
}

/* None (0), or anything with __index__ from 1 on, where a huge one is as good as PY_SSIZE_T_MAX. */
static int
parse_limit(PyObject *value, Py_ssize_t *limit)
{
    *limit = 0;
    if (value == NULL || value == Py_None) {
        return 0;
    }
    if (!PyIndex_Check(value)) {
        PyErr_Format(PyExc_TypeError, "concurrency_limit must be an int or None, not %.100s", Py_TYPE(value)->tp_name);
        return -1;
    }
    *limit = PyNumber_AsSsize_t(value, NULL);   // clamps
    if (*limit == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (*limit < 1) {
        PyErr_SetString(PyExc_ValueError, "concurrency_limit must be >= 1");
        return -1;
    }
    return 0;
}

static int
TaskGroup_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    TaskGroup *self = GROUP(op);
    PyObject *value = NULL;
    Py_ssize_t nkw = kwargs == NULL ? 0 : PyDict_GET_SIZE(kwargs);
    if (PyTuple_GET_SIZE(args) != 0) {
        PyErr_Format(PyExc_TypeError, "TaskGroup() takes no positional arguments (%zd given): "
                     "write concurrency_limit=...", PyTuple_GET_SIZE(args));
        return -1;
    }
    if (nkw > 0 && PyDict_GetItemRef(kwargs, self->state->str_concurrency_limit, &value) < 0) {
        return -1;
    }
    if (nkw != (value != NULL)) {
        Py_XDECREF(value);
        PyObject *name = NULL;
        Py_ssize_t pos = 0;
        while (PyDict_Next(kwargs, &pos, &name, NULL)
               && PyUnicode_Compare(name, self->state->str_concurrency_limit) == 0)
        {
        }
        PyErr_Format(PyExc_TypeError,
                     "TaskGroup() got an unexpected keyword argument %R: it takes concurrency_limit only", name);
        return -1;
    }
    Py_ssize_t limit;
    int rc = parse_limit(value, &limit);
    Py_XDECREF(value);
    if (rc < 0) {
        return -1;
    }
    BEGIN_SECTION(op);
    if (self->entered) {
        PyErr_Format(PyExc_RuntimeError, "TaskGroup %R has already been entered", op);
        rc = -1;
    }
    else {
        self->limit = limit;
    }
    END_SECTION();
    return rc;
}

PyDoc_STRVAR(TaskGroup_aenter_doc,
"__aenter__($self, /)\n--\n\n"
"Enter the group: the task that runs this becomes its parent.\n\n"
"Returns:\n"
"    Awaitable[TaskGroup]: To be awaited once; its result is the group.\n\n"
"Raises:\n"
"    RuntimeError: When awaited: the group has been entered before, no event loop is running, or no task is (in a\n"
"        callback of the loop, say).");

static PyObject *
TaskGroup_aenter(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return Await_new(GROUP(op), AWAIT_ENTER, NULL);
}

PyDoc_STRVAR(TaskGroup_aexit_doc,
"__aexit__($self, et, exc, tb, /)\n--\n\n"
"Wait for the foreground tasks, then cancel the background tasks and wait for them.\n\n"
"Args:\n"
"    et (type[BaseException] | None): The type of the body's exception.\n"
"    exc (BaseException | None): The body's exception. Any one aborts the group: everything is cancelled at once.\n"
"    tb (types.TracebackType | None): Its traceback; not used.\n\n"
"Returns:\n"
"    Awaitable[bool | None]: To be awaited once; its result is true if the body's exception was dealt with.\n\n"
"Raises:\n"
"    ExceptionGroup: The errors of tasks and body, but for CancelledError, in the order in which they came (a\n"
"        BaseExceptionGroup if one of them is no Exception).\n"
"    asyncio.CancelledError: The parent task was cancelled from outside, and there was no other error.\n"
"    SystemExit, KeyboardInterrupt: As they are, from a task or the body. Other errors are then reported through\n"
"        loop.call_exception_handler().\n"
"    RuntimeError: The group has not been entered, or is being left already.");

static PyObject *
TaskGroup_aexit(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 3) {
        PyErr_Format(PyExc_TypeError, "__aexit__() takes 3 arguments (%zd given)", nargs);
        return NULL;
    }
    if (args[0] == Py_None) {
        return Await_new(GROUP(op), AWAIT_EXIT, NULL);
    }
    PyObject *exc = args[1] == Py_None ? PyObject_CallNoArgs(args[0]) : Py_NewRef(args[1]);
    if (exc != NULL && !PyExceptionInstance_Check(exc)) {
        PyErr_Format(PyExc_TypeError, "__aexit__() expects an exception, got %R", exc);
        Py_CLEAR(exc);
    }
    PyObject *self = exc == NULL ? NULL : Await_new(GROUP(op), AWAIT_EXIT, exc);
    Py_XDECREF(exc);
    return self;
}

PyDoc_STRVAR(TaskGroup_create_task_doc,
"create_task($self, /, coro, *, name=None, context=None, eager_start=None, **kwargs)\n--\n\n"
"Start a foreground task in the group: the group waits for it.\n\n"
"At the group's concurrency limit the task is queued, first in, first out, and starts when a slot is free. The call\n"
"returns at once in any case.\n\n"
"Args:\n"
"    coro (Coroutine | Callable): A coroutine, or a callable without required arguments that returns one (a coroutine\n"
"        function, a functools.partial, a lambda). A callable is called inside the task, when the task starts.\n"
"    name (str | None): The name of the task.\n"
"    context (contextvars.Context | None): What the task runs in; by default a copy of the current context, made\n"
"        now, even if the task starts later.\n"
"    eager_start (bool | None): Run the task within this call until it first waits, if a slot is free. None leaves\n"
"        that to the loop's task factory. CPython 3.12 or newer.\n"
"    **kwargs: Passed on to loop.create_task().\n\n"
"Returns:\n"
"    asyncio.Task: The task. Cancelling one that is queued takes it out of the queue: none of its code runs.\n\n"
"Raises:\n"
"    RuntimeError: The group has not been entered, is shutting down (its tasks are being cancelled), or is finished.\n"
"    TypeError: Neither a coroutine nor a callable, or a keyword that the loop does not know.\n\n"
"A coroutine that is refused is closed (CPython issue 115957), so that no warning says that it was never awaited.\n\n"
"Example:\n"
"    >>> async with TaskGroup(concurrency_limit=10) as tg:\n"
"    ...     tasks = [tg.create_task(fetch(url), name=url) for url in urls]\n"
"    >>> pages = [task.result() for task in tasks]");

static PyObject *
TaskGroup_create_task(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return create(op, args, nargs, kwnames, 0);
}

PyDoc_STRVAR(TaskGroup_create_background_task_doc,
"create_background_task($self, /, coro, *, name=None, context=None, eager_start=None, **kwargs)\n--\n\n"
"Start a background task in the group: one that lives as long as the work it serves.\n\n"
"When the body and the last foreground task (queued ones included) have ended, it is cancelled, once, and awaited.\n"
"It ends last, as Trio's and curio's designs of daemon tasks have it; to end it earlier, call the task's cancel().\n"
"An error in it aborts the group, as in any other task. It takes no slot of the concurrency limit.\n\n"
"Args:\n"
"    coro (Coroutine | Callable): As for create_task().\n"
"    name (str | None): As for create_task().\n"
"    context (contextvars.Context | None): As for create_task().\n"
"    eager_start (bool | None): As for create_task(), but that no slot is needed.\n"
"    **kwargs: Passed on to loop.create_task().\n\n"
"Returns:\n"
"    asyncio.Task: The task.\n\n"
"Raises:\n"
"    RuntimeError: The group has not been entered, is shutting down (its tasks, or its background tasks, are being\n"
"        cancelled), or is finished.\n"
"    TypeError: As for create_task().\n\n"
"Example:\n"
"    >>> async with TaskGroup() as tg:\n"
"    ...     heart = tg.create_background_task(heartbeat)\n"
"    ...     tg.create_task(serve(connection))\n"
"    >>> heart.cancelled()\n"
"    True");

static PyObject *
TaskGroup_create_background_task(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return create(op, args, nargs, kwnames, 1);
}

PyDoc_STRVAR(TaskGroup_cancel_doc,
"cancel($self, /)\n--\n\n"
"Leave the group early: cancel its tasks and its body, and swallow that cancellation at the exit.\n\n"
"The task that the group is in goes on after the group's block. Errors of tasks are raised there as ever. Before the\n"
"group is entered, this takes effect on entry; after the exit, and a second time, it does nothing. It is\n"
"asyncio.TaskGroup.cancel() of CPython 3.15 (issue 108951), on every CPython from 3.11.\n\n"
"Example:\n"
"    >>> async with TaskGroup() as tg:\n"
"    ...     for url in urls:\n"
"    ...         tg.create_task(first_answer(url, then=tg.cancel))");

static int
cancel_lock_held(TaskGroup *self)
{
    ASSERT_LOCKED(self);
    if (!self->entered) {
        self->cancel_on_enter = 1;
        return 0;
    }
    if (self->finished || (self->exiting && self->tasks.used == 0) || self->aborting) {
        return 0;
    }
    PyObject *parent = Py_XNewRef(self->parent);
    int rc = call_abort(self);
    if (parent != NULL && !self->parent_cancel_requested) {
        PyObject *first = PyErr_GetRaisedException();
        self->parent_cancel_requested = 1;
        if (call_method(parent, self->state->str_cancel) < 0) {
            rc = -1;
        }
        restore_first_error(first, parent);
    }
    Py_XDECREF(parent);
    return rc;
}

static PyObject *
TaskGroup_cancel(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    int rc;
    BEGIN_SECTION(op);
    rc = cancel_lock_held(GROUP(op));
    check_lock_held(GROUP(op));
    END_SECTION();
    if (rc < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
TaskGroup__abort(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    int rc;
    BEGIN_SECTION(op);
    rc = abort_lock_held(GROUP(op));
    check_lock_held(GROUP(op));
    END_SECTION();
    if (rc < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Called by somebody, not by the loop as the Callback is: what the caller does next comes before any task's step. */
static PyObject *
TaskGroup__on_task_done(PyObject *op, PyObject *task)
{
    int rc;
    BEGIN_SECTION(op);
    struct Callback *outer = GROUP(op)->running;
    GROUP(op)->running = NULL;
    rc = task_ended_lock_held(GROUP(op), task, NULL);
    GROUP(op)->running = outer;
    check_lock_held(GROUP(op));
    END_SECTION();
    if (rc < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(TaskGroup_statistics_doc,
"statistics($self, /)\n--\n\n"
"Say what the group is doing now.\n\n"
"Returns:\n"
"    TaskGroupStatistics: A named tuple of running (foreground tasks that hold a slot; all of them without a\n"
"    limit), queued (foreground tasks that wait for a slot), background (background tasks) and concurrency_limit\n"
"    (an int, or None). The names are those that Trio and anyio use.\n\n"
"Example:\n"
"    >>> async with TaskGroup(concurrency_limit=2) as tg:\n"
"    ...     for url in urls:\n"
"    ...         tg.create_task(fetch(url))\n"
"    ...     print(tg.statistics())\n"
"    quattro.TaskGroupStatistics(running=2, queued=1, background=0, concurrency_limit=2)");

static Py_ssize_t
count_running(TaskGroup *self)
{
    return self->limit > 0 ? self->slots : (Py_ssize_t)(self->tasks.used - self->background);
}

static PyObject *
TaskGroup_get_concurrency_limit(PyObject *op, void *Py_UNUSED(closure))
{
    Py_ssize_t limit;
    BEGIN_SECTION(op);
    limit = GROUP(op)->limit;
    END_SECTION();
    return limit == 0 ? Py_NewRef(Py_None) : PyLong_FromSsize_t(limit);
}

static PyObject *
TaskGroup_statistics(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TaskGroup *self = GROUP(op);
    PyObject *result = PyStructSequence_New(self->state->Statistics_Type);
    if (result == NULL) {
        return NULL;
    }
    Py_ssize_t running, queued, background;
    BEGIN_SECTION(op);
    running = count_running(self);
    queued = self->queued;
    background = (Py_ssize_t)self->background;
    END_SECTION();
    PyObject *values[] = {
        PyLong_FromSsize_t(running), PyLong_FromSsize_t(queued), PyLong_FromSsize_t(background),
        TaskGroup_get_concurrency_limit(op, NULL),
    };
    int missing = 0;
    for (int i = 0; i < 4; i++) {
        missing |= values[i] == NULL;
        PyStructSequence_SetItem(result, i, values[i]);
    }
    if (missing) {
        Py_CLEAR(result);
    }
    return result;
}

static PyObject *
TaskGroup_repr(PyObject *op)
{
    TaskGroup *self = GROUP(op);
    size_t tasks, background;
    Py_ssize_t queued, errors;
    const char *word;
    BEGIN_SECTION(op);
    tasks = self->tasks.used;
    background = self->background;
    queued = self->queued;
    errors = self->errors == NULL ? 0 : PyList_GET_SIZE(self->errors);
    word = self->aborting ? " cancelling" : self->entered ? " entered" : "";
    END_SECTION();
    char info[4][40] = {"", "", "", ""};
    if (tasks) {
        PyOS_snprintf(info[0], sizeof info[0], " tasks=%zu", tasks);
    }
    if (background) {
        PyOS_snprintf(info[1], sizeof info[1], " background=%zu", background);
    }
    if (queued) {
        PyOS_snprintf(info[2], sizeof info[2], " queued=%zd", queued);
    }
    if (errors) {
        PyOS_snprintf(info[3], sizeof info[3], " errors=%zd", errors);
    }
    return PyUnicode_FromFormat("<TaskGroup%s%s%s%s%s>", info[0], info[1], info[2], info[3], word);
}

static PyObject *
TaskGroup_reduce(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    PyErr_Format(PyExc_TypeError, "cannot pickle or copy a '%.100s' object", Py_TYPE(op)->tp_name);
    return NULL;
}

/* Frozen, so that whoever adds a task to it in the hope of asyncio's set (CPython issue 111838) hears that it can't. */
static PyObject *
TaskGroup_get_tasks(PyObject *op, void *Py_UNUSED(closure))
{
    TaskGroup *self = GROUP(op);
    // __hash__ of a task may be anybody's: first the references, then the set.
    PyObject *list = PyList_New(0);
    int rc = list == NULL ? -1 : 0;
    BEGIN_SECTION(op);
    for (size_t i = self->tasks.begin; rc == 0 && i < self->tasks.end; i++) {
        if (self->tasks.entries[i] != 0) {
            rc = PyList_Append(list, ENTRY_TASK(self->tasks.entries[i]));
        }
    }
    END_SECTION();
    PyObject *result = rc < 0 ? NULL : PyFrozenSet_New(list);
    Py_XDECREF(list);
    return result;
}

static PyObject *
TaskGroup_get_errors(PyObject *op, void *Py_UNUSED(closure))
{
    TaskGroup *self = GROUP(op);
    PyObject *result;
    BEGIN_SECTION(op);
    if (self->errors == NULL && !self->finished) {
        self->errors = PyList_New(0);
        result = Py_XNewRef(self->errors);
    }
    else {
        result = Py_NewRef(self->errors == NULL ? Py_None : self->errors);
    }
    END_SECTION();
    return result;
}

/* An object, None where it is not set. */
static PyObject *
TaskGroup_get_object(PyObject *op, void *offset)
{
    PyObject *result;
    BEGIN_SECTION(op);
    PyObject *value = *(PyObject **)((char *)op + (size_t)offset);
    result = Py_NewRef(value == NULL ? Py_None : value);
    END_SECTION();
    return result;
}

#define FLAG_GETTER(name) \
    static PyObject * \
    TaskGroup_get_##name(PyObject *op, void *Py_UNUSED(closure)) \
    { \
        int value; \
        BEGIN_SECTION(op); \
        value = GROUP(op)->name; \
        END_SECTION(); \
        return PyBool_FromLong(value); \
    }

FLAG_GETTER(entered)
FLAG_GETTER(exiting)
FLAG_GETTER(aborting)
FLAG_GETTER(parent_cancel_requested)
FLAG_GETTER(cancel_on_enter)

/* Subclasses set it, in __init__() mostly, so that an error of a task neither aborts the group nor cancels the body. */
static int
TaskGroup_set_parent_cancel_requested(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    int truth = value == NULL ? 0 : PyObject_IsTrue(value);
    if (truth < 0) {
        return -1;
    }
    BEGIN_SECTION(op);
    GROUP(op)->parent_cancel_requested = truth != 0;
    END_SECTION();
    return 0;
}

static int
TaskGroup_traverse(PyObject *op, visitproc visit, void *arg)
{
    TaskGroup *self = GROUP(op);
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->loop);
    Py_VISIT(self->parent);
    Py_VISIT(self->errors);
    Py_VISIT(self->base_error);
    Py_VISIT(self->waiter);
    Py_VISIT(self->done);
    Py_VISIT(self->kwargs);
    Py_VISIT(self->eager_kwargs);
    Py_VISIT(self->uvloop);
    Py_VISIT(self->done_future);
    Py_VISIT(self->start);
    Py_VISIT(self->newest);
    for (size_t i = self->tasks.begin; i < self->tasks.end; i++) {
        Py_VISIT(ENTRY_TASK(self->tasks.entries[i]));
    }
    Link *heads[] = {&self->queue, &self->granted, &self->cancelled};
    for (int i = 0; i < 3; i++) {
        // A group whose tp_new failed half-way has no lists yet.
        for (Link *link = heads[i]->next; link != NULL && link != heads[i]; link = link->next) {
            Py_VISIT(TURN_OF(link));
        }
    }
    return 0;
}

static int
TaskGroup_clear(PyObject *op)
{
    TaskGroup *self = GROUP(op);
    self->finished = 1;         // whoever still comes is refused
    Py_CLEAR(self->parent);
    Py_CLEAR(self->errors);
    Py_CLEAR(self->base_error);
    Py_CLEAR(self->waiter);
    if (!self->has_tasks) {
        return 0;               // not for a task: there is nothing else
    }
    Py_CLEAR(self->done);
    Py_CLEAR(self->start);
    drop_tools(self);
    Link *heads[] = {&self->queue, &self->granted, &self->cancelled};
    for (int i = 0; i < 3; i++) {
        while (!Link_is_empty(heads[i])) {
            Turn *turn = TURN_OF(heads[i]->next);
            Py_INCREF(turn);
            turn_leave_lock_held(turn, TURN_ENDED);
            Py_DECREF(turn);
        }
    }
    self->background = 0;
    TaskSet_clear(&self->tasks);
    return 0;
}

/* A group that nobody has left, because its owner failed between __aenter__() and the block: the errors that it has taken
   from its tasks would be lost with it (anyio issue 902).  Not by way of the module state, which may be gone. */
static void
TaskGroup_finalize(PyObject *op)
{
    TaskGroup *self = GROUP(op);
    if (self->exiting || self->finished || self->errors == NULL || self->loop == NULL) {
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(self->errors); i++) {
        PyObject *error = PyList_GetItemRef(self->errors, i);
        PyObject *context = error == NULL ? NULL : Py_BuildValue("{s:s,s:O}", "message", "unhandled error in a TaskGroup that was never left",
                                          "exception", error);
        PyObject *result = context == NULL ? NULL
                           : PyObject_CallMethod(self->loop, "call_exception_handler", "O", context);
        if (result == NULL) {
            report_unraisable(op);
        }
        Py_XDECREF(result);
        Py_XDECREF(context);
        Py_XDECREF(error);
    }
    PyErr_SetRaisedException(exc);
}

static void
TaskGroup_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    if (GROUP(op)->errors != NULL && PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    PyObject_GC_UnTrack(op);
    TaskGroup_clear(op);
    Py_CLEAR(GROUP(op)->loop);
    type->tp_free(op);
    Py_DECREF(type);
}

PyDoc_STRVAR(TaskGroup_doc,
"TaskGroup(*, concurrency_limit=None)\n--\n\n"
"asyncio.TaskGroup with background tasks and a concurrency limit.\n\n"
"An asynchronous context manager for a group of tasks. Its exit waits for all of them; if one fails, the others are\n"
"cancelled, and the errors are raised as an ExceptionGroup. The rules are those of asyncio.TaskGroup of CPython 3.15,\n"
"on every CPython from 3.11. A group is used once, by one event loop in one thread.\n\n"
"Args:\n"
"    concurrency_limit (int | None): How many foreground tasks may run at once, at least 1; the rest queue, first\n"
"        in, first out. None for no limit.\n\n"
"Raises:\n"
"    ValueError: The limit is less than 1.\n"
"    TypeError: The limit is not an integer, or is not passed by name.\n\n"
"Example:\n"
"    >>> async with TaskGroup(concurrency_limit=10) as tg:\n"
"    ...     tg.create_background_task(show_progress)\n"
"    ...     for item in items:\n"
"    ...         tg.create_task(process(item))");

static PyMethodDef TaskGroup_methods[] = {
    {"__aenter__", TaskGroup_aenter, METH_NOARGS, TaskGroup_aenter_doc},
    {"__aexit__", (PyCFunction)(void (*)(void))TaskGroup_aexit, METH_FASTCALL, TaskGroup_aexit_doc},
    {"create_task", (PyCFunction)(void (*)(void))TaskGroup_create_task, METH_FASTCALL | METH_KEYWORDS,
     TaskGroup_create_task_doc},
    {"create_background_task", (PyCFunction)(void (*)(void))TaskGroup_create_background_task,
     METH_FASTCALL | METH_KEYWORDS, TaskGroup_create_background_task_doc},
    {"cancel", TaskGroup_cancel, METH_NOARGS, TaskGroup_cancel_doc},
    {"statistics", TaskGroup_statistics, METH_NOARGS, TaskGroup_statistics_doc},
    {"_abort", TaskGroup__abort, METH_NOARGS, PyDoc_STR("Cancel every task of the group, once.")},
    {"_on_task_done", TaskGroup__on_task_done, METH_O, PyDoc_STR("The done callback of the group's tasks.")},
    {"__reduce__", TaskGroup_reduce, METH_NOARGS, NULL},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef TaskGroup_getset[] = {
    {"concurrency_limit", TaskGroup_get_concurrency_limit, NULL,
     PyDoc_STR("How many foreground tasks may run at once, an int; None without a limit."), NULL},
    {"_tasks", TaskGroup_get_tasks, NULL, NULL, NULL},
    {"_errors", TaskGroup_get_errors, NULL, NULL, NULL},
    {"_loop", TaskGroup_get_object, NULL, NULL, (void *)offsetof(TaskGroup, loop)},
    {"_parent_task", TaskGroup_get_object, NULL, NULL, (void *)offsetof(TaskGroup, parent)},
    {"_base_error", TaskGroup_get_object, NULL, NULL, (void *)offsetof(TaskGroup, base_error)},
    {"_on_completed_fut", TaskGroup_get_object, NULL, NULL, (void *)offsetof(TaskGroup, waiter)},
    {"_entered", TaskGroup_get_entered, NULL, NULL, NULL},
    {"_exiting", TaskGroup_get_exiting, NULL, NULL, NULL},
    {"_aborting", TaskGroup_get_aborting, NULL, NULL, NULL},
    {"_parent_cancel_requested", TaskGroup_get_parent_cancel_requested, TaskGroup_set_parent_cancel_requested, NULL,
     NULL},
    {"_cancel_on_enter", TaskGroup_get_cancel_on_enter, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot TaskGroup_slots[] = {
    {Py_tp_doc, (void *)TaskGroup_doc},
    {Py_tp_new, TaskGroup_new},
    {Py_tp_init, TaskGroup_init},
    {Py_tp_dealloc, TaskGroup_dealloc},
    {Py_tp_traverse, TaskGroup_traverse},
    {Py_tp_clear, TaskGroup_clear},
    {Py_tp_finalize, TaskGroup_finalize},
    {Py_tp_repr, TaskGroup_repr},
    {Py_tp_methods, TaskGroup_methods},
    {Py_tp_getset, TaskGroup_getset},
    {0, NULL},
};

static PyType_Spec TaskGroup_spec = {
    .name = "quattro._quattro.TaskGroup",
    .basicsize = sizeof(TaskGroup),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = TaskGroup_slots,
};


/* --- async def, for those who look -------------------------------------------------------------------------------- */

/* unittest, unittest.mock and others ask inspect.iscoroutinefunction() whether to await what a method returns, and that
   knows functions only.  So the package's class has __aenter__() and __aexit__() as `async def` functions, which do what
   ours do; and whoever calls them as they are meant to be called gets there without the frame. */
static int
is_group(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    while (type != NULL && type->tp_dealloc != TaskGroup_dealloc) {
        type = type->tp_base;
    }
    return type != NULL;
}

/* Any other call, by the function's own code. */
static PyObject *
call_as_written(PyObject *function, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    PyObject *copy = PyFunction_New(PyFunction_GET_CODE(function), PyFunction_GET_GLOBALS(function));
    PyObject *result = copy == NULL ? NULL : PyObject_Vectorcall(copy, args, nargsf, kwnames);
    Py_XDECREF(copy);
    return result;
}

static PyObject *
call_aenter(PyObject *function, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    if (PyVectorcall_NARGS(nargsf) != 1 || kwnames != NULL || !is_group(args[0])) {
        return call_as_written(function, args, nargsf, kwnames);
    }
    return TaskGroup_aenter(args[0], NULL);
}

static PyObject *
call_aexit(PyObject *function, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    if (PyVectorcall_NARGS(nargsf) != 4 || kwnames != NULL || !is_group(args[0])) {
        return call_as_written(function, args, nargsf, kwnames);
    }
    return TaskGroup_aexit(args[0], args + 1, 3);
}

/* _shorten(aenter, aexit): the functions of the package's class are called without a frame from now on. */
static PyObject *
shorten(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2 || !PyFunction_Check(args[0]) || !PyFunction_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "_shorten() takes two functions");
        return NULL;
    }
    PyFunction_SetVectorcall((PyFunctionObject *)args[0], call_aenter);
    PyFunction_SetVectorcall((PyFunctionObject *)args[1], call_aexit);
    Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
    {"_shorten", (PyCFunction)(void (*)(void))shorten, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};


/* --- TaskGroupStatistics ------------------------------------------------------------------------------------------ */

static PyStructSequence_Field Statistics_fields[] = {
    {"running", "foreground tasks that hold a slot; all of them without a limit"},
    {"queued", "foreground tasks that wait for a slot"},
    {"background", "background tasks"},
    {"concurrency_limit", "how many foreground tasks may run at once, None without a limit"},
    {NULL, NULL},
};

static PyStructSequence_Desc Statistics_desc = {
    .name = "quattro.TaskGroupStatistics",
    .doc = "What TaskGroup.statistics() returns: how many tasks the group has, of which kind.",
    .fields = Statistics_fields,
    .n_in_sequence = 4,
};


/* --- The module --------------------------------------------------------------------------------------------------- */

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

static struct PyModuleDef quattro_module = {
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
