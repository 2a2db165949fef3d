/* SPDX-License-Identifier: BSD-2-Clause */
/* dir.c - Treaddir: getdents64(2) reformatted in place, with the file system's own offsets as cookies.
 *
 * No buffer outlives a request. A 9P entry is at most 7/6 of the kernel's (24 + name against at least 20 + name, in
 * steps of 8), so the kernel's entries are read into the last 6/7 of the reply and rewritten forwards: all of them fit,
 * nothing is left over, and the kernel's position stands at the cookie of the last one sent. The next request nearly
 * always goes on there, so a listing never seeks and never reads an entry twice. A reply too small for that takes its
 * entries from a buffer on the stack, and seeks back to the first that did not fit.
 * Requests on one fid come one at a time (proto: Treaddir has order `write`), so the position needs no lock.
 * The qid of an entry has no version: that would cost a stat per entry.
 */
#include <dirent.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "backend/local/local.h"
#include "p9/codec.h"

#define IN_PLACE_MIN 4000u
#define STACK_BUFFER 1024

struct kernel_dirent {
	uint64_t d_ino;
	int64_t d_off;
	uint16_t d_reclen;
	uint8_t d_type;
	char d_name[];
};

static int seek_to(struct p9_caller *c, struct lfile *f, uint64_t offset)
{
	off_t at;
	if (f->dir_known && offset == f->dir_next) {
		return 0;
	}
	f->dir_known = false;
	LRETRY(c, at, lseek(f->io->fd, (off_t)offset, SEEK_SET));
	if (at < 0) {
		return p9_err();
	}
	f->dir_next = offset;
	f->dir_known = true;
	return 0;
}

static uint8_t type_of_entry(const struct lfile *f, const struct kernel_dirent *k)
{
	struct statx st;
	if (k->d_type == DT_UNKNOWN && lstat_name(f->io->fd, k->d_name, &st) == 0) {
		return IFTODT(st.stx_mode);
	}
	return k->d_type;
}

/* name: P9_NAMEMAX + 1 bytes; the entry is copied out, for what is written next may lie over it. */
static void to_entry(const struct lfile *f, const struct kernel_dirent *k, struct p9_dirent *e, char *name)
{
	const struct lnode *n = LNODE(f->base.node);
	const struct lroot *r = n->root;
	size_t len = strnlen(k->d_name, P9_NAMEMAX);
	bool up = len == 2 && k->d_name[0] == '.' && k->d_name[1] == '.';
	bool at_root = n->ino == r->ino && n->minor == r->minor && n->major == r->major;
	e->type = type_of_entry(f, k);
	e->qid.type = e->type == DT_DIR ? P9_QTDIR : e->type == DT_LNK ? P9_QTSYMLINK : P9_QTFILE;
	e->qid.version = 0;
	/* what lies above the export is nobody's business */
	e->qid.path = lqid_path(n->major, n->minor, up && at_root ? r->ino : k->d_ino);
	e->offset = (uint64_t)k->d_off;
	memcpy(name, k->d_name, len);
	e->name = (struct p9_str){ name, (uint16_t)len };
}

/* Rewrites the kernel's entries at in..end to buf; returns bytes written, and in *left how many bytes did not fit. */
static uint32_t rewrite(struct lfile *f, const uint8_t *in, const uint8_t *end, struct iovec out, size_t *left)
{
	uint32_t n = 0;
	while (in < end) {
		const struct kernel_dirent *k = (const struct kernel_dirent *)in;
		char name[P9_NAMEMAX + 1];
		struct p9_dirent e;
		uint16_t reclen = k->d_reclen;
		to_entry(f, k, &e, name);
		size_t len = p9_wire_dirent_put((uint8_t *)out.iov_base + n, out.iov_len - n, &e);
		if (len == 0) {
			break;
		}
		n += (uint32_t)len;
		in += reclen;
		f->dir_next = e.offset;
	}
	*left = (size_t)(end - in);
	return n;
}

int local_readdir(struct p9_caller *c, struct p9_file *base, uint64_t offset, uint8_t *buf, uint32_t cap)
{
	struct lfile *f = LFILE(base);
	uint8_t small[STACK_BUFFER] __attribute__((aligned(8)));
	int rc = lident_enter(c);
	rc = rc < 0 ? rc : seek_to(c, f, offset);
	if (rc < 0) {
		return rc;
	}
	bool in_place = cap >= IN_PLACE_MIN;
	/* the kernel's entries begin on a multiple of 8 */
	uint32_t n = 0;
	size_t left = 0;
	long got;
	do { /* some file systems give less than there is room for */
		uint8_t *at = buf + n;
		uint32_t rest = cap - n;
		uint8_t *in = in_place ? (uint8_t *)(((uintptr_t)at + rest / 7 + 7) & ~(uintptr_t)7) : small;
		size_t room = in_place ? (size_t)(at + rest - in) : sizeof(small);
		LRETRY(c, got, syscall(SYS_getdents64, f->io->fd, in, room));
		if (got <= 0) {
			break;
		}
		uint32_t k = rewrite(f, in, in + got, (struct iovec){ at, rest }, &left);
		if (k == 0 && n == 0) {
			f->dir_known = false;
			return -P9_EINVAL;
		}
		n += k;
	} while (left == 0 && in_place && cap - n >= IN_PLACE_MIN / 2 && cap - n >= cap / 4);
	f->dir_known = left == 0;
	return got < 0 && n == 0 ? p9_err() : (int)n;
}
