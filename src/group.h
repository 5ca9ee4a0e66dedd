/* The objects of a group, and what always holds of them. */

#ifndef QUATTRO_GROUP_H
#define QUATTRO_GROUP_H

#include <stddef.h>             // offsetof()
#include "compat.h"
#include "link.h"
#include "pyutil.h"
#include "state.h"
#include "taskset.h"

/* What a group holds from its entry to its exit. */
#define GROUP_STATE(X) \
    X(parent)       /* the task that entered the group */ \
    X(errors)       /* a list, NULL while there are none */ \
    X(base_error)   /* the first SystemExit or KeyboardInterrupt */ \
    X(waiter)       /* the Turn that the exit waits on */

/* What the making of tasks leaves. */
#define GROUP_TOOLS(X) \
    X(kwargs)       /* {"loop": loop}, for asyncio.Task() */ \
    X(eager_kwargs) /* the same with "eager_start": True */ \
    X(uvloop_create_task) /* the loop's own, if it is uvloop's */ \
    X(uvloop_get_factory) /* and its get_task_factory() */ \
    X(done_future)  /* for waking; NULL until a turn is granted a slot */ \
    X(ended)        /* a list of tasks that ended well within create_task(), for the next call of `done` */ \
    X(ended_handle) /* of that call */ \
    X(newest)       /* the last coroutine that got a slot without queueing, until seen started */

/* The callbacks. */
#define GROUP_CALLBACKS(X) \
    X(done)         /* the Callback of the tasks, NULL until the first one */ \
    X(start)        /* the Callback that starts the granted turns, NULL until somebody had to queue */

typedef struct {
    PyObject_HEAD
    quattro_state *state;       // borrowed: our type keeps the module
    PyObject *dict;             // __dict__, NULL until somebody needs it
    PyObject *loop;
    GROUP_STATE(FIELD)
    GROUP_TOOLS(FIELD)
    GROUP_CALLBACKS(FIELD)
    struct Callback *running;   // the Callback that the loop is calling, borrowed; NULL in everything else's code
    Py_ssize_t told;            // how many of the errors, the last ones, the loop's handler has been told
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
    Link waiters;               // who waits for a slot, by order of arrival
    char entered;
    char exiting;
    char aborting;
    char parent_cancel_requested;
    char cancel_on_enter;
    char cancel_on_error;
    unsigned stopping : 1;
    unsigned finished : 1;
    unsigned has_tasks : 1;     // or has had some
    unsigned may_ride : 1;      // no newcomer takes its first step after the last handle of `start`
    unsigned woken : 1;         // somebody who waited for a slot, since the stop of the background tasks was last put off
    unsigned stop_scheduled : 1; // and it is put off, until those who were woken have moved
    unsigned starting_now : 1;  // start_granted() is at work
    unsigned loop_is_asyncio : 1; // its create_task is asyncio's own
    unsigned loop_is_uvloop : 1; // or uvloop's
    unsigned reached : 1;       // create() has been called since a call by name began
} TaskGroup;

typedef enum {
    TURN_CALL, TURN_QUEUED, TURN_GRANTED, TURN_RUNNING, TURN_CANCELLED, TURN_ENDED,
} TurnState;

/* How the objects that serve a group begin; they keep it until they go, for their methods count on it. */
typedef struct {
    PyObject_HEAD
    TaskGroup *group;
} Part;

#define TURN_OBJECTS(X) \
    X(coro)             /* the caller's coroutine or callable, until it is handed over */ \
    X(waker)            /* what to call when it may go on, or, with `wakeup`, the Task whose method that is */ \
    X(waker_context) \
    X(message)          /* cancel()'s */ \
    X(context)          /* of a quiet Task that runs: in which its end is seen */ \
    X(hook)             /* somebody's _on_task_done, NULL for ours */

typedef struct Turn {
    PyObject_HEAD
    TaskGroup *group;
    Link link;                  // in the group's queue or list of granted turns, which own a reference
    TURN_OBJECTS(FIELD)
    PyMethodDef *wakeup;
    const void *task;           // a key into group->tasks, followed only while it is there
    TurnState state;
    unsigned blocking : 1;      // _asyncio_future_blocking
    unsigned slot : 1;          // holds one
    unsigned quiet : 1;         // the Task has no done callback of ours
    unsigned waiter : 1;        // has no place in the queue: the exit or wait_for_slot() waits on it
} Turn;

