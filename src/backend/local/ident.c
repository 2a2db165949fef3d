/* SPDX-License-Identifier: BSD-2-Clause */
/* ident.c - puts a request's user on the thread that runs it.
 *
 * A thread keeps the identity it has put on; the switch (3-6 us) is paid only when the user differs from the last one.
 * fsuid, fsgid, groups and effective capabilities are per thread in the kernel; libc's wrappers would change all
 * threads, so these are raw system calls. CAP_FSETID is never effective: writes clear setuid bits as for any user.
 * checked: the peer's kernel has done the permission checks, so three capabilities stay on beside the user's ids.
 */
#include <linux/capability.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "backend/local/local.h"

#define BIT(cap) (1ull << (cap))
/* What no request ever has, whoever it is for. */
#define NEVER BIT(CAP_FSETID)
/* What changing identity itself takes. */
#define SWITCH (BIT(CAP_SETUID) | BIT(CAP_SETGID))
#define CHECKED (BIT(CAP_DAC_OVERRIDE) | BIT(CAP_DAC_READ_SEARCH) | BIT(CAP_CHOWN) | BIT(CAP_FOWNER))

static int set_caps(uint64_t want)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct d[2];
	if (syscall(SYS_capget, &h, d) < 0) {
		return -1;
	}
	want &= d[0].permitted | (uint64_t)d[1].permitted << 32;
	d[0].effective = (uint32_t)want;
	d[1].effective = (uint32_t)(want >> 32);
	return (int)syscall(SYS_capset, &h, d);
}

static int put_on(const struct p9_cred *cred)
{
	uint64_t caps = cred->uid == 0 ? ~0ull & ~NEVER : cred->checked ? SWITCH | CHECKED : SWITCH;
	if (syscall(SYS_setgroups, cred->ngroups, cred->groups) < 0) {
		return -1;
	}
	syscall(SYS_setfsgid, cred->gid);
	syscall(SYS_setfsuid, cred->uid);
	/* both report failure only by the id not having changed */
	if ((uint32_t)syscall(SYS_setfsgid, -1) != cred->gid || (uint32_t)syscall(SYS_setfsuid, -1) != cred->uid) {
		errno = EPERM;
		return -1;
	}
	return set_caps(caps);
}

int lident_enter(struct p9_caller *c)
{
	if (*c->ident == c->cred || c->cred->daemon) {
		return 0;
	}
	/* the thread holds a reference: a freed cred's address must never be taken for another's */
	struct p9_cred *last = (struct p9_cred *)*c->ident;
	*c->ident = NULL;
	int rc = put_on(c->cred) < 0 ? p9_err() : 0;
	p9_cred_put(last);
	if (rc == 0) {
		*c->ident = p9_cred_get((struct p9_cred *)c->cred);
	}
	return rc;
}

bool lident_may_gid(const struct p9_cred *cred, uint32_t gid)
{
	if (cred->uid == 0 || cred->checked || cred->gid == gid) {
		return true;
	}
	for (uint32_t i = 0; i < cred->ngroups; i++) {
		if (cred->groups[i] == gid) {
			return true;
		}
	}
	return false;
}

int lident_enter_gid(struct p9_caller *c, uint32_t gid)
{
	int rc = lident_enter(c);
	if (rc == 0 && gid != c->cred->gid && gid != P9_NONUNAME && lident_may_gid(c->cred, gid)) {
		syscall(SYS_setfsgid, gid);
	}
	return rc;
}

void lident_give_gid(struct p9_caller *c, int dirfd, const char *name, uint32_t gid)
{
	if (c->cred->daemon && c->cred->uid != 0 && gid != c->cred->gid && gid != P9_NONUNAME) {
		int saved = errno;
		if (fchownat(dirfd, name, (uid_t)-1, gid, AT_SYMLINK_NOFOLLOW) < 0) {
			errno = saved; /* not a group of ours: the file keeps the one it was born with */
		}
	}
}

void lident_leave_gid(struct p9_caller *c, uint32_t gid)
{
	if (gid != c->cred->gid && gid != P9_NONUNAME && lident_may_gid(c->cred, gid)) {
		int saved = errno;
		syscall(SYS_setfsgid, c->cred->gid);
		errno = saved;
	}
}
