/* Callback: what the loop calls, at a task's end or to start what has been granted a slot. */

#include "group.h"

static PyObject *
Callback_vectorcall(PyObject *op, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    Callback *self = (Callback *)op;
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
    if (nargs != (self->method != NULL) || kwnames != NULL) {
        PyErr_SetString(PyExc_TypeError, "a task group's callback is called by the loop, with the task");
        return NULL;
    }
    TaskGroup *group = (TaskGroup *)Py_NewRef(self->group);
    int rc;
    Py_INCREF(op);
    BEGIN_SECTION(group);
    Py_CLEAR(self->slowest);
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

PyObject *
Callback_new(TaskGroup *group, int (*call)(TaskGroup *self, PyObject *task), const char *qualname,
             PyCFunction method)
{
    Callback *self = Part_new(group->state->Callback_Type, group);
    if (self != NULL) {
        self->vectorcall = Callback_vectorcall;
        self->call = call;
        self->qualname = qualname;
        self->name = strchr(qualname, '.') + 1;
        self->method = method;
    }
    return (PyObject *)self;
}

/* asyncio's report names a Task that it finds here, and the callback otherwise. */
static PyObject *
Callback_get_self(PyObject *op, void *Py_UNUSED(closure))
{
    Callback *self = (Callback *)op;
    PyObject *result;
    LOCKED(self->group, result = Py_NewRef(self->slowest == NULL ? (PyObject *)self->group : self->slowest));
    return result;
}

/* task.remove_done_callback(tg._on_task_done) finds it, as it finds asyncio's. */
static PyObject *
Callback_richcompare(PyObject *op, PyObject *other, int how)
{
    Callback *self = (Callback *)op;
    if ((how != Py_EQ && how != Py_NE) || !PyCFunction_Check(other)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    int equal = self->method != NULL && is_own_method((PyObject *)self->group, other, self->method);
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

static int
Callback_clear(PyObject *op)
{
    Py_CLEAR(((Callback *)op)->slowest);
    return 0;
}

static PyMemberDef Callback_members[] = {
    {"__vectorcalloffset__", Py_T_PYSSIZET, offsetof(Callback, vectorcall), Py_READONLY, NULL},
    {"__qualname__", Py_T_STRING, offsetof(Callback, qualname), Py_READONLY, NULL},
    {"__name__", Py_T_STRING, offsetof(Callback, name), Py_READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef Callback_getset[] = {
    {"__self__", Callback_get_self, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot Callback_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("What the loop calls for a group. Internal.")},
    {Py_tp_dealloc, Part_dealloc},
    {Py_tp_traverse, Callback_traverse},
    {Py_tp_clear, Callback_clear},
    {Py_tp_richcompare, Callback_richcompare},
    {Py_tp_hash, Callback_hash},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, Callback_members},
    {Py_tp_getset, Callback_getset},
    {0, NULL},
};

PyType_Spec Callback_spec = {
    .name = "quattro._quattro._Callback",
    .basicsize = sizeof(Callback),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Callback_slots,
};
