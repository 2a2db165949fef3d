/* SPDX-License-Identifier: BSD-2-Clause */
/* none.c - the mount of a p9 that was built without FUSE: it says so. */
#include <stdio.h>
#include "mount/mount.h"

bool p9_mount_built_in(void)
{
	return false;
}

struct p9_mount *p9_mount_new(struct p9_client *c, const char *dir, const struct p9_mount_opts *o, char *err,
			      size_t cap)
{
	(void)c;
	(void)dir;
	(void)o;
	snprintf(err, cap, "p9 was built without FUSE");
	return NULL;
}

int p9_mount_run(struct p9_mount *m, void (*ready)(void *arg), void *arg)
{
	(void)m;
	(void)ready;
	(void)arg;
	return -P9_EOPNOTSUPP;
}

void p9_mount_free(struct p9_mount *m)
{
	(void)m;
}
