/* SPDX-License-Identifier: BSD-2-Clause */
/* session.h - a 9P session for those who have no operating system, or are one: one call, one answer, by path.
 *
 * Freestanding: no allocation, no libc but memcpy, memmove, memset, memcmp. The memory is the caller's, bytes are moved
 * by a function of the caller's (struct p9_port), and the protocol is left to the engine (p9/engine.h), which distrusts
 * every reply. A call takes less than 6 KiB of stack, and there is no recursion.
 *
 * Calls return >= 0, or -P9_Exxx: the server's error, or the session's own. Once the link is lost (the port failed, or
 * the server broke the protocol) every call returns the same error for ever and p9_session_error() says why.
 *
 * Paths have any depth and begin at the attached root, with or without a slash. "." and empty elements are dropped; ".."
 * is walked, so that the server says what it means; the root's is the root. Symbolic links on the way are followed here,
 * within the tree: "/" in a link is the attached root, and more than 40 links are ELOOP. A trailing slash asks for a
 * directory.
 *
 * Fids are the session's own and come back by themselves: what a call takes, it gives back, whatever happens.
 *
 * Asynchronous requests go over the same session at the same time: p9_session_submit() with a struct p9_session_call
 * queues any message, and its `done` runs inside whatever call moves bytes next (p9_session_step(), or any of the calls
 * that wait). `done` may submit; it must not wait. At the link's end every call in flight gets an Rlerror. Deadlines
 * (p9_engine_deadline() with the tag that submit returned) work when the port tells the time (p9_engine_expire()).
 * One thread at a time: a kernel with several takes a lock around each call.
 */
#ifndef P9_SESSION_H
#define P9_SESSION_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "p9/codec.h"
P9_C_BEGIN

struct p9_engine;
struct p9_engine_iov;
struct p9_session;

#define P9_SYMLINKS_MAX 40

/* ---- the platform's part ---- */
/* A byte stream needs this one function: send what p9_engine_out() shows and acknowledge it with p9_engine_out_ack();
 * receive into what p9_engine_in() offers and acknowledge with p9_engine_in_ack(); see doc/examples/vfs.c.
 * With `wait`, sleep until at least one byte could be moved; without, return at once. Returns 1 when bytes were moved, 0
 * when there were none to move, or -P9_Exxx: the link is lost. A port that waits for ever makes calls that wait for
 * ever: return -P9_ETIMEDOUT when the platform's patience is over. */
struct p9_port {
	int (*move)(struct p9_port *p, struct p9_engine *e, bool wait);
};

/* A transport of whole messages (virtio) fills this in instead, begins with p9_msg_port_init(), and needs no more than
 * one buffer for the request and one for the reply. A transport with many may take that many messages before the first
 * reply; replies may come in any order. */
struct p9_msg_port {
	struct p9_port port;
	/* Takes one message, `size` bytes in `n` pieces (one or two), and sends it. The pieces are the caller's again on
	 * return, unless the transport is told otherwise below. Returns 1; 0 when no buffer is free before a reply
	 * has come; -P9_Exxx. */
	int (*send)(struct p9_msg_port *p, const struct p9_engine_iov *v, unsigned n, uint32_t size);
	/* The next reply: *reply points to it until the next recv(). Returns its length; 0 when none is there, with
	 * `wait` only after a spurious wake-up; -P9_Exxx. It is copied once, payload straight to its place. */
	int (*recv)(struct p9_msg_port *p, const uint8_t **reply, bool wait);
	/* Its own. */
	const uint8_t *reply;
	uint32_t len, pos; /* of the reply that the engine is being fed with */
	uint32_t waiting;  /* messages sent and not answered */
};
/* Sets port.move; send and recv are the caller's to set. */
void p9_msg_port_init(struct p9_msg_port *p);

/* ---- the session ---- */
struct p9_session_conf {
	struct p9_port *port;
	const char *uname, *aname; /* NULL for "" */
	uint32_t uid;		   /* n_uname: who we are */
	uint32_t gid;		   /* group of what is made */
	uint32_t msize;		   /* 0 for 64 KiB */
	uint32_t nfids;		   /* 0 for 256 */
	uint16_t ntags;		   /* requests in flight; 0 for 16 */
	uint32_t out_size;	   /* bytes for heads of requests; 0 for the engine's default */
	uint32_t dir_size;	   /* buffer for listings; 0 for 8 KiB */
};
/* Bytes of memory that a session with this configuration needs, aligned to 16. */
size_t p9_session_memory(const struct p9_session_conf *conf);
/* Makes a session in the caller's memory and goes through Tversion and Tattach. *out is set whenever the memory was
 * enough, also when the server refused, so that p9_session_error() can be asked. There is nothing to free. */
