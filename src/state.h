/* Module state: one struct, and lists of its fields that init, traverse and clear share, so that none is forgotten. */

#ifndef QUATTRO_STATE_H
#define QUATTRO_STATE_H

#include <Python.h>

/* The extension's own types. */
#define STATE_TYPES(X) \
    X(TaskGroup_Type)  /* quattro.TaskGroup's C base */ \
    X(Await_Type)      /* what __aenter__() and __aexit__() return */ \
    X(Turn_Type)       /* a place in the queue */ \
    X(Callback_Type)   /* what the loop calls for a group */ \
    X(Statistics_Type) /* TaskGroupStatistics */

/* asyncio's parts and our own Python function. */
#define STATE_OBJECTS(X) \
    X(events)              /* the module asyncio.events */ \
    X(tasks)               /* asyncio.tasks */ \
    X(CTask)               /* _asyncio.Task */ \
    X(CFuture)             /* _asyncio.Future */ \
    X(task_add_done_callback) /* what it has */ \
    X(task_remove_done_callback) \
    X(task_done) \
    X(task__callbacks) \
    X(task__exception) \
    X(current_task)        /* asyncio's own */ \
    X(CancelledError) \
    X(InvalidStateError) \
    X(Coroutine)           /* collections.abc.Coroutine */ \
    X(partial)             /* functools.partial */ \
    X(deque)               /* collections.deque */ \
    X(add_awaited_by)      /* asyncio.futures.future_add_to_awaited_by, NULL before 3.14 */ \
    X(discard_awaited_by)  /* its counterpart */ \
    X(eager_task_factory)  /* asyncio.eager_task_factory, NULL before 3.12 */ \
    X(stock_create_task)   /* asyncio's own BaseEventLoop.create_task, NULL when it was patched before our import */ \
    X(stock_code)          /* and its code */ \
    X(run_turn)            /* quattro._turn.run_turn */ \
    X(rearm)               /* and rearm */ \
    X(uvloop)              /* uvloop's own functions, for the next group, once a group has seen them */ \
    X(coroutine_name)      /* the descriptors of a coroutine's __name__ */ \
    X(coroutine_qualname)  /* and __qualname__ */ \
    X(context_kwname)      /* ("context",) */ \
    X(loop_kwname)         /* ("loop",) */

/* Interned names of attributes and keywords. */
#define STATE_NAMES(X) \
    X(__call__) X(__code__) X(__name__) X(__qualname__) X(_abort) X(_callbacks) X(_debug) X(_exception) \
    X(_log_destroy_pending) X(_must_cancel) X(_on_task_done) X(_ready) X(_task_factory) X(add_done_callback) \
    X(call_exception_handler) X(call_soon) X(cancel) X(cancel_on_error) X(cancelled) X(cancelling) X(close) \
    X(concurrency_limit) X(context) X(coro) X(cr_await) X(cr_frame) X(cr_running) X(create_task) X(current_task) \
    X(done) X(eager_start) X(exception) X(func) X(get_running_loop) X(get_task_factory) X(is_closed) X(loop) \
    X(message) X(msg) X(name) X(remove_done_callback) X(set_result) X(Task) X(task) X(time) X(uncancel)

typedef struct {
#define X(field) PyTypeObject *field;
    STATE_TYPES(X)
#undef X
#define X(field) PyObject *field;
    STATE_OBJECTS(X)
#undef X
#define X(name) PyObject *str_##name;
    STATE_NAMES(X)
#undef X
    /* Does Task.uncancel() take a pending cancel back when its count reaches zero? (CPython issue 117407 and its
       backports: asked of the Task itself, because micro releases differ.) */
    int uncancel_resets;
} quattro_state;

extern struct PyModuleDef quattro_module;

static inline quattro_state *
get_state(PyObject *module)
{
    return (quattro_state *)PyModule_GetState(module);
}

#endif
