/* SPDX-License-Identifier: BSD-2-Clause */
/* users.c - who a Tattach is for: squash rules, the host's user database, what the socket knows of the peer.
 *
 * n_uname counts when it is given; else uname is looked up. Look-ups may block (NSS can mean a network), so this runs
 * where calls run, never between them. On a Unix socket a peer that is not root can only be itself. Over TCP the
 * numbers are the client's word, as with NFS's AUTH_SYS; root is nobody there unless the export says squash=none.
 */
#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "server/internal.h"

#define NOBODY 65534u
#define GROUPS_MAX 65536
#define PW_BUFFER 16384

static struct p9_cred *cred_new(uint32_t ngroups)
{
	struct p9_cred *c = calloc(1, sizeof(*c) + ngroups * sizeof(uint32_t));
	if (c) {
		atomic_init(&c->refs, 1);
	}
	return c;
}

static bool parse_number(const struct p9_str *s, uint32_t *out)
{
	uint64_t v = 0;
	for (unsigned i = 0; i < s->len; i++) {
		if (!isdigit((unsigned char)s->s[i]) || v > UINT32_MAX) {
			return false;
		}
		v = v * 10 + (uint64_t)(s->s[i] - '0');
	}
	*out = (uint32_t)v;
	return s->len > 0 && v < UINT32_MAX;
}

/* uid for a name. -P9_EPERM when there is none. */
static int look_up_name(const struct p9_conn *conn, const struct p9_str *uname, uint32_t *uid)
{
	char name[P9_UNAME_MAX], *buf = malloc(PW_BUFFER);
	struct passwd pw, *found = NULL;
	if (!buf) {
		return -P9_ENOMEM;
	}
	size_t n = uname->len < sizeof(name) ? uname->len : sizeof(name) - 1;
	memcpy(name, uname->s, n);
	name[n] = 0;
	bool ok = n > 0 && n == uname->len && !memchr(name, 0, n) &&
		  getpwnam_r(name, &pw, buf, PW_BUFFER, &found) == 0 && found;
	if (ok) {
		*uid = pw.pw_uid;
	}
	free(buf);
	if (ok || parse_number(uname, uid)) {
		return 0;
	}
	p9_log_some(
		&conn->srv->complaints, P9_LOG_WARN,
		"%s: attach refused: user \"%s\" is not known here and no n_uname was sent; add the user, mount with "
		"access=<uid> or uname=<uid>, or serve with --identity single or the export option squash=all",
		conn->peer.text, name);
	return -P9_EPERM;
}

static struct p9_cred *cred_of(uint32_t uid)
{
	char *buf = malloc(PW_BUFFER);
	struct passwd pw, *found = NULL;
	gid_t *groups = NULL, gid = uid == 0 ? 0 : NOBODY;
	int n = 0;
	int failed = buf ? getpwuid_r(uid, &pw, buf, PW_BUFFER, &found) : ENOMEM;
	if (failed && failed != ENOENT && failed != ESRCH) {
		free(buf);
		return NULL; /* better nobody than the wrong groups */
	}
	if (found) {
		gid = pw.pw_gid;
		getgrouplist(pw.pw_name, gid, NULL, &n);
		groups = n > 0 && n <= GROUPS_MAX ? calloc((size_t)n, sizeof(*groups)) : NULL;
		if (!groups || getgrouplist(pw.pw_name, gid, groups, &n) < 0) {
			n = 0;
		}
	}
	free(buf);
	struct p9_cred *c = cred_new((uint32_t)n);
	if (c) {
		c->uid = uid;
		c->gid = gid;
		c->ngroups = (uint32_t)n;
		for (int i = 0; i < n; i++) {
			c->groups[i] = groups[i];
		}
	}
	free(groups);
	return c;
}

static uint32_t squash(const struct p9_conn *conn, const struct p9_export *ex, uint32_t uid)
{
	enum p9_squash s = ex->conf.squash;
	if (s == P9_SQUASH_AUTO) {
		s = conn->peer.kind == P9_PEER_TCP ? P9_SQUASH_ROOT : P9_SQUASH_NONE;
	}
	return s == P9_SQUASH_ALL || (s == P9_SQUASH_ROOT && uid == 0) ? NOBODY : uid;
}

static bool client_checks(const struct p9_conn *conn, const struct p9_export *ex)
{
	if (conn->peer.kind != P9_PEER_GUEST && conn->peer.known && conn->peer.uid != 0) {
		return false; /* no kernel: an ordinary process */
	}
	if (ex->conf.checks != P9_CHECKS_AUTO) {
		return ex->conf.checks == P9_CHECKS_CLIENT;
	}
	return conn->peer.kind == P9_PEER_GUEST ||
	       (conn->peer.kind == P9_PEER_UNIX && conn->peer.known && conn->peer.uid == 0);
}

int p9_users_cred(const struct p9_conn *conn, const struct p9_export *ex, const struct p9_tattach *m,
		  struct p9_cred **out)
{
	uint32_t uid = m->n_uname;
	if (!conn->srv->conf.users) {
		*out = cred_new(0);
		if (*out) {
			(*out)->daemon = true;
			(*out)->uid = geteuid();
			(*out)->gid = getegid();
		}
		return *out ? 0 : -P9_ENOMEM;
	}
	int rc = uid != P9_NONUNAME		    ? 0
		 : ex->conf.squash == P9_SQUASH_ALL ? (uid = NOBODY, 0)
						    : look_up_name(conn, &m->uname, &uid);
	if (rc < 0) {
		return rc;
	}
	if (conn->peer.kind == P9_PEER_UNIX && conn->peer.known && conn->peer.uid != 0 && conn->peer.uid != uid &&
	    ex->conf.squash != P9_SQUASH_ALL) {
		p9_log_some(&conn->srv->complaints, P9_LOG_WARN,
			    "%s: attach as user %u refused: the peer is user %u; connect as root or as that user",
			    conn->peer.text, uid, conn->peer.uid);
		return -P9_EPERM;
	}
	uint32_t real = squash(conn, ex, uid);
	*out = cred_of(real);
	if (!*out) {
		return -P9_ENOMEM;
	}
	/* nobody's kernel has checked anything for the user that squashing makes */
	(*out)->checked = client_checks(conn, ex) && real == uid;
	return 0;
}
