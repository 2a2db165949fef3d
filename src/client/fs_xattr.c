/* SPDX-License-Identifier: BSD-2-Clause */
/* fs_xattr.c - extended attributes by path.
 *
 * A server's size of an attribute is compared with the protocol's bound and the caller's memory before anything is read.
 */
#include <string.h>
#include "client/fs.h"

/* Reads the `size` bytes of an attribute's fid. A value that ends early has changed meanwhile, or the server lies. */
static int read_value(struct p9_client *c, uint32_t fid, uint8_t *buf, size_t size)
{
	size_t got = 0;
	while (got < size) {
		int rc = p9_client_read(c, fid, got, buf + got, (uint32_t)(size - got));
		if (rc <= 0) {
			return rc < 0 ? rc : p9_client_set_error(c, P9_EIO);
		}
		got += (size_t)rc;
	}
	return (int)size;
}

static int get_of(struct p9_client *c, uint32_t fid, const char *name, void *buf, size_t cap)
{
	uint32_t newfid;
	int rc = p9_client_fid(c, &newfid);
	struct p9_msg r, t = { .type = P9_Txattrwalk, .txattrwalk = { .fid = fid, .name = p9_client_str(name) } };
	t.txattrwalk.newfid = newfid;
	rc = rc < 0 ? rc : p9_client_call(c, &t, NULL, &r);
	if (rc < 0) {
		return rc;
	}
	uint64_t size = r.rxattrwalk.size;
	if (size > P9_XATTR_MAX) {
		return p9_fs_end(c, newfid, -P9_E2BIG);
	}
	if (cap == 0) {
		return p9_fs_end(c, newfid, (int)size);
	}
	return p9_fs_end(c, newfid, size > cap ? -P9_ERANGE : read_value(c, newfid, buf, (size_t)size));
}

ssize_t p9_getxattr(struct p9_client *c, const char *path, int follow, const char *name, void *buf, size_t cap)
{
	uint32_t fid;
	if (!name[0]) { /* that would be the list */
		return p9_client_set_error(c, P9_EINVAL);
	}
	int rc = p9_client_walk(c, path, follow, &fid);
	return rc < 0 ? rc : p9_fs_end(c, fid, get_of(c, fid, name, buf, cap));
}

ssize_t p9_listxattr(struct p9_client *c, const char *path, int follow, void *buf, size_t cap)
{
	uint32_t fid;
	int rc = p9_client_walk(c, path, follow, &fid);
	return rc < 0 ? rc : p9_fs_end(c, fid, get_of(c, fid, "", buf, cap));
}

int p9_setxattr(struct p9_client *c, const char *path, int follow, const char *name, const struct p9_data *value,
		uint32_t flags)
{
	uint32_t fid;
	int rc = p9_client_walk(c, path, follow, &fid);
	return rc < 0 ? rc : p9_fs_end(c, fid, p9_client_xattr_set(c, fid, name, value, flags));
}

int p9_removexattr(struct p9_client *c, const char *path, int follow, const char *name)
{
	uint32_t fid;
	int rc = p9_client_walk(c, path, follow, &fid);
	return rc < 0 ? rc : p9_fs_end(c, fid, p9_client_xattr_remove(c, fid, name));
}
