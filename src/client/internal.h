/* SPDX-License-Identifier: BSD-2-Clause */
/* internal.h - the client handle, for the files of src/client/ alone. */
#ifndef P9_CLIENT_INTERNAL_H
#define P9_CLIENT_INTERNAL_H
#include <pthread.h>
#include <string.h>
#include "base/spin.h"
#include "engine/engine.h"
#include "p9/client.h"

#define P9_CLIENT_TEXT 512

struct p9_recover;
/* What moves the engine's bytes: link.c for descriptors, vhost.c for a device. */
struct p9_carrier {
	int (*push)(struct p9_client *c);	     /* as p9_client_push() */
	int (*pull)(struct p9_client *c, bool wait); /* as p9_client_pull() */
	/* Fills v with what to wait for and says how many; `out`: also for room. *now: something is there already. */
	unsigned (*watch)(struct p9_client *c, struct pollfd v[2], bool out, bool *now);
	/* Waits for that itself. Returns 0 after a signal, else 1. NULL: poll(2) will do. */
	int (*wait)(struct p9_client *c, int ms);
	/* The link has ended for a reason of ours: the other end is to see it now. NULL: when the handle goes. */
	void (*hang_up)(struct p9_client *c);
	/* Between requests: whether the other end has gone. */
	bool (*closed)(struct p9_client *c);
	/* After hang_up: whether the other end is at none of our memory any more. NULL: it never is. */
	bool (*let_go)(struct p9_client *c);
	/* A connection in the lost one's place, the carrier's from here on. Fails with the cause in err (P9_CLIENT_TEXT). */
	int (*again)(struct p9_client *c, int fd, char *err);
	void (*end)(struct p9_client *c);
	/* Memory that payload moves from and to without a copy; NULL where there is no such thing. */
	void *(*buffer)(struct p9_client *c, size_t n);
	bool (*put_buffer)(struct p9_client *c, void *p); /* false: it is none */
};

struct p9_client {
	struct p9_engine engine;
	void *mem;
	const struct p9_carrier *carrier; /* NULL before the link begins */
	struct p9_client_front *front;	  /* vhost.c's */
	int in, out;
	bool own, in_socket, out_socket;
	int out_flags; /* of a descriptor that is no socket, to be put back; -1 for none */
	int timeout_ms;
	uint32_t root;
	struct p9_qid root_qid;
	uint32_t msize;	      /* the session's, for as long as the handle is connected */
	unsigned npatient;    /* requests in flight whose waiting does not count as the server's silence */
	bool looks;	      /* for a reply before sleeping */
	struct p9_spin spin;  /* how long */
	uint64_t heard;	      /* ms: when bytes last came, or something began to be waited for */
	pthread_mutex_t lock; /* recursive; taken only when there is a thread */
	pthread_cond_t news;  /* callbacks have run */
	pthread_t thread;
	bool threaded, ending;
	struct p9_recover *recover; /* NULL: a lost link is lost */
	const char *dialled;	    /* while p9_client_dial() is at it: the address */
	int bell;		    /* eventfd that wakes the thread; -1 without */
	char peer[128];		    /* for the texts of link errors */
	char error[P9_CLIENT_TEXT];
};

/* link.c */
extern const struct p9_carrier p9_client_descriptors;
enum { P9_PUSH_ALL, P9_PUSH_PART, P9_PUSH_CLOSED };
/* Sends what waits. Returns P9_PUSH_ALL when all went, P9_PUSH_PART when the descriptor takes no more now,
 * P9_PUSH_CLOSED when nobody reads any more (but something may wait to be read), or the link's error. */
P9_MUST_USE int p9_client_push(struct p9_client *c);
enum { P9_PULL_NONE, P9_PULL_SOME, P9_PULL_FULL };
/* Receives once; `wait` may only be asked of a socket. Returns P9_PULL_NONE with errno EINTR or EAGAIN, P9_PULL_SOME
 * when all that was there has come, P9_PULL_FULL when there may be more, or the link's error. */
P9_MUST_USE int p9_client_pull(struct p9_client *c, bool wait);
/* For how long to look before sleeping, as the handle's options have it. */
void p9_client_look_for(struct p9_client *c, uint32_t us);
/* Looks for bytes at the socket for a while. Returns as p9_client_pull(), 0: it is time to sleep, then p9_spin_slept(). */
P9_MUST_USE int p9_client_look(struct p9_client *c);
/* The same without taking anything: whether one of v has something. */
bool p9_client_look_at(struct p9_client *c, struct pollfd *v, unsigned n);
/* vhost.c */
struct p9_addr;
struct p9_client_front_conf {
	const struct p9_addr *addr;
	unsigned depth;
	uint32_t msize;
	int timeout_ms;
};
/* The handle's carrier is the device behind fd, which is the handle's from here on. P9_FRONT_ERR bytes at err. */
P9_MUST_USE int p9_client_front_open(struct p9_client *c, int fd, const struct p9_client_front_conf *conf, char *err);
/* A string for a message, cut where its length cannot be told. */
static inline struct p9_str p9_client_str(const char *s)
{
	return (struct p9_str){ s, (uint16_t)strnlen(s, UINT16_MAX) };
}
/* requests.c */
/* Milliseconds of a clock that is never 0. */
uint64_t p9_client_now(void);
/* With a thread: from here to p9_client_leave() no other thread is in a function of the handle. May be nested. */
void p9_client_enter(struct p9_client *c);
void p9_client_leave(struct p9_client *c);
/* Lets requests go on until *flag, which a callback sets under the lock. Returns 0, or the link's error. */
P9_MUST_USE int p9_client_await(struct p9_client *c, const bool *flag);
void p9_client_thread_end(struct p9_client *c);
/* client.c */
/* Sets the text for an error number and returns -ecode; ecode may have either sign. */
int p9_client_set_error(struct p9_client *c, int ecode);
/* Where the text of the last error is: the handle's, or with a thread the calling thread's. P9_CLIENT_TEXT bytes. */
char *p9_client_text(const struct p9_client *c);
/* Sets the text for the link's end and returns its code. */
int p9_client_link_error(struct p9_client *c);
/* Whether a thread of the library's moves the bytes. */
static inline bool p9_client_threaded(const struct p9_client *c)
{
	return c->threaded;
}
/* xfer.c */
/* Takes a reply in: the callback of a piece. */
void p9_xfer_answer(struct p9_piece *q, const struct p9_msg *r);

#endif
