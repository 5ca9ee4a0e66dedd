"""The ways in which mutations.py breaks the C, each with the tests that ought to notice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Mutant:
    name: str  # what is broken
    old: str  # a piece of the C, as it stands there
    new: str
    tests: str  # names of files without test_ and .py, or files and part of a test's name: "limit:order"
    since: tuple[int, int] = (3, 11)  # Pythons on which it matters
    before: tuple[int, int] = (9, 0)
    times: int = 1  # how often the text is there


MUTANTS = [
    # References.
    Mutant(
        "drop a DECREF: a quiet task that leaves",
        "        rc = discard_awaited_by(self, task);\n        Py_DECREF(task);",
        "        rc = discard_awaited_by(self, task);",
        "leaks:no_leak",
        since=(3, 12),
    ),
    Mutant(
        "drop a DECREF: a task that ends", "    if (tag >= 0) {\n        Py_DECREF(task); ", "    if (0) {", "leaks"
    ),
    Mutant("drop an INCREF: a task in the set", "(uintptr_t)Py_NewRef(task)", "(uintptr_t)task", "group limit"),
    Mutant(
        "drop an INCREF: a turn that is to hear of its cancel",
        "Py_INCREF(turn);\n    Link_append(&self->cancelled",
        "Link_append(&self->cancelled",
        "limit",
    ),
    Mutant("no visit of tasks", "Py_VISIT(ENTRY_TASK(self->tasks.entries[i]))", "(void)i", "leaks:collector"),
    Mutant("no visit of turns", "Py_VISIT(TURN_OF(link))", "(void)link", "leaks:collector"),
    Mutant("no visit of loop", "    Py_VISIT(self->loop);\n", "", "leaks:collector"),
    *(
        Mutant(f"no visit of {objects}", f"    {objects}(VISIT)\n", "", "leaks:collector")
        for objects in ("GROUP_STATE", "GROUP_TOOLS", "GROUP_CALLBACKS", "TURN_OBJECTS", "AWAIT_OBJECTS")
    ),
    Mutant("no visit of the group", "    Py_VISIT(self->group);\n", "", "leaks:collector", times=2),
    Mutant("no visit of the type", "    Py_VISIT(Py_TYPE(op));\n", "", "leaks:collector", times=4),
    Mutant(
        "the parent is kept",
        "    GROUP_STATE(TAKE)\n",
        "    PyObject *parent = NULL, *errors = NULL, *base_error = NULL, *waiter = NULL;\n",
        "group:held",
    ),
    Mutant(
        "the done callback is kept",
        "drop_turns_lock_held(self, 1);\n        GROUP_CALLBACKS(CLEAR)",
        "drop_turns_lock_held(self, 1);",
        "leaks",
    ),
    # The parent's cancellation.
    Mutant("forget an uncancel", "if (!group->parent_cancel_requested) {", "if (1) {", "group"),
    Mutant("cancel twice", "            *entry |= MARK;\n", "", "group:abort background"),
    Mutant(
        "cancel twice: one that joins an abort",
        "TaskSet_set_tag(&self->tasks, task, tag | MARK);",
        "",
        "hostile:joins_an_aborted group:abort",
        since=(3, 12),
    ),
    Mutant("a pending cancel is dropped", "self->propagate = Py_XNewRef(self->pending);", "", "group"),
    Mutant(
        "a stray cancel is left",
        "rc = attr_is_true(parent, state->str__must_cancel);",
        "rc = 0;",
        "group",
        before=(3, 13),
    ),
    Mutant(
        "a fresh cancel is swallowed with a stray one",
        "            if (cancelling > 0) {\n                Py_XSETREF(self->propagate",
        "            if (0) {\n                Py_XSETREF(self->propagate",
        "group",
        before=(3, 13),
    ),
    Mutant("the outside cancel is lost in errors", "if (exit_rearm_lock_held(group) < 0) {", "if (0) {", "group"),
    # The parent that steps within the last callback, and the loop that says whether anything else is ready.
    Mutant(
        "the parent never steps early",
        "int now = may_step ? parent_may_step(self) : 0;",
        "int now = 0;",
        "group:goes_on_within",
    ),
    Mutant(
        "the parent comes after what an abort schedules",
        "if (waiter != NULL && failed > 0) {",
        "if (0) {",
        "group:an_abort_schedules",
    ),
    Mutant(
        "the parent steps within another task",
        "return idle <= 0 ? idle : no_task_is_running(self);",
        "return idle;",
        "internals:the_groups_callback",
    ),
    Mutant(
        "the parent steps outside its callback",
        "if (self->running == NULL) {\n        return 0;",
        "if (0) {\n        return 0;",
        "group internals steps",
    ),
    Mutant(
        "the parent overtakes a call_soon() of the loop's own",
        "rc = function != NULL && PyFunction_Check(function)",
        "rc = 1 || PyFunction_Check(function)",
        "group:keeps_what_is_ready",
    ),
    Mutant(
        "the parent overtakes the same of a loop over uvloop's",
        "dict_item_is(type->tp_dict, state->str_call_soon, function);",
        "1;",
        "group:keeps_what_is_ready",
    ),
    Mutant(
        "the parent overtakes a _ready of another kind",
        "if (rc > 0 && !Py_IS_TYPE(*ready, (PyTypeObject *)self->state->deque)) {",
        "if (0) {",
        "group:what_is_ready",
    ),
    Mutant("the parent overtakes a timer", "due = answer == NULL ? -1 : answer == Py_True;", "due = 0;", "group:timer"),
    Mutant(
        "the parent overtakes what is ready", "rc = PyObject_Size(ready) == 0;", "rc = 1;", "group:what_is_ready steps"
    ),
    Mutant(
        "eager tasks that ended share a call of the loop, whatever is between",
        "last == self->ended_handle && self->ended != NULL;",
        "self->ended != NULL;",
        "group:between_eager_tasks",
        since=(3, 12),
    ),
    Mutant(
        "a callable keeps the group's callback",
        "taken_back = take_back_callback(group, task, done);",
        "taken_back = 1;",
        "group limit",
    ),
    Mutant(
        "a callable tells its end, though somebody has announced it",
        "if (taken_back > 0 && tag >= 0) {",
        "if (taken_back > 0) {",
        "internals:taken_back",
        since=(3, 12),
    ),
    Mutant(
        "a callable's slot is lost",
        "self->slot = (tag & KIND_MASK) == KIND_SLOT;",
        "self->slot = 0;",
        "limit",
    ),
    Mutant(
        "a group ends though a task that has ended schedules more",
        "if (!another_runs_lock_held(self, key) &&",
        "if (self->tasks.used - self->background == 1 &&",
        "group:finds_the_group_open",
    ),
    Mutant(
        "an error is dealt with in the task's context",
        "call_soon(self, self->done, task, context);",
        "call_soon(self, self->done, task, NULL);",
        "group:context_of_the_call",
    ),
    Mutant(
        "a callback is taken back from among others",
        "PyList_GET_SIZE(list) == 1",
        "PyList_GET_SIZE(list) >= 1",
        "group:compared_with_nothing",
    ),
    Mutant(
        "a coroutine that others finish is the task's end",
        "return running < 0 ? -1 : !running;",
        "return 0;",
        "internals:somebody_else",
    ),
    Mutant(
        "a granted turn that others run is left",
        "else if (self->waker != NULL) {",
        "else if (0) {",
        "internals:granted_turn",
    ),
    Mutant(
        "an announced turn keeps its place",
        "if (known || group->finished) {",
        "if (1) {",
        "internals:announced_and_closed",
    ),
    Mutant(
        "a failed task that can't join is cancelled",
        "int runs = !Py_IS_TYPE(task, (PyTypeObject *)self->state->CTask) || task_runs(self->state, task);",
        "int runs = 1;",
        "internals:could_not_be_adopted",
        since=(3, 12),
    ),
    Mutant(
        "a loop that raises then is not asked again",
        "parent_may_step(self) : 0;\n    collect_error(self, &first, now);",
        "parent_may_step(self) : 0;\n    if (now < 0) { return -1; }",
        "hostile:say_what_is_ready",
    ),
    Mutant(
        "a task steps in the callback's context",
        "(context == NULL || PyContext_Enter(context) == 0)) {",
        "(context == NULL || PyContext_Enter(PyContext_CopyCurrent()) == 0)) {",
        "group internals",
    ),
    # A task's end is heard where the task's first callback would be called.
    Mutant(
        "a queued task's failure is heard of late",
        "if (failed) {\n        return turn_see_failure_lock_held(self);",
        "if (failed) {\n        return turn_release_lock_held(self);",
        "limit steps",
    ),
    Mutant("the last queued task is forgotten", "if (!another_runs_lock_held(self, key) &&", "if (0 &&", "limit"),
    Mutant(
        "a slot goes on before the group has seen the error",
        "if (self->slot) {\n        self->slot = 0;\n        TaskSet_set_tag",
        "if (0) {\n        self->slot = 0;\n        TaskSet_set_tag",
        "limit steps",
    ),
    Mutant("no look at the group's dict for a hook", "self->dict != NULL || ", "", "private_names"),
    Mutant(
        "no look at the classes for a hook", "NULL ? 1 : PyDict_Contains(", "NULL ? 1 : 0 && (", "private_names group"
    ),
    Mutant(
        "no look at how attributes are found for a hook",
        " || type->tp_getattro != PyObject_GenericGetAttr",
        "",
        "private_names",
    ),
    Mutant("no look whether the collector has cleared the class", " || type->tp_mro == NULL", "", "corners"),
    Mutant("the dict is kept", "    Py_CLEAR(self->dict);\n", "", "private_names:dict"),
    Mutant("no visit of the dict", "    Py_VISIT(self->dict);\n", "", "leaks:collector"),
    Mutant(
        "whoever waits on a turn is woken with a future",
        "&& (turn->wakeup != NULL || (turn->waker",
        "&& (1 || (turn->waker",
        "internals",
    ),
    Mutant("a cancelled wait is over", "turn->state != TURN_CANCELLED\n", "1\n", "wait_for_slot group"),
    Mutant("a hook is found once for all tasks", "hook != NULL ? hook : self->done", "self->done", "group misuse"),
    # Errors.
    Mutant(
        "an abort stops at its first error",
        "                collect_error(self, &first, result == NULL ? -1 : 0);\n",
        "                if (result == NULL) { Py_DECREF(task); return -1; }\n",
        "misuse:methods_raise",
    ),
    Mutant(
        "a displaced error vanishes",
        "if (errors != NULL) {\n        Py_XDECREF(",
        "if (0) {\n        Py_XDECREF(",
        "group",
    ),
    Mutant(
        "SystemExit is an error like others",
        "group->base_error != NULL) {\n        // Ev",
        "0) {\n        // Ev",
        "group",
    ),
    # The queue and the slots.
    Mutant("lose a slot at an end", "    return release_lock_held(self->group);", "    return 0;", "limit"),
    Mutant(
        "lose the slot of a cancelled grant",
        "PyObject *first = NULL;\n    collect_error(self, &first, turn_release_lock_held(self));",
        "PyObject *first = NULL;",
        "limit",
    ),
    Mutant(
        "lend a slot to one cancelled unstarted",
        "turn_close_coro(turn);\n    self->slots--;",
        "turn_close_coro(turn);",
        "limit",
    ),
    Mutant(
        "a slot too many",
        "(self->slots < self->limit && self->queued == 0",
        "(self->slots <= self->limit && self->queued == 0",
        "limit",
    ),
    Mutant(
        "a queued coroutine is left open",
        "    if (coro != NULL) {\n        close_coroutine(self",
        "    if (0) {\n        close_coroutine(self",
        "limit",
    ),
    Mutant(
        "a refused coroutine is left open",
        "find_hook(self, &hook) < 0) {\n        close_coroutine(state, coro);",
        "find_hook(self, &hook) < 0) {",
        "group:refus",
    ),
    Mutant("an unstarted coroutine is left open", "    if (started <= 0) {", "    if (0) {", "misuse"),
    Mutant("an unstarted coroutine is closed though it runs", "    if (started <= 0) {", "    if (1) {", "misuse"),
    Mutant(
        "a slot comes back twice: a task that joins",
        "else {\n        *slot = 0;",
        "else {",
        "hostile:parent_whose_hash",
        since=(3, 14),
    ),
    Mutant(
        "a slot is lost: a task that can't join",
        "if (slot) {\n        collect_error(self, &first, release_lock_held(self));\n    }\n    Py_DECREF(task);",
        "Py_DECREF(task);",
        "misuse:cannot_join",
    ),
    Mutant(
        "a task that joins an abort is not cancelled if it raises",
        "done <= 0 && tag >= 0",
        "done == 0 && tag >= 0",
        "hostile:joins_an_aborted",
    ),
    Mutant(
        "a task whose context is entered is lost",
        "rc = callback == NULL ? -1 : call_soon(turn->group, callback, future, context);",
        "rc = -1;",
        "hostile:somebody_is_in",
    ),
    Mutant(
        "any builtin of a Task is taken for its wake-up",
        " && PyCFunction_GET_FLAGS(waker) == METH_O && ",
        " && ",
        "internals:somebody_else_waits",
    ),
    Mutant(
        "a turn's method belongs to the next waker",
        "    self->wakeup = NULL;\n",
        "",
        "internals:somebody_else_waits",
    ),
    Mutant(
        "a newcomer overtakes the granted", "self->queued == 0 && self->starting == 0", "self->queued == 0", "limit"
    ),
    Mutant("the newest is not asked", "now = newest_has_started_lock_held(self);", "now = 1;", "limit"),
    Mutant(
        "the head is not started directly",
        "now = newest_has_started_lock_held(self);",
        "now = 0;",
        "limit",
    ),
    Mutant(
        "an eager failure frees its slot",
        "(progress == TASK_FAILED && !self->cancel_on_error)",
        "progress == TASK_FAILED",
        "limit",
        since=(3, 12),
    ),
    Mutant(
        "the queue is not drained on an abort",
        "collect_error(self, &first, drain_queue_lock_held(self));",
        "",
        "misuse limit",
    ),
    Mutant("a hole in the index", "            hole = i;\n", "", "group:any_order"),
    # Background tasks.
    Mutant(
        "they end with the body",
        "        || self->background == 0 || self->tasks.used != self->background)",
        "        || self->background == 0)",
        "background",
    ),
    Mutant(
        "one may start while they stop",
        "self->aborting || (background && self->stopping) ?",
        "self->aborting ?",
        "background",
    ),
    Mutant(
        "they are cancelled though somebody did",
        "PyObject *result = cancelling > 0 ? ",
        "PyObject *result = 0 ? ",
        "background",
    ),
    Mutant(
        "they are not cancelled though a timeout has taken its cancel back",
        "PyObject_CallOneArg(state->cancel_unless_ending, task)",
        "Py_NewRef(Py_None)",
        "background",
    ),
    # Errors that cancel nothing.
    Mutant(
        "an error cancels all the same",
        "(self->cancel_on_error || background || !PyErr_GivenExceptionMatches(exc, PyExc_Exception))",
        "1",
        "cancel_on_error",
    ),
    Mutant(
        "a background task's error cancels nothing",
        "self->cancel_on_error || background ||",
        "self->cancel_on_error ||",
        "cancel_on_error",
    ),
    Mutant(
        "SystemExit cancels nothing",
        "|| background || !PyErr_GivenExceptionMatches(exc, PyExc_Exception)",
        "|| background",
        "cancel_on_error",
    ),
    Mutant(
        "an eager failure keeps its slot",
        "(progress == TASK_FAILED && !self->cancel_on_error)",
        "0",
        "cancel_on_error",
        since=(3, 12),
    ),
    Mutant(
        "the body's error is raised twice",
        "(!group->cancel_on_error && index_of(group->errors, exc) >= 0)",
        "0",
        "cancel_on_error",
    ),
    # Who waits for a slot.
    Mutant(
        "nobody is woken for a slot",
        "self->woken = 1;\n            int rc =",
        "continue;\n            int rc =",
        "wait_for_slot",
    ),
    Mutant(
        "who is beaten to a slot takes it",
        "if (slot_is_free(group)) {",
        "if (slot_is_free(group) || self->turn != NULL) {",
        "wait_for_slot",
    ),
    Mutant(
        "the background tasks are not stopped for who does not look", "self->woken = 0;", "", "internals:no_task_waits"
    ),
    Mutant(
        "somebody else is woken instead of the parent",
        "self->waiter ? PyObject_RichCompareBool(known, waker, Py_EQ) : 0",
        "self->waiter",
        "internals:else",
    ),
    Mutant(
        "a waiter is left when the group aborts",
        "drain_queue_lock_held(self));\n    collect_error(self, &first, wake_waiters_lock_held(self));",
        "drain_queue_lock_held(self));",
        "wait_for_slot",
    ),
    # What others see, and their hooks.
    Mutant("the factory is ignored", "int is_none = factory == Py_None;", "int is_none = 1;", "transparency"),
    Mutant("the Task class is ignored", "c_task < 0 ? -1 : c_task ? LOOP_DIRECT", "1 ? LOOP_DIRECT", "transparency"),
    Mutant("swapped code is ignored", "stock->func_code == state->stock_code\n", "1\n", "transparency"),
    Mutant("a patched instance is ignored", "!PyMethod_Check(create_task) || ", "", "transparency"),
    Mutant(
        "the method of another loop is ignored", "PyMethod_GET_SELF(create_task) != self->loop", "0", "transparency"
    ),
    Mutant("a patched class is ignored", "if (function != state->stock_create_task) {", "if (0) {", "transparency"),
    Mutant(
        "a subclass of uvloop's is ignored",
        "else if (is_uvloop_function(self, function)) {",
        "else if (is_uvloop_function(self, function) || self->uvloop_create_task != NULL) {",
        "transparency",
    ),
    Mutant("names are not copied", "if (runner != NULL && copy_names", "if (0 && copy_names", "transparency"),
    Mutant(
        "no awaited-by edges",
        "return change_awaited_by(self->state->add_awaited_by, task, self->parent);",
        "return 0;",
        "transparency",
        since=(3, 14),
    ),
    Mutant(
        "awaited-by edges stay",
        "return change_awaited_by(self->state->discard_awaited_by, task, self->parent);",
        "return 0;",
        "transparency",
        since=(3, 14),
    ),
]