/* Up to AWAIT_SLOT, what is thrown comes out at once, as from a coroutine that does not catch it. */
typedef enum {
    AWAIT_ENTER, AWAIT_EXIT, AWAIT_SLOT, AWAIT_TASKS, AWAIT_LOOP, AWAIT_DONE,
} AwaitStage;

/* One a group and kind, so that a task costs no allocation of ours.  It is no builtin method, because what it calls may
   step Tasks, and debug mode's report of a slow callback asks a callback's __self__ for the Task to name. */
typedef struct Callback {
    PyObject_HEAD
    TaskGroup *group;
    vectorcallfunc vectorcall;
    int (*call)(TaskGroup *self, PyObject *task);
    const char *qualname, *name;
    PyCFunction method;         // the method of the group that does the same, NULL if there is none
    PyObject *slowest;          // in debug mode: the Task whose step, of those that the last call made, took longest
    double took;                // by loop.time()
} Callback;

/* A call of create_task() or create_background_task(), its keywords apart from `coro` as they came. */
typedef struct {
    PyObject *coro;
    PyObject *const *values;
    PyObject *kwnames;          // NULL or a tuple
} Call;

static inline void *
Part_new(PyObject *type, TaskGroup *group)
{
    Part *self = (Part *)((PyTypeObject *)type)->tp_alloc((PyTypeObject *)type, 0);
    if (self != NULL) {
        self->group = (TaskGroup *)Py_NewRef(group);
    }
    return self;
}

static inline void
Part_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    type->tp_clear(op);
    Py_CLEAR(((Part *)op)->group);
    type->tp_free(op);
    Py_DECREF(type);
}

#define GROUP(op) ((TaskGroup *)(op))
#define TURN(op) ((Turn *)(op))
#define TURN_OF(ptr) ((Turn *)((char *)(ptr) - offsetof(Turn, link)))

#ifdef QUATTRO_DEBUG
/* Of one of the two lists: are its links, its owner and its turns' states right?  How many there are. */
static inline Py_ssize_t
check_list(TaskGroup *self, const Link *head)
{
    Py_ssize_t count = 0;
    for (const Link *link = head->next; link != head; link = link->next, count++) {
        const Turn *turn = TURN_OF(link);
        assert(link->next->prev == link && link->prev->next == link);
        assert(Py_REFCNT(turn) > 0 && turn->group == self && !turn->waiter);
        assert(turn->task != NULL);
        assert(turn->state == (head == &self->queue ? TURN_QUEUED : head == &self->granted ? TURN_GRANTED : TURN_CANCELLED));
        assert(turn->slot == (head == &self->granted));
    }
    return count;
}

static inline void
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

static inline void
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
    assert(self->waiter == NULL || (self->exiting && TURN(self->waiter)->group == self));
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

/* A transition: one statement with the group's section, and a check of what it has left. */
#define TRANSITION(group, statement) LOCKED(group, statement; check_lock_held((TaskGroup *)(group)))

/* The end of a method that makes one, and returns None. */
#define RETURN_NONE_LOCKED(group, call) \
    do { \
        int rc_; \
        TRANSITION(group, rc_ = (call)); \
        return rc_ < 0 ? NULL : Py_NewRef(Py_None); \
    } while (0)

/* asyncio's RuntimeError, "TaskGroup ... has not been entered" and so on, with a note on what to do; -1. */
static inline int
refuse(TaskGroup *self, const char *why)
{
    return raise_made(PyObject_CallFunction(self->state->refusal, "Os", self, why));
}

PyObject *Await_new(TaskGroup *group, AwaitStage stage, PyObject *exc);

PyObject *Callback_new(TaskGroup *group, int (*call)(TaskGroup *self, PyObject *task), const char *qualname,
                       PyCFunction method);

extern PyType_Spec TaskGroup_spec, Turn_spec, Await_spec, Callback_spec;

/* _shorten(aenter, aexit, wait_for_slot): the functions of the package's class are called without a frame from now on. */
PyObject *TaskGroup_shorten(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs);

#endif
