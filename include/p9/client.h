/* SPDX-License-Identifier: BSD-2-Clause */
/* client.h - a client of a 9P2000.L server.
 *
 * A handle is one connection, attached to one tree. Three ways to use it:
 *   - p9_client_call() and the functions for each message block until their own reply is there;
 *   - p9_client_send() queues a request with a callback; p9_client_step() moves bytes, waits and runs callbacks. Many
 *     requests can be in flight; this is what makes copying fast. A program with a poll loop of its own asks
 *     p9_client_poll() what to wait for and calls p9_client_work(), which never waits;
 *   - p9_client_thread() gives the handle a thread of the library's that does the moving.
 * Functions return >= 0, or -P9_Exxx and leave a text in the handle (p9_client_error).
 *
 * The end of the link (the server closed it, broke the protocol, or fell silent) is reported once to every request in
 * flight: its callback gets an Rlerror that no server sent, with the cause, and p9_client_dead() is true inside it.
 * Nothing is sent again by itself, and every later call returns that error.
 *
 * With opts.reconnect_ms and p9_client_dial() of a Unix, TCP or vhost-user address the handle looks for a lost server instead, in
 * step, work, the thread, or whatever waits: at once, then less and less often. Meanwhile nothing can be sent
 * (p9_client_room() is 0, functions that block wait). A server that is back gets the session again: attaches, fids by
 * the names they were walked to, files reopened with their flags (without O_CREAT, O_EXCL, O_TRUNC), locks. Then
 *   - requests that were in flight go out again when that can do no harm: those that only look, walk, open, lock;
 *   - the others, sent in whole or part, get EIO: they may or may not have been done;
 *   - a fid that now leads to another file (by qid), to none, or whose locks others took meanwhile, is stale: everything
 *     but Tclunk gets ESTALE. So does an attribute's fid, and its Tclunk when it was being written;
 *   - a directory that changed since it was opened gets ESTALE for Treaddir, until it begins at offset 0;
 *   - the first Tfsync of a file that was written to before gets EIO: a server that was restarted may have lost that.
 * The link ends for good, as above, when the time is over, or the server breaks the protocol or grants a smaller msize.
 * Over vhost-user the search begins when the device has ended its half of the connection (it may write to our memory until
 * then: one that hangs is waited for, not replaced), and whatever moves the bytes may wait up to 3 s for a device that is
 * back to introduce itself.
 *
 * Threads: without p9_client_thread() one thread at a time may use a handle. With it any thread may call any function
 * but p9_client_step(), p9_client_work() and p9_client_poll(); callbacks run on the library's thread, one after the
 * other, may send and cancel and must not block, so none of the functions that wait may be called from them.
 * All accept paths as bytes; a path is walked from the attached root, '/' first or not.
 */
#ifndef P9_CLIENT_H
#define P9_CLIENT_H
#include <poll.h>
#include <stdbool.h>
#include <sys/types.h>
#include "p9/codec.h"
P9_C_BEGIN

struct p9_client;

struct p9_client_opts {
	const char *aname;     /* "" or NULL for the server's default tree */
	const char *uname;     /* NULL for none; servers go by uid when it is given */
	uint32_t uid;	       /* numeric user; P9_NONUNAME when only uname counts */
	uint32_t msize;	       /* largest message to offer; 0 for 1 MiB */
	uint16_t depth;	       /* requests in flight; 0 for 64 */
	uint32_t reconnect_ms; /* how long to look for a server that was lost, see below; 0: not at all */
	int timeout_ms; /* how long the server may be silent while requests wait; past it the link ends; 0 for ever */
	/* Most microseconds that a call, or the library's thread, looks for a reply over a socket before it sleeps until one
	 * comes; 0: 100, P9_CLIENT_SLEEP: not at all. A server on this machine often answers sooner than a process is put to
	 * sleep and woken. Who looks in vain does so less often; with one processor nobody looks. */
	uint32_t look_us;
};
#define P9_CLIENT_SLEEP UINT32_MAX

/* ---- life ---- */
/* A handle that is not connected, or NULL without memory. */
struct p9_client *p9_client_new(void);
/* Closes and frees; accepts NULL. Callbacks of requests that are still in flight never run: cancel or await them first
 * when they own something. Ends the library's thread. Not from a callback. */
