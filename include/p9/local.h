/* SPDX-License-Identifier: BSD-2-Clause */
/* local.h - the backend that serves a directory of the host. */
#ifndef P9_PUBLIC_LOCAL_H
#define P9_PUBLIC_LOCAL_H
#include "p9/backend.h"

struct p9_local_config {
	const char *path;
	bool ro;	/* read-only */
	bool dev;	/* device nodes may be made */
	bool xattr_all; /* trusted.* and security.* too, not only user.* and POSIX ACLs */
	bool submounts; /* file systems mounted below path when the server starts are part of the export */
};

extern const struct p9_backend p9_local;

struct lroot;
/* Opens the directory. Call before privileges are dropped: with CAP_SYS_ADMIN the export becomes a detached mount of
 * its own (nodev, nosuid, read-only if asked). Returns 0 or -P9_Exxx and a reason in err. */
P9_MUST_USE int p9_local_open(const struct p9_local_config *conf, struct lroot **out, char *err, size_t cap);
void p9_local_close(struct lroot *root);
/* Whether the kernel itself contains the export (see p9_local_open). */
bool p9_local_contained(const struct lroot *root);
/* The tree a root node belongs to, for struct p9_node.tree. Set before the first attach. */
void p9_local_set_tree(struct lroot *root, void *tree);

/* ---- for another process that goes on in our place (base/pack.h) ---- */
/* The numbers that devices and large inode numbers have got: qids stay what they are. To be read before any root is
 * opened. */
void p9_local_pack_ids(struct p9_pack *p);
void p9_local_unpack_ids(struct p9_unpack *u);
/* A root with its descriptor: in a mount of its own, links and renames between old fids and new ones would be EXDEV. */
void p9_local_pack(const struct lroot *root, struct p9_pack *p);
struct lroot *p9_local_unpack(const struct p9_local_config *conf, struct p9_unpack *u);
/* Begins numbering anew, and drops all locks: for tests that read many states. */
void p9_local_forget_ids(void);
void p9_local_forget_locks(struct lroot *root);
/* Whether the path still leads to this root. */
bool p9_local_same(const struct lroot *root, const char *path);

#endif
