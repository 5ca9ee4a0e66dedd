/* Making a task: refuse, make, adopt, queue. */

#include "create.h"
#include "coro.h"
#include "ending.h"
#include "loops.h"
#include "slots.h"
#include "task.h"
#include "turn.h"

/* Have a Callback of the group made with its first task, or its first one that queues; 0, or -1. */
static int
need_callback(TaskGroup *self, PyObject **callback, int (*call)(TaskGroup *, PyObject *), const char *qualname,
              PyCFunction method)
{
    if (*callback == NULL) {
        PyObject *made = Callback_new(self, call, qualname, method);
        if (made == NULL) {
            return -1;
        }
        self->has_tasks = 1;
        Py_XSETREF(*callback, made);
    }
    return 0;
}

/* May there be an _on_task_done of somebody's?  The lookup, without an object made for the answer; -1 on error. */
static int
may_have_hook(TaskGroup *self)
{
    PyTypeObject *type = Py_TYPE(self);
    // A class that the collector has cleared before its group has no MRO.
    if (FREE_THREADED || self->dict != NULL || type->tp_mro == NULL || type->tp_getattro != PyObject_GenericGetAttr) {
        return 1;
    }
    PyObject *mro = Py_NewRef(type->tp_mro);
    PyObject *own = self->state->TaskGroup_Type;
    int found = 0;
    for (Py_ssize_t i = 0; found == 0 && i < PyTuple_GET_SIZE(mro) && PyTuple_GET_ITEM(mro, i) != own; i++) {
        PyTypeObject *base = (PyTypeObject *)PyTuple_GET_ITEM(mro, i);
        // A static type of CPython's own, from 3.12 on, has its dict elsewhere.
        found = base->tp_dict == NULL ? 1 : PyDict_Contains(base->tp_dict, self->state->str__on_task_done);
    }
    Py_DECREF(mro);
    return found;
}

/* Who is called at the end of the task that is about to be made: *hook is somebody's _on_task_done, which is looked up
   for each task, as asyncio does, or NULL for ours. */
static int
find_hook(TaskGroup *self, PyObject **hook)
{
    int may_have = may_have_hook(self);
    *hook = may_have > 0 ? PyObject_GetAttr((PyObject *)self, self->state->str__on_task_done) : NULL;
    if (may_have < 0 || (may_have > 0 && *hook == NULL)) {
        return -1;
    }
    if (*hook != NULL && is_own_method((PyObject *)self, *hook, TaskGroup__on_task_done)) {
        Py_CLEAR(*hook);
    }
    if (need_callback(self, &self->done, end_of_task_lock_held, "TaskGroup._on_task_done", TaskGroup__on_task_done) < 0) {
        Py_CLEAR(*hook);
        return -1;
    }
    return 0;
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
        collect_error(task, &first, call_method(task, self->state->str_cancel));
    }
    return raise_collected(first);
}

/* A new task joins the group, with a callback that is added unless it is NULL: that is `done` if the task has `ended` well.
   0; or -1, and it is not in the group.  Then *slot is cleared if its end has been seen all the same. */
