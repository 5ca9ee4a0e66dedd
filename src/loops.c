/* What is known of the insides of event loops, asyncio's and uvloop's: how create_task() may be shortened, whether anything
   is ready, debug mode.  And what every loop is asked: call_soon(). */

#include "loops.h"

PyObject *
schedule(TaskGroup *self, PyObject *function, PyObject *arg, PyObject *context)
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
    return handle;
}

int
call_soon(TaskGroup *self, PyObject *function, PyObject *arg, PyObject *context)
{
    PyObject *handle = schedule(self, function, arg, context);
    Py_XDECREF(handle);
    return handle == NULL ? -1 : 0;
}

/* How much of loop.create_task() may be left out. */
typedef enum {
    LOOP_UNKNOWN,               // nothing: somebody's hook
    LOOP_STOCK,                 // asyncio's or uvloop's own, unpatched; but with a task factory, or another Task class
    LOOP_STOCK_EAGER,           // the factory is asyncio.eager_task_factory
    LOOP_DIRECT,                // it would do nothing but asyncio.Task(coro, loop=loop, ...)
} LoopKind;

/* uvloop.loop.Loop, if this is one or of a class over it; else NULL.  A reference that is borrowed of the loop. */
static PyTypeObject *
uvloop_type(PyObject *loop)
{
    PyTypeObject *type = Py_TYPE(loop);
    while (type != NULL && (!(type->tp_flags & Py_TPFLAGS_IMMUTABLETYPE) || strcmp(type->tp_name, "uvloop.loop.Loop") != 0)) {
        type = type->tp_base;
    }
    return type;
}