void p9_client_free(struct p9_client *c);
/* Connects to ADDR (unix:PATH, tcp:HOST:PORT, fd:N, fd:IN,OUT, stdio, vhost-user:PATH), agrees on a version and attaches. */
P9_MUST_USE int p9_client_dial(struct p9_client *c, const char *addr, const struct p9_client_opts *opts);
/* The same over open descriptors, which the handle closes only when `own` says so. */
P9_MUST_USE int p9_client_start(struct p9_client *c, int in, int out, bool own, const struct p9_client_opts *opts);
/* What went wrong last, such as "No such file or directory (ENOENT)". Never NULL. */
const char *p9_client_error(const struct p9_client *c);
/* Whether the link has ended: no call can succeed any more. */
bool p9_client_dead(const struct p9_client *c);
/* Fid and qid of the attached root. */
uint32_t p9_client_root(const struct p9_client *c);
struct p9_qid p9_client_root_qid(const struct p9_client *c);
uint32_t p9_client_msize(const struct p9_client *c);
/* Most bytes of one Tread or Twrite for a file whose Rlopen said `iounit`. */
uint32_t p9_client_iosize(const struct p9_client *c, uint32_t iounit);

/* ---- requests in flight ---- */
/* A request's owner: embed it, and find what it is embedded in from the pointer. */
struct p9_call {
	/* The reply: of the type asked for, or Rlerror. Views in it end with the callback. It may p9_client_send() one
	 * request without looking at p9_client_room(): its own tag is free again. It must not block or step. */
	void (*done)(struct p9_call *call, const struct p9_msg *reply);
	/* How long this request may take; 0 for as long as it likes. Past it the reply is an Rlerror with ETIMEDOUT,
	 * the server is sent a Tflush, and what it may still answer is thrown away (a fid that it made is clunked). */
	uint32_t timeout_ms;
	bool patient; /* may wait long at the server (a lock): the handle's own timeout does not count for it */
	uint16_t tag; /* its own */
};
/* Requests that p9_client_send() takes now. */
unsigned p9_client_room(const struct p9_client *c);
/* Requests without an answer yet. */
unsigned p9_client_pending(const struct p9_client *c);
/* Queues; returns the tag. `dst` takes the payload of Tread and Treaddir; it and Twrite's payload stay in place until
 * the reply. Nothing is sent before the next step. -P9_EAGAIN without room. */
P9_MUST_USE int p9_client_send(struct p9_client *c, struct p9_msg *msg, void *dst, struct p9_call *call);
/* Sends what waits, waits for replies and runs their callbacks. Returns how many ran (0 after a signal), or the link's
 * error; the callbacks of all requests in flight have then run, and no callback will run any more. */
P9_MUST_USE int p9_client_step(struct p9_client *c);
/* The same without waiting: what can be moved now is moved. */
P9_MUST_USE int p9_client_work(struct p9_client *c);
/* What to wait for before the next p9_client_work(): fills one or two places of v, returns how many, and sets
 * *timeout_ms as for poll(2): 0 when there is work already, -1 when time does not matter. */
unsigned p9_client_poll(struct p9_client *c, struct pollfd v[2], int *timeout_ms);
/* Another place for the payload of a Tread or Treaddir in flight, as long as nothing of it has come; the old one is the
 * caller's again. Who reads with several requests in flight and looks at one answer after the other needs the memory of one
 * in a processor's cache: have the next come to where the last was. From a callback, or between steps without a thread.
 * -P9_EBUSY when some of it has come, -P9_EINVAL when the call is not in flight, -P9_EOPNOTSUPP over vhost-user, where the
 * device has been told already. */
P9_MUST_USE int p9_client_redirect(struct p9_client *c, struct p9_call *call, void *dst);
/* Asks the server to give a request up (Tflush). Its callback still runs, from step, work or the thread: with the
 * reply, if that was faster, or with an Rlerror of ECANCELED. -P9_EINVAL when the call is not in flight; -P9_EAGAIN
 * without room. */
P9_MUST_USE int p9_client_cancel(struct p9_client *c, struct p9_call *call);
/* Starts the library's thread for a connected handle; see the rules at the top. */
P9_MUST_USE int p9_client_thread(struct p9_client *c);
/* One request and its reply. An Rlerror becomes -ecode. Views in *reply end with the next call. */
P9_MUST_USE int p9_client_call(struct p9_client *c, struct p9_msg *msg, void *dst, struct p9_msg *reply);

