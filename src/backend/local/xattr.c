/* SPDX-License-Identifier: BSD-2-Clause */
/* xattr.c - extended attributes of a pinned inode.
 *
 * O_PATH descriptors have no fgetxattr(2), so the calls go through the magic link below /proc, which names the inode
 * itself, a symbolic link included. Without the export option xattr=all a client sees user.* and the POSIX ACLs only:
 * trusted.* and security.* belong to the host's administrator.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include "backend/local/local.h"

static bool starts(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

static bool allowed(const struct lroot *r, const char *name)
{
	return r->conf.xattr_all || starts(name, "user.") || strcmp(name, "system.posix_acl_access") == 0 ||
	       strcmp(name, "system.posix_acl_default") == 0;
}

/* Leaves the names that may be seen; returns the new length. */
static ssize_t filter(const struct lroot *r, char *list, ssize_t len)
{
	ssize_t out = 0;
	for (ssize_t i = 0; i < len;) {
		ssize_t n = (ssize_t)strnlen(list + i, (size_t)(len - i)) + 1;
		if (n > len - i) {
			break;
		}
		if (allowed(r, list + i)) {
			memmove(list + out, list + i, (size_t)n);
			out += n;
		}
		i += n;
	}
	return out;
}

static int list_names(struct p9_caller *c, const struct lroot *r, const char *proc, struct iovec out)
{
	char few[512], *list = few, *much = NULL;
	ssize_t n;
	LRETRY(c, n, listxattr(proc, few, sizeof(few)));
	if (n < 0 && errno == ERANGE) {
		list = much = malloc(P9_XATTR_MAX);
		if (!much) {
			return -P9_ENOMEM;
		}
		LRETRY(c, n, listxattr(proc, list, P9_XATTR_MAX));
	}
	int rc = n < 0 ? (errno == ERANGE ? -P9_E2BIG : p9_err()) : (int)filter(r, list, n);
	if (rc > 0 && out.iov_len > 0) {
		if ((size_t)rc > out.iov_len) {
			rc = -P9_ERANGE;
		} else {
			memcpy(out.iov_base, list, (size_t)rc);
		}
	}
	free(much);
	return rc;
}

int local_getxattr(struct p9_caller *c, struct p9_node *n, struct p9_str which, void *buf, size_t cap)
{
	char name[P9_NAMEMAX + 1], proc[40];
	ssize_t len;
	int rc = lident_enter(c);
	if (rc < 0) {
		return rc;
	}
	lproc_path(proc, LNODE(n)->self->fd);
	if (which.len == 0) {
		return list_names(c, LROOT(n), proc, (struct iovec){ buf, cap });
	}
	lname_copy(name, which);
	if (!allowed(LROOT(n), name)) {
		return -P9_EOPNOTSUPP;
	}
	LRETRY(c, len, getxattr(proc, name, buf, cap));
	return len < 0 ? p9_err() : (int)len;
}

int local_setxattr(struct p9_caller *c, struct p9_node *n, struct p9_str which, const void *value, size_t size,
		   uint32_t flags)
{
	char name[P9_NAMEMAX + 1], proc[40];
	int rc = lident_enter(c);
	if (rc < 0) {
		return rc;
	}
	lname_copy(name, which);
	if (!allowed(LROOT(n), name)) {
		return -P9_EOPNOTSUPP;
	}
	lproc_path(proc, LNODE(n)->self->fd);
	if (value) {
		int host =
			(flags & P9_XATTR_CREATE ? XATTR_CREATE : 0) | (flags & P9_XATTR_REPLACE ? XATTR_REPLACE : 0);
		LRETRY(c, rc, setxattr(proc, name, value, size, host));
	} else {
		LRETRY(c, rc, removexattr(proc, name));
	}
	return rc < 0 ? p9_err() : 0;
}