static int
join_lock_held(TaskGroup *self, PyObject *task, int kind, PyObject *callback, int ended, int *slot)
{
    ASSERT_LOCKED(self);
    if (self->finished) {
        // Under the call that made the task, by a hook or another thread.
        return refuse(self, "is finished");
    }
    if (TaskSet_add(&self->tasks, task, kind) < 0) {
        return -1;
    }
    self->background += kind == KIND_BACKGROUND;
    int rc = add_awaited_by(self, task);
    if (rc == 0 && self->finished) {
        // By the parent's __hash__(), in the set of who awaits the task.
        rc = refuse(self, "is finished");
    }
    if (rc == 0 && callback != NULL) {
        rc = ended ? end_soon_lock_held(self, task) : add_done_callback(self, task, callback);
    }
    if (rc == 0) {
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
    // One that has failed already is reported as never retrieved, as asyncio's is; cancel() would take that back.
    int runs = !Py_IS_TYPE(task, (PyTypeObject *)self->state->CTask) || task_runs(self->state, task);
    if (runs && call_method(task, self->state->str_cancel) < 0) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Clear();      // it may not even be a task
        }
        report_unraisable(task);
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
adopt_lock_held(TaskGroup *self, PyObject *task, PyObject *coro, int kind, PyObject *callback, int ended)
{
    int slot = kind == KIND_SLOT;
    if (join_lock_held(self, task, kind, callback, ended, &slot) < 0) {
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
    return self->aborting ? drain_queue_lock_held(self) : grant_lock_held(self);
}

/* A task for a turn, which runs `runner`. */
static PyObject *
create_for_turn_lock_held(TaskGroup *self, const Call *call, Turn *turn, PyObject *runner, PyObject *hook)
{
    int direct;
    Call runner_call = {runner, call->values, call->kwnames};
    PyObject *task = make_task(self, &runner_call, may_park(self, call, hook), &direct);
    if (task == NULL) {
        close_unstarted(self->state, runner);
        return NULL;
    }
    turn->task = task;
    turn->hook = Py_XNewRef(hook);
    turn->quiet = direct && hook == NULL && turn->waker != NULL;
    PyObject *callback = turn->quiet ? NULL : turn_new_callback(turn);
    if (callback == NULL && !turn->quiet) {
        return refuse_task_lock_held(self, task, runner, 0);
    }
    task = adopt_lock_held(self, task, runner, KIND_PLAIN, callback, 0);
    Py_XDECREF(callback);
    return task;
}

static PyObject *
create_queued_lock_held(TaskGroup *self, const Call *call, PyObject *hook)
{
    ASSERT_LOCKED(self);
    int rc = need_callback(self, &self->start, start_lock_held, "TaskGroup._start", NULL);
    Turn *turn = rc < 0 ? NULL : Turn_new(self, call->coro, TURN_QUEUED);
    if (turn == NULL) {
        close_coroutine(self->state, call->coro);
        return NULL;
    }
    PyObject *runner = start_turn(self, turn);
    PyObject *task = runner == NULL ? NULL : create_for_turn_lock_held(self, call, turn, runner, hook);
    Py_XDECREF(runner);
    if (task == NULL) {
        PyObject *exc = PyErr_GetRaisedException();
        turn->quiet = turn->quiet && TaskSet_tag(&self->tasks, turn->task) >= 0;
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

/* A newcomer that found a free slot has a task, and keeps the slot: whoever is granted one from now on takes a first step
   after that of the newcomer. */
static int
note_newcomer_lock_held(TaskGroup *self, PyObject *coro, int may_be_eager)
{
    // One that has run eagerly does not tell whether those before it have started.
    int has_run = may_be_eager ? coroutine_has_started(self->state, coro) : 0;
    if (has_run <= 0) {
        Py_XSETREF(self->newest, Py_NewRef(coro));
    }
    self->may_ride = 0;
    return has_run < 0 ? -1 : 0;
}

/* A task for a coroutine, a callable's `turn` behind it, that may start at once, with a slot if it is of KIND_SLOT. */
static PyObject *
create_started_lock_held(TaskGroup *self, const Call *call, PyObject *coro, int *kind, PyObject *hook, Turn *turn)
{
    quattro_state *state = self->state;
    int direct;
    Call coro_call = {coro, call->values, call->kwnames};
    PyObject *task = make_task(self, &coro_call, 0, &direct);
    if (task == NULL) {
        close_unstarted(state, coro);
        *kind = KIND_PLAIN;
        return NULL;
    }
    PyObject *asked = NULL, *first = NULL;
    int own = hook == NULL && Py_IS_TYPE(task, (PyTypeObject *)state->CTask);
    int may_be_eager = !direct || call_has(call, state->str_eager_start);
    int progress = may_be_eager && (own || *kind == KIND_SLOT) ? task_progress(state, task) : TASK_RUNS;
    if (progress < 0 && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();          // not a task: adopt() says so, unless add_done_callback() works
        progress = TASK_RUNS;
    }
    collect_error(self, &asked, progress);
    if (progress == TASK_ENDED_WELL || (progress == TASK_FAILED && !self->cancel_on_error)) {
        *kind = *kind == KIND_SLOT ? KIND_PLAIN : *kind;        // and the caller gives the slot back
    }
    else if (*kind == KIND_SLOT) {
        collect_error(self, &asked, note_newcomer_lock_held(self, coro, may_be_eager));
    }
    PyObject *callback = Py_XNewRef(hook != NULL ? hook : self->done);      // NULL if the group has finished meanwhile
    task = adopt_lock_held(self, task, coro, *kind, callback, own && progress == TASK_ENDED_WELL);
    Py_XDECREF(callback);
    if (turn != NULL && direct && hook == NULL && !call_has(call, state->str_context)) {
        turn->task = task;
    }
    // Why it could not be adopted says more than why it could not be asked.
    collect_error(self, &first, task == NULL ? -1 : 0);
    collect_error(self, &first, raise_collected(asked));
    if (raise_collected(first) < 0) {
        Py_CLEAR(task);         // the group waits for it all the same, if it could be adopted
    }
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
        task = create_started_lock_held(self, call, coro, &kind, hook, turn);
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

int
check_open_lock_held(TaskGroup *self, int background)
{
    const char *why = !self->entered ? "has not been entered"
                      : self->finished || (self->exiting && self->tasks.used == 0) ? "is finished"
                      : self->aborting || (background && self->stopping) ? "is shutting down" : NULL;
    return why == NULL ? 0 : refuse(self, why);
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
        set_not_a_coroutine(state, coro);
        return NULL;
    }
    PyObject *hook;
    if (check_open_lock_held(self, background) < 0 || find_hook(self, &hook) < 0) {
        close_coroutine(state, coro);
        return NULL;
    }
    int kind = background ? KIND_BACKGROUND : self->limit > 0 ? KIND_SLOT : KIND_PLAIN;
    PyObject *task = background || slot_is_free(self) ? create_now_lock_held(self, call, !rc, kind, hook)
                                                      : create_queued_lock_held(self, call, hook);
    Py_XDECREF(hook);
    return task;
}

/* create() where `coro` is not given by position, or is not all that is. */
static PyObject *
create_by_name(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, int background)
{
    quattro_state *state = GROUP(op)->state;
    PyObject *method = PyObject_GetAttrString(state->TaskGroup_Type, background ? "create_background_task" : "create_task");
    PyObject *by_name = method == NULL ? NULL
                        : PyObject_CallFunctionObjArgs(state->partial, state->create_by_name, method, op, NULL);
    LOCKED(op, GROUP(op)->reached = 0);
    PyObject *task = by_name == NULL ? NULL : PyObject_Vectorcall(by_name, args, nargs, kwnames);
    int reached;        // create() closes what comes to it, unless a task has it
    LOCKED(op, reached = GROUP(op)->reached; GROUP(op)->reached = 1);
    Py_ssize_t count = nargs + (kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames));
    for (Py_ssize_t i = 0; task == NULL && !reached && i < count; i++) {
        close_unstarted(state, args[i]);
    }
    Py_XDECREF(method);
    Py_XDECREF(by_name);
    return task;
}

PyObject *
create(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, int background)
{
    TaskGroup *self = GROUP(op);
    if (nargs != 1 || call_has(&(Call){NULL, NULL, kwnames}, self->state->str_coro)) {
        return create_by_name(op, args, nargs, kwnames, background);
    }
    PyObject *task;
    Call call = {args[0], args + 1, kwnames};
    BEGIN_SECTION(op);
    self->reached = 1;
    task = create_lock_held(self, &call, background);
    if (task == NULL) {
        drop_callbacks_lock_held(self);     // finished meanwhile, for all that it could run
    }
    check_lock_held(self);
    END_SECTION();
    return task;
}
