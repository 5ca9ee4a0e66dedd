#ifndef QUATTRO_TASKSET_H
#define QUATTRO_TASKSET_H

#include <Python.h>

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
    size_t hint;                // where the next task that is asked for is likely to be
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

static inline void
TaskSet_drop_index(TaskSet *set)
{
    PyMem_Free(set->index);
    set->index = NULL;
}

/* Index all entries; there is none afterwards if memory is short, and everything works without. */
static inline void
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

static inline size_t
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
static inline size_t
TaskSet_find(TaskSet *set, const void *task)
{
    size_t begin = set->begin, end = set->end;
    size_t hint = set->hint > begin && set->hint < end ? set->hint : begin;
    if (hint < end && ENTRY_TASK(set->entries[hint]) == task) {
        return hint;
    }
    if (set->index == NULL) {
        // Most tasks are asked for in about the order in which they were made, or are among the oldest.
        size_t before = hint - begin > SCAN ? hint - SCAN : begin;
        size_t found = TaskSet_scan(set, task, hint, Py_MIN(hint + SCAN, end));
        if (found == NOT_FOUND) {
            found = TaskSet_scan(set, task, before, hint);
        }
        if (found == NOT_FOUND) {
            found = TaskSet_scan(set, task, begin, Py_MIN(begin + SCAN, before));
        }
        if (found != NOT_FOUND) {
            set->hint = found;
        }
        if (found != NOT_FOUND || end - begin <= SCAN) {
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
static inline int
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
static inline int
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
static inline int
TaskSet_tag(TaskSet *set, const void *task)
{
    size_t at = TaskSet_find(set, task);
    return at == NOT_FOUND ? -1 : (int)(set->entries[at] & TAG_MASK);
}

static inline void
TaskSet_set_tag(TaskSet *set, const void *task, int tag)
{
    size_t at = TaskSet_find(set, task);
    assert(at != NOT_FOUND);
    set->entries[at] = (set->entries[at] & ~(uintptr_t)TAG_MASK) | (uintptr_t)tag;
}

/* Take what leads to a task out of the index, moving what follows back, so that there are no tombstones. */
static inline void
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
static inline int
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
    while (set->entries[set->end - 1] == 0) {
        set->end--;
    }
    set->hint = at + 1 < set->end && at + 1 > set->begin ? at + 1 : set->begin;
    return tag;
}

/* The next entry without MARK from position *at on, now marked; a new reference and its kind, or NULL at the end.
   Whoever loops with this has to start again at 0 until nothing is found: entries move. */
static inline PyObject *
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

static inline void
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

#endif