/* Is this uvloop's own create_task(), that of a type which cannot be patched?  0 with an error if that can't be had. */
static int
is_uvloop_function(TaskGroup *self, PyObject *function)
{
    if (self->uvloop_create_task == NULL) {
        PyTypeObject *type = uvloop_type(self->loop);
        PyObject *get_factory, *create_task;
        if (type == NULL || PyDict_GetItemRef(type->tp_dict, self->state->str_get_task_factory, &get_factory) <= 0) {
            return 0;
        }
        Py_XSETREF(self->uvloop_get_factory, get_factory);
        (void)PyDict_GetItemRef(type->tp_dict, self->state->str_create_task, &create_task);
        Py_XSETREF(self->uvloop_create_task, create_task);
    }
    return function == self->uvloop_create_task;
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
    self->loop_is_asyncio = self->loop_is_uvloop = 0;
    if (!PyMethod_Check(create_task) || PyMethod_GET_SELF(create_task) != self->loop) {
        return NULL;
    }
    PyObject *function = PyMethod_GET_FUNCTION(create_task);
    PyObject *factory = NULL;
    if (is_stock_function(state, function)) {
        self->loop_is_asyncio = 1;
        (void)PyObject_GetOptionalAttr(self->loop, state->str__task_factory, &factory);
    }
    else if (is_uvloop_function(self, function)) {
        self->loop_is_uvloop = 1;
        PyObject *get_factory = Py_NewRef(self->uvloop_get_factory);
        factory = PyObject_CallOneArg(get_factory, self->loop);
        Py_DECREF(get_factory);
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
    int c_task = dict_item_is(PyModule_GetDict(state->tasks), state->str_Task, state->CTask);
    return c_task < 0 ? -1 : c_task ? LOOP_DIRECT : LOOP_STOCK;
}

int
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

/* The loop has refused the first step of a new task. */
static void
forget_task(TaskGroup *self, PyObject *task)
{
    PyObject *exc = PyErr_GetRaisedException();
    Py_XDECREF(PyObject_CallFunctionObjArgs(self->state->forget_task, self->loop, task, NULL));
    report_unraisable(self->loop);
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
            forget_task(self, task);
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
    PyObject *result = first == NULL
                       ? PyObject_Vectorcall(callable, args + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, call->kwnames)
                       : PyObject_Vectorcall(callable, args, 2, call->kwnames);
    if (args != stack) {
        PyMem_Free(args);
    }
    return result;
}

PyObject *
make_task(TaskGroup *self, const Call *call, int park, int *direct)
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
        return make_task_directly(self, call, park);
    }
    PyObject *task = NULL;
    int has_eager_start = call_has(call, state->str_eager_start);
    if (!TASK_TAKES_EAGER_START && kind == LOOP_DIRECT && has_eager_start) {
        // uvloop would ignore it.
        PyErr_SetString(PyExc_TypeError, "eager_start needs CPython 3.12 or newer");
    }
    else if (!LOOP_PASSES_KEYWORDS && kind == LOOP_STOCK_EAGER && plain && !has_eager_start) {
        task = call_with_keywords(state->create_eagerly, self->loop, call);
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

int
loop_times_callbacks(TaskGroup *self)
{
    return self->loop_is_uvloop ? 0 : attr_is_true(self->loop, self->state->str__debug);
}

int
loop_time(TaskGroup *self, double *now)
{
    PyObject *value = PyObject_CallMethodNoArgs(self->loop, self->state->str_time);
    *now = value == NULL ? -1 : PyFloat_AsDouble(value);
    Py_XDECREF(value);
    return *now == -1 && PyErr_Occurred() ? -1 : 0;
}

int
task_is_running(TaskGroup *self, const void *task)
{
    PyObject *current = PyObject_CallOneArg(self->state->current_task, self->loop);
    int rc = current == NULL ? -1 : current == task;
    Py_XDECREF(current);
    return rc;
}

int
no_task_is_running(TaskGroup *self)
{
    int own = PyThread_get_thread_ident() == self->thread;
    quattro_state *state = self->state;
    PyObject *current = own ? call_in_module(state->tasks, state->str_current_task, self->loop) : Py_NewRef(Py_False);
    int rc = current == NULL ? -1 : current == Py_None;
    Py_XDECREF(current);
    return rc;
}

#ifdef Py_GIL_DISABLED
/* Another thread may be about to change what would be walked here. */
static int
uvloop_ready(TaskGroup *Py_UNUSED(self), PyObject **Py_UNUSED(ready))
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

/* uvloop has no attribute that tells what is ready, but it shows the collector what it holds, as gc.get_referents() does:
   one deque, of the handles that are ready.  If that ever changes, it shows none. */
static int
uvloop_ready(TaskGroup *self, PyObject **ready)
{
    Found deques = {(PyTypeObject *)self->state->deque, NULL, 0};
    PyTypeObject *type = uvloop_type(self->loop);
    if (type != NULL) {
        type->tp_traverse(self->loop, find_instances, &deques);
    }
    *ready = deques.count == 1 ? Py_NewRef(deques.last) : NULL;
    return *ready != NULL;
}
#endif

/* The same of asyncio's own loops, where call_soon() keeps what is ready in _ready. */
static int
asyncio_ready(TaskGroup *self, PyObject **ready)
{
    int rc = PyObject_GetOptionalAttr(self->loop, self->state->str__ready, ready);
    if (rc > 0 && !Py_IS_TYPE(*ready, (PyTypeObject *)self->state->deque)) {
        Py_CLEAR(*ready);
    }
    return rc < 0 ? -1 : *ready != NULL;
}

/* Does call_soon() keep what is ready there?  A loop with one of its own may keep it elsewhere.  (qasync's has a _ready
   that is always empty.)  -1 on error. */
static int
call_soon_is_own(TaskGroup *self)
{
    quattro_state *state = self->state;
    PyObject *call_soon;
    int rc = PyObject_GetOptionalAttr(self->loop, state->str_call_soon, &call_soon);
    if (rc <= 0) {
        return rc;
    }
    PyObject *function = PyMethod_Check(call_soon) ? PyMethod_GET_FUNCTION(call_soon) : NULL;
    if (self->loop_is_uvloop) {
        PyTypeObject *type = uvloop_type(self->loop);
        rc = type == NULL ? 0 : dict_item_is(type->tp_dict, state->str_call_soon, function);
    }
    else {
        rc = function != NULL && PyFunction_Check(function)
             && PyFunction_GET_GLOBALS(function) == PyFunction_GET_GLOBALS(state->stock_create_task);
    }
    Py_DECREF(call_soon);
    return rc;
}

/* The deque of the handles that are ready: 1 and a new reference; 0 if the loop does not show it; -1 on error. */
static int
loop_ready(TaskGroup *self, PyObject **ready)
{
    *ready = NULL;
    int own = self->loop_is_asyncio || self->loop_is_uvloop ? call_soon_is_own(self) : 0;
    return own <= 0 ? own : self->loop_is_asyncio ? asyncio_ready(self, ready) : uvloop_ready(self, ready);
}

int
loop_is_idle(TaskGroup *self)
{
    PyObject *ready;
    int rc = loop_ready(self, &ready);
    if (rc > 0) {
        rc = PyObject_Size(ready) == 0;
        Py_DECREF(ready);
    }
    // A timer that is due would come between the parent's next two steps.
    int due = rc > 0 && self->loop_is_asyncio ? attr_is_true(self->loop, self->state->str__scheduled) : 0;
    if (due > 0) {
        PyObject *answer = PyObject_CallOneArg(self->state->timer_is_due, self->loop);
        due = answer == NULL ? -1 : answer == Py_True;
        Py_XDECREF(answer);
    }
    return due == 0 ? rc : due < 0 ? -1 : 0;
}

int
loop_last_handle(TaskGroup *self, PyObject **handle)
{
    PyObject *ready;
    int rc = loop_ready(self, &ready);
    *handle = NULL;
    if (rc > 0) {
        if (PyObject_Size(ready) > 0) {
            *handle = PySequence_GetItem(ready, -1);
            rc = *handle == NULL ? -1 : 1;
        }
        Py_DECREF(ready);
    }
    return rc;
}