P9_MUST_USE int p9_session_init(struct p9_session **out, const struct p9_session_conf *conf, void *mem, size_t len);
/* Why the link ended; "" while it lives. Never NULL. */
const char *p9_session_error(const struct p9_session *s);
/* 0, or the error that ended the link. */
int p9_session_dead(const struct p9_session *s);
uint32_t p9_session_msize(const struct p9_session *s);
/* Fid of the attached root. */
uint32_t p9_session_root(const struct p9_session *s);
struct p9_engine *p9_session_engine(struct p9_session *s);
/* Waits until no request is in flight. Returns 0 or the link's error. */
P9_MUST_USE int p9_session_drain(struct p9_session *s);
/* Fids in use; after a drain: the root's and one for each open handle, plus the caller's own. */
uint32_t p9_session_fids(const struct p9_session *s);

/* ---- any message ---- */
struct p9_session_call {
	/* The reply, or an Rlerror at the link's end. Views in it end with the return. */
	void (*done)(struct p9_session_call *c, const struct p9_msg *reply);
};
/* Queues a request; arguments as p9_engine_submit(). Returns its tag; -P9_EAGAIN without room. */
P9_MUST_USE int p9_session_submit(struct p9_session *s, struct p9_msg *msg, void *dst, struct p9_session_call *c);
/* Moves bytes and runs what is done. Returns how many ran, 0 when nothing was there (with `wait`: when nothing is in
 * flight), or the link's error. */
P9_MUST_USE int p9_session_step(struct p9_session *s, bool wait);
/* One request and its reply; an Rlerror becomes -ecode. `reply` may be NULL; its views end with the next call. */
P9_MUST_USE int p9_session_call(struct p9_session *s, struct p9_msg *msg, void *dst, struct p9_msg *reply);

/* ---- files by handle ---- */
struct p9_handle {
	uint32_t fid;
	uint32_t chunk; /* most bytes of one Tread or Twrite */
	uint32_t flags; /* as it was opened */
	struct p9_qid qid;
};
/* flags: P9_O_xxx. With P9_O_CREAT a file that is not there is made with `mode`; links are followed also then, except
 * with P9_O_EXCL or P9_O_NOFOLLOW. P9_O_TRUNC, P9_O_APPEND are the server's. */
P9_MUST_USE int p9_session_open(struct p9_session *s, const char *path, uint32_t flags, uint32_t mode,
				struct p9_handle *h);
/* Reads or writes at an offset, several requests in flight (one, when the handle appends). Returns the bytes moved: all of them, or up to the end of the
 * file, or up to an error that came after some. */
P9_MUST_USE int64_t p9_session_read(struct p9_session *s, const struct p9_handle *h, uint64_t offset, void *buf,
				    size_t n);
P9_MUST_USE int64_t p9_session_write(struct p9_session *s, const struct p9_handle *h, uint64_t offset, const void *buf,
				     size_t n);
P9_MUST_USE int p9_session_fstat(struct p9_session *s, const struct p9_handle *h, struct p9_rgetattr *st);
P9_MUST_USE int p9_session_ftruncate(struct p9_session *s, const struct p9_handle *h, uint64_t size);
P9_MUST_USE int p9_session_fsync(struct p9_session *s, const struct p9_handle *h, bool datasync);
/* The handle is gone, whatever the answer. */
int p9_session_close(struct p9_session *s, struct p9_handle *h);

/* ---- whole files ---- */
/* Returns the file's length; -P9_EFBIG when it is longer than cap (buf is filled then). */
P9_MUST_USE int64_t p9_session_read_file(struct p9_session *s, const char *path, void *buf, size_t cap);
/* Makes or replaces. Returns 0. */
P9_MUST_USE int p9_session_write_file(struct p9_session *s, const char *path, const void *buf, size_t n, uint32_t mode);
/* Writes behind the end of a file that may not be there yet. Returns 0. */
P9_MUST_USE int p9_session_append(struct p9_session *s, const char *path, const void *buf, size_t n, uint32_t mode);

