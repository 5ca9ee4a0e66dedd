/* Module state: one struct, and lists of its fields that init, traverse and clear share, so that none is forgotten. */

#ifndef QUATTRO_STATE_H
#define QUATTRO_STATE_H

#include <Python.h>

/* For a list of fields: their declaration; and where `self` has them, what tp_traverse and tp_clear do with them. */
#define FIELD(name) PyObject *name;
#define VISIT(name) Py_VISIT(self->name);
#define CLEAR(name) Py_CLEAR(self->name);

/* The extension's own types. */
#define STATE_TYPES(X) \
    X(TaskGroup_Type)  /* quattro.TaskGroup's C base */ \
    X(Await_Type)      /* what __aenter__() and __aexit__() return */ \
    X(Turn_Type)       /* a place in the queue */ \
    X(Callback_Type)   /* what the loop calls for a group */

/* What quattro/_turn.py has for us, asyncio's parts most of all: it says what each is. */
#define STATE_PARTS(X) \
    X(CFuture) X(CTask) X(CancelledError) X(Coroutine) X(InvalidStateError) X(add_awaited_by) X(cancel_unless_ending) \
    X(context_kwname) X(coroutine_name) X(coroutine_qualname) X(create_by_name) X(create_eagerly) X(current_task) X(deque) \
    X(discard_awaited_by) X(done_future) X(eager_task_factory) X(events) X(forget_task) X(given_exception) X(low_limit) \
    X(need_done_future) X(not_a_coroutine) X(note_callable) X(partial) X(rearm) X(refusal) X(report_displaced) \
    X(report_late) X(report_lost) X(run_turn) X(stock_code) X(stock_create_task) X(task__callbacks) \
    X(task__exception) X(task_add_done_callback) X(task_done) X(task_remove_done_callback) X(tasks) X(timer_is_due)

/* Interned names of attributes and keywords. */
#define STATE_NAMES(X) \
    X(__name__) X(__qualname__) X(_abort) X(_debug) X(_must_cancel) X(_on_task_done) X(_ready) X(_scheduled) \
    X(_task_factory) X(add_done_callback) X(call_soon) X(cancel) X(cancelled) X(cancelling) X(close) X(context) \
    X(coro) X(cr_await) X(cr_frame) X(cr_running) X(create_task) X(current_task) X(done) X(eager_start) \
    X(exception) X(func) X(get_running_loop) X(get_task_factory) X(loop) X(msg) X(name) X(Task) X(time) \
    X(uncancel)

typedef struct {
#define NAME(name) PyObject *str_##name;
    STATE_TYPES(FIELD)
    STATE_PARTS(FIELD)
    STATE_NAMES(NAME)
#undef NAME
} quattro_state;

extern struct PyModuleDef quattro_module;

static inline quattro_state *
get_state(PyObject *module)
{
    return (quattro_state *)PyModule_GetState(module);
}

#endif
