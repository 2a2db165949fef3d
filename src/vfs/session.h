/* SPDX-License-Identifier: BSD-2-Clause */
/* session.h - what the files of a session share: the struct, the walker, fids that are let go.
 *
 * Must stay true: whoever gets a fid from p9_walk() or p9_session_fid() gives it back on every path, with
 * p9_session_let_go() or with a call that ends it; `text` is the walker's, and only between two walks free for others.
 */
#ifndef P9_VFS_SESSION_H
#define P9_VFS_SESSION_H
#include "p9/session.h"
#include "engine/engine.h"

#define P9_WALK_TEXT 8192 /* a link's text (4095) and as much path behind it */

struct p9_session {
	struct p9_engine engine;
	struct p9_port *port;
	struct p9_session_call forgotten; /* of requests whose reply nobody waits for */
	uint32_t root, gid;
	uint8_t *dir; /* buffer for listings */
	uint32_t dir_size;
	bool listing;		 /* dir is in use */
	char text[P9_WALK_TEXT]; /* what the walker has still to walk, once it has met a link */
};

enum p9_walk_how {
	P9_WALK_STAY = 0,    /* the last element's link is not followed */
	P9_WALK_LINK = 1,    /* it is */
	P9_WALK_PARENT = 2,  /* stop before the last element: `fid` is its directory, `name` the element */
	P9_WALK_MISSING = 4, /* when just the last element is not there, answer as for PARENT, and set `missing` */
};
struct p9_place {
	uint32_t fid; /* may be the root's, which p9_session_let_go() knows */
	struct p9_qid qid;
	bool missing;
	uint16_t name_len;
	char name[P9_NAMEMAX + 1];
};
P9_MUST_USE int p9_walk(struct p9_session *s, const char *path, int how, struct p9_place *out);
/* Makes sure that a fid is not the root's, so that it can be opened or made into something else. On failure it has been
 * let go. */
P9_MUST_USE int p9_walk_own(struct p9_session *s, uint32_t *fid);

/* Clunks without waiting for the answer. The root's fid and NOFID stay. */
void p9_session_let_go(struct p9_session *s, uint32_t fid);
/* rc when it is an error, else what comes of `msg`; then lets `fid` go. The usual end of a call. */
int p9_session_last(struct p9_session *s, uint32_t fid, int rc, struct p9_msg *msg);

static inline struct p9_str p9_session_str(const char *s)
{
	size_t n = 0;
	while (s && s[n] && n < UINT16_MAX) {
		n++;
	}
	return (struct p9_str){ s, (uint16_t)n };
}
static inline struct p9_str p9_place_name(const struct p9_place *p)
{
	return (struct p9_str){ p->name, p->name_len };
}

#endif