/* Memory for the payload of many Treads and Twrites, which over vhost-user need not be copied then: the server reads and
 * writes it in place. Elsewhere it is ordinary memory. NULL without memory. To be freed before the handle. A server can
 * change it at any time, so it is not for what is looked at twice, such as entries of directories. */
void *p9_client_buffer(struct p9_client *c, size_t n);
/* Not before the reply to a request that uses it. Accepts NULL. */
void p9_client_buffer_free(struct p9_client *c, void *buf);

/* ---- one function for each message; names as in doc/protocol.md ---- */
/* A fid of the client's choice; it comes back when it is clunked. */
P9_MUST_USE int p9_client_fid(struct p9_client *c, uint32_t *fid);
/* Gives back a fid that no request named. */
void p9_client_fid_unused(struct p9_client *c, uint32_t fid);
P9_MUST_USE int p9_client_attach(struct p9_client *c, const struct p9_client_opts *opts, uint32_t *fid);
/* Makes a second fid for the file of `fid`. */
P9_MUST_USE int p9_client_clone(struct p9_client *c, uint32_t fid, uint32_t *newfid);
/* Walks one name. qid may be NULL. */
P9_MUST_USE int p9_client_walk1(struct p9_client *c, uint32_t dir, const char *name, uint32_t *newfid,
				struct p9_qid *qid);
P9_MUST_USE int p9_client_statfs(struct p9_client *c, uint32_t fid, struct p9_rstatfs *st);
P9_MUST_USE int p9_client_lopen(struct p9_client *c, uint32_t fid, uint32_t flags, uint32_t *iounit);
P9_MUST_USE int p9_client_lcreate(struct p9_client *c, uint32_t fid, const char *name, uint32_t flags, uint32_t mode);
P9_MUST_USE int p9_client_symlink(struct p9_client *c, uint32_t dir, const char *name, const char *target);
P9_MUST_USE int p9_client_mknod(struct p9_client *c, uint32_t dir, const char *name, uint32_t mode, uint64_t rdev);
P9_MUST_USE int p9_client_mkdir(struct p9_client *c, uint32_t dir, const char *name, uint32_t mode);
P9_MUST_USE int p9_client_link(struct p9_client *c, uint32_t dir, uint32_t fid, const char *name);
P9_MUST_USE int p9_client_rename(struct p9_client *c, uint32_t fid, uint32_t dir, const char *name);
P9_MUST_USE int p9_client_renameat(struct p9_client *c, uint32_t olddir, const char *oldname, uint32_t newdir,
				   const char *newname);
P9_MUST_USE int p9_client_unlinkat(struct p9_client *c, uint32_t dir, const char *name, uint32_t flags);
P9_MUST_USE int p9_client_remove(struct p9_client *c, uint32_t fid);
/* Terminated text of a link into buf; -P9_ENAMETOOLONG when it does not fit. */
P9_MUST_USE int p9_client_readlink(struct p9_client *c, uint32_t fid, char *buf, size_t cap);
P9_MUST_USE int p9_client_getattr(struct p9_client *c, uint32_t fid, uint64_t mask, struct p9_rgetattr *st);
P9_MUST_USE int p9_client_setattr(struct p9_client *c, const struct p9_tsetattr *set);
/* Returns the bytes read or written, which may be fewer than asked. */
P9_MUST_USE int p9_client_read(struct p9_client *c, uint32_t fid, uint64_t offset, void *buf, uint32_t n);
P9_MUST_USE int p9_client_write(struct p9_client *c, uint32_t fid, uint64_t offset, const void *buf, uint32_t n);
/* Fills buf with entries, to be read by p9_wire_dirent_get(). Returns the bytes; 0 at the end. */
P9_MUST_USE int p9_client_readdir(struct p9_client *c, uint32_t fid, uint64_t offset, void *buf, uint32_t n);
P9_MUST_USE int p9_client_fsync(struct p9_client *c, uint32_t fid, bool datasync);
P9_MUST_USE int p9_client_lock(struct p9_client *c, const struct p9_tlock *lock, uint8_t *status);
P9_MUST_USE int p9_client_getlock(struct p9_client *c, const struct p9_tgetlock *ask, struct p9_rgetlock *found);
/* Whole attribute, or the list of names when name is "". Returns its size; -P9_ERANGE when it does not fit. */
P9_MUST_USE ssize_t p9_client_xattr_get(struct p9_client *c, uint32_t fid, const char *name, void *buf, size_t cap);
/* Sets an attribute of the file of `fid`, which stays as it is. */
P9_MUST_USE int p9_client_xattr_set(struct p9_client *c, uint32_t fid, const char *name, const struct p9_data *value,
				    uint32_t flags);
