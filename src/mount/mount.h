/* SPDX-License-Identifier: BSD-2-Clause */
/* mount.h - a server's tree as a directory of this machine, by FUSE. For src/p9/cmd_mount.c. */
#ifndef P9_MOUNT_MOUNT_H
#define P9_MOUNT_MOUNT_H
#include <stdbool.h>
#include "p9/client.h"

#define P9_MOUNT_READAHEAD (1u << 20) /* bytes */

enum p9_mount_cache { P9_CACHE_NONE, P9_CACHE_ATTR, P9_CACHE_LOOSE };

struct p9_mount_opts {
	enum p9_mount_cache cache;
	double attr_timeout, entry_timeout, negative_timeout; /* seconds; below 0: what `cache` says */
	uint32_t readahead;				      /* bytes; 0: the default */
	uint32_t max_read;     /* bytes of one read or write request of the kernel; 0: the default */
	unsigned timeout;      /* seconds for a request; 0: for ever */
	unsigned busy_poll;    /* most microseconds to look for a reply before it is waited for */
	unsigned max_fids;     /* fids kept for files that are known but not open */
	bool writeback;	       /* the kernel gathers writes */
	bool permissions;      /* the kernel checks modes */
	bool nopipeline;       /* never send a request that needs the one before it */
	bool set_uid, set_gid; /* show uid and gid below as the owner of everything */
	uint32_t uid, gid;
	uint32_t attached; /* whom the connection is attached as */
	char *fsname;	   /* what mount(8) shows as the source, allocated */
	char *fuse;	   /* options for libfuse and the kernel, comma list, allocated */
	/* For the connection; NULL and 0 when they were not given. */
	char *server, *aname;
	uint32_t msize;
};

void p9_mount_opts_init(struct p9_mount_opts *o);
void p9_mount_opts_fini(struct p9_mount_opts *o);
/* Reads a comma list as mount(8) has it ("\," for a comma in a value). With `lenient`, dev and suid are taken for the
 * habit of mount.fuse(8) of always adding them. Returns 0, or -P9_EINVAL with the reason in err. */
P9_MUST_USE int p9_mount_opts_parse(struct p9_mount_opts *o, const char *list, bool lenient, char *err, size_t cap);

struct p9_mount;
/* Mounts the tree of a connected client at a directory; the client becomes the mount's. NULL with the reason in err. */
struct p9_mount *p9_mount_new(struct p9_client *c, const char *dir, const struct p9_mount_opts *o, char *err,
			      size_t cap);
/* Serves until it is unmounted or a signal ends it. `ready`, if not NULL, is called once the kernel and the mount have
 * agreed, from where on every access is answered. Returns 0 or -P9_Exxx. */
P9_MUST_USE int p9_mount_run(struct p9_mount *m, void (*ready)(void *arg), void *arg);
/* Unmounts if need be, ends the connection, frees. Accepts NULL. */
void p9_mount_free(struct p9_mount *m);
/* False when p9 was built without FUSE. */
bool p9_mount_built_in(void);

#endif
