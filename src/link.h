/* Link: a circular, doubly linked, intrusive list.  Plain C; no Python code runs in here. */

#ifndef QUATTRO_LINK_H
#define QUATTRO_LINK_H

#include <Python.h>

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

#endif