P9_MUST_USE int p9_client_xattr_remove(struct p9_client *c, uint32_t fid, const char *name);
/* Gives a fid back. The answer is of interest only where closing can fail. */
int p9_client_clunk(struct p9_client *c, uint32_t fid);

/* ---- paths ---- */
enum { P9_WALK_NOFOLLOW = 0, P9_WALK_FOLLOW = 1 };
/* A fid for a path of any depth. Symbolic links on the way are followed, within the tree; the last element's only with
 * P9_WALK_FOLLOW. */
P9_MUST_USE int p9_client_walk(struct p9_client *c, const char *path, int follow, uint32_t *fid);
/* A fid for the directory that a path's last element is in; `name` (256 bytes) gets that element. A path that ends in
 * "." or ".." or has no element is -P9_EINVAL. */
P9_MUST_USE int p9_client_walk_parent(struct p9_client *c, const char *path, uint32_t *dir, char *name);

/* ---- whole files, several requests in flight ---- */
/* Buffers that transfers share, so that many files together stay within a bound. */
struct p9_pool;
struct p9_pool *p9_pool_new(size_t size, unsigned max);
/* Before the handles whose transfers used it. */
void p9_pool_free(struct p9_pool *p);

enum { P9_XFER_WINDOW = 64 };
struct p9_xfer;
struct p9_window { /* how many requests are kept in flight; finds itself */
	unsigned now, max, best_at, skip, left, calm;
	uint64_t best, bytes, since_us;
	bool growing, settled;
};
struct p9_piece { /* one request of a transfer */
	struct p9_call call;
	struct p9_xfer *xfer;
	uint8_t *buf;
	uint64_t offset;
	uint32_t len, got;
	bool done;
};
/* One file on its way. Zero it, fill the first part, hand it to p9_xfer_begin(); then p9_xfer_more() whenever there is
 * room, until `done` was called. It keeps as many requests in flight as the link needs to be full, found out by
 * measuring, within P9_XFER_WINDOW, the pool's buffers and p9_client_room(). With p9_client_thread() these functions
 * are for the callbacks alone; p9_pread() and the rest of fs.h are for any thread. */
struct p9_xfer {
	struct p9_client *client;
	struct p9_pool *pool;  /* or NULL: to or from `memory`, without a copy and without `data` */
	uint8_t *memory;       /* the bytes from `offset` on */
	uint32_t fid, chunk;   /* chunk: bytes of one request, at most the pool's size */
	uint64_t offset, size; /* where to begin; where the end is expected (reading) or is (writing) */
	uint64_t limit;	       /* nothing is asked for from here on; 0 for no limit */
	bool writing;
	/* Reading: takes the bytes, in order. Writing: gives the bytes at an offset and returns how many, 0 when there
	 * are no more. Both return -P9_Exxx to stop. */
	int (*data)(struct p9_xfer *x, uint64_t offset, uint8_t *buf, uint32_t n);
	/* Called once, when no request is in flight any more. May send one request. */
	void (*done)(struct p9_xfer *x);
	/* Results. */
	int error;	/* 0 or -P9_Exxx */
	bool local;	/* the error is `data`'s */
	uint64_t moved; /* bytes handed over */
	/* Its own. */
	void (*send)(struct p9_piece *q, struct p9_msg *t);
	struct p9_window window;
	struct p9_piece pieces[P9_XFER_WINDOW];
	unsigned first, count;
	uint64_t next, eof;
	bool source_end, finished;
};
void p9_xfer_begin(struct p9_xfer *x);
/* Sends as much as room, pool and window allow. */
void p9_xfer_more(struct p9_xfer *x);
/* Begins no further request; `done` comes when those in flight are answered. */
void p9_xfer_stop(struct p9_xfer *x, int error);
/* Begin, more and step until it is done. Returns 0 or the error. */
P9_MUST_USE int p9_xfer_run(struct p9_xfer *x);

P9_C_END
#endif
