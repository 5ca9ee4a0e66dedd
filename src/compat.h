/* What differs between CPython 3.11 and 3.15: the only file that knows versions.

   Shims carry the newest name, so that the rest of the code reads like code for the newest CPython.
   Features that a micro release may bring or lose (uncancel_resets of quattro/_turn.py) are not here. */

#ifndef QUATTRO_COMPAT_H
#define QUATTRO_COMPAT_H

#include <Python.h>

/* Does asyncio.Task() take eager_start?  Does asyncio's own loop.create_task() pass every keyword on, to the task or to its
   factory? */
#define TASK_TAKES_EAGER_START (PY_VERSION_HEX >= 0x030c0000)
#define LOOP_PASSES_KEYWORDS (PY_VERSION_HEX >= 0x030e0000)

#if PY_VERSION_HEX < 0x030c0000
/* One object for an exception, instead of type, value and traceback. */
static inline PyObject *
PyErr_GetRaisedException(void)
{
    PyObject *type, *value, *tb;
    PyErr_Fetch(&type, &value, &tb);
    if (type == NULL) {
        return NULL;
    }
    PyErr_NormalizeException(&type, &value, &tb);
    if (tb != NULL) {
        PyException_SetTraceback(value, tb);
        Py_DECREF(tb);
    }
    Py_DECREF(type);
    return value;
}

static inline void
PyErr_SetRaisedException(PyObject *exc)
{
    if (exc == NULL) {
        PyErr_Clear();
        return;
    }
    PyErr_Restore(Py_NewRef(Py_TYPE(exc)), exc, PyException_GetTraceback(exc));
}

/* Python code that calls a function does not look at this before 3.12: the function's own code runs then. */
static inline void
PyFunction_SetVectorcall(PyFunctionObject *function, vectorcallfunc vectorcall)
{
    function->vectorcall = vectorcall;
}

#  include <structmember.h>
#  define Py_T_PYSSIZET T_PYSSIZET
#  define Py_T_STRING T_STRING
#  define Py_READONLY READONLY
#endif

#if PY_VERSION_HEX < 0x030d0000
#  define Py_IsFinalizing _Py_IsFinalizing

/* 1 and a new reference; 0 and NULL when there is no such attribute; -1 and NULL on error. */
static inline int
PyObject_GetOptionalAttr(PyObject *op, PyObject *name, PyObject **result)
{
    *result = PyObject_GetAttr(op, name);
    if (*result != NULL) {
        return 1;
    }
    if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return -1;
    }
    PyErr_Clear();
    return 0;
}

/* 1 and a new reference; 0 and NULL when there is no such key; -1 and NULL on error. */
static inline int
PyDict_GetItemRef(PyObject *dict, PyObject *key, PyObject **result)
{
    *result = Py_XNewRef(PyDict_GetItemWithError(dict, key));
    if (*result != NULL) {
        return 1;
    }
    return PyErr_Occurred() ? -1 : 0;
}
#endif

/* A critical section of our own making, because it lends.  A thread that steps a task holds the group's section and the
   Task's, and wants either again within.  It would get it only when the mutex, after spinning for its own owner in vain,
   parks, which releases what the thread holds.  Detaching for a moment does that at once: to be done before a section
   begins that this thread may have, but not innermost. */
#ifdef Py_GIL_DISABLED
#  define FREE_THREADED 1
static inline PyObject *
lend_sections(PyObject *op)
{
#  if PY_VERSION_HEX >= 0x030e0000
    if (PyMutex_IsLocked(&op->ob_mutex)) {
        Py_BEGIN_ALLOW_THREADS
        Py_END_ALLOW_THREADS
    }
#  endif
    return op;
}

#  define BEGIN_SECTION(op) \
    { \
        PyCriticalSection section_; \
        PyCriticalSection_Begin(&section_, lend_sections((PyObject *)(op)))
#  define END_SECTION() \
        PyCriticalSection_End(&section_); \
    }
#else
#  define FREE_THREADED 0
#  define lend_sections(op) ((void)(op))
#  define BEGIN_SECTION(op) {
#  define END_SECTION() }
#endif

/* One statement with an object's section. */
#define LOCKED(op, statement) \
    do { \
        BEGIN_SECTION(op); \
        statement; \
        END_SECTION(); \
    } while (0)

/* Functions named ..._lock_held need the group's critical section. */
#if defined(Py_GIL_DISABLED) && PY_VERSION_HEX >= 0x030e0000
#  define ASSERT_LOCKED(op) assert(PyMutex_IsLocked(&((PyObject *)(op))->ob_mutex))
#else
#  define ASSERT_LOCKED(op) ((void)(op))
#endif

/* Module slots that older versions lack (a macro expands to nothing there). */
#ifdef Py_mod_multiple_interpreters
#  define SLOT_OWN_GIL {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#else
#  define SLOT_OWN_GIL
#endif
#ifdef Py_mod_gil
#  define SLOT_NO_GIL {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#else
#  define SLOT_NO_GIL
#endif

#endif