/* ---- directories ---- */
struct p9_entry {
	struct p9_str name; /* not terminated */
	struct p9_qid qid;
	uint8_t type; /* DT_xxx, as the server says: 4 directory, 8 file, 10 link... */
	const struct p9_rgetattr
		*st; /* its attributes, links not followed; NULL when not asked for, or not to be had */
};
/* Called for each entry but "." and "..". Not 0 ends the listing with that value. */
typedef int p9_entry_fn(void *arg, const struct p9_entry *entry);
struct p9_lister {
	p9_entry_fn *each;
	void *arg;
	bool sizes;   /* fill in st: three more requests an entry, 8 entries at a time */
	uint8_t *buf; /* NULL: the session's own, which one listing at a time can have (-P9_EBUSY) */
	uint32_t cap; /* of buf, 1 KiB at least */
};
/* `each` may use the session, and list with a buffer of its own. A server whose listing goes in a circle is -P9_EIO. */
P9_MUST_USE int p9_session_list(struct p9_session *s, const char *path, const struct p9_lister *l);
P9_MUST_USE int p9_session_mkdir(struct p9_session *s, const char *path, uint32_t mode);
P9_MUST_USE int p9_session_unlink(struct p9_session *s, const char *path);
P9_MUST_USE int p9_session_rmdir(struct p9_session *s, const char *path);
/* Either: what is there, file or empty directory. */
P9_MUST_USE int p9_session_remove(struct p9_session *s, const char *path);
P9_MUST_USE int p9_session_rename(struct p9_session *s, const char *from, const char *to);
/* `target` is the text of the new link at `path`. */
P9_MUST_USE int p9_session_symlink(struct p9_session *s, const char *target, const char *path);
/* Hard link `path` to the file `from`, which is not followed when it is a link. */
P9_MUST_USE int p9_session_link(struct p9_session *s, const char *from, const char *path);
/* Terminated text; returns its length. -P9_ERANGE when it does not fit. */
P9_MUST_USE int p9_session_readlink(struct p9_session *s, const char *path, char *buf, size_t cap);

/* ---- attributes ---- */
P9_MUST_USE int p9_session_stat(struct p9_session *s, const char *path, struct p9_rgetattr *st);
P9_MUST_USE int p9_session_lstat(struct p9_session *s, const char *path, struct p9_rgetattr *st);
/* set->fid is filled in here; links are followed. */
P9_MUST_USE int p9_session_setattr(struct p9_session *s, const char *path, struct p9_tsetattr *set);
P9_MUST_USE int p9_session_truncate(struct p9_session *s, const char *path, uint64_t size);
P9_MUST_USE int p9_session_chmod(struct p9_session *s, const char *path, uint32_t mode);
/* P9_NONUNAME leaves one as it is. */
P9_MUST_USE int p9_session_chown(struct p9_session *s, const char *path, uint32_t uid, uint32_t gid);
/* t[0] is the last access, t[1] the last change; NULL for now. */
P9_MUST_USE int p9_session_utimes(struct p9_session *s, const char *path, const struct p9_time t[2]);
P9_MUST_USE int p9_session_statfs(struct p9_session *s, const char *path, struct p9_rstatfs *st);
/* Returns the size; with cap 0 it is only asked for; -P9_ERANGE when it does not fit. Names come as "user.a\0user.b\0".
 * Links are followed. */
P9_MUST_USE int64_t p9_session_xattr_get(struct p9_session *s, const char *path, const char *name, void *buf,
					 size_t cap);
P9_MUST_USE int64_t p9_session_xattr_list(struct p9_session *s, const char *path, char *buf, size_t cap);
struct p9_xattr {
	const char *name;
	const void *value;
	size_t size;
	uint32_t flags; /* 0, P9_XATTR_CREATE, P9_XATTR_REPLACE */
};
P9_MUST_USE int p9_session_xattr_set(struct p9_session *s, const char *path, const struct p9_xattr *x);
P9_MUST_USE int p9_session_xattr_remove(struct p9_session *s, const char *path, const char *name);

P9_C_END
#endif
