/* SPDX-License-Identifier: BSD-2-Clause */
/* fs.h - what the files fs_*.c share; the public half is include/p9/fs.h. */
#ifndef P9_CLIENT_FS_H
#define P9_CLIENT_FS_H
#include "client/internal.h"
#include "p9/fs.h"

struct p9_fh {
	struct p9_client *client;
	uint32_t fid, flags, chunk; /* chunk: bytes of one request */
	uint64_t at;
};

enum {
	P9_DT_UNKNOWN,
	P9_DT_FIFO = 1,
	P9_DT_CHR = 2,
	P9_DT_DIR = 4,
	P9_DT_BLK = 6,
	P9_DT_REG = 8,
	P9_DT_LNK = 10,
	P9_DT_SOCK = 12
};

/* ---- fs_path.c ---- */
/* Gives a fid back and returns rc, with the text for it when it is an error. */
P9_MUST_USE int p9_fs_end(struct p9_client *c, uint32_t fid, int rc);
/* Whether attributes make sense. Returns 0 or -P9_EPROTO. */
P9_MUST_USE int p9_fs_judge(struct p9_client *c, const struct p9_rgetattr *st);
P9_MUST_USE int p9_fs_getattr(struct p9_client *c, uint32_t fid, struct p9_rgetattr *st);
/* The type of an entry from its attributes' mode. */
uint8_t p9_fs_type(uint32_t mode);

/* ---- fs_file.c ---- */
/* Opens a fid that was walked, and takes it over: it is clunked on errors. */
P9_MUST_USE int p9_fh_open(struct p9_client *c, uint32_t fid, uint32_t flags, struct p9_fh **out);
/* Makes a file that is not there, in the directory `dir`, which stays the caller's. */
P9_MUST_USE int p9_fh_make(struct p9_client *c, uint32_t dir, const char *name, uint32_t flags, uint32_t mode,
			   struct p9_fh **out);

/* ---- fs_stream.c ---- */
struct p9_stream {
	struct p9_fh *file;
	uint64_t offset, size; /* size: where a reading is expected to end */
	uint64_t limit;	       /* nothing is asked for or written from here on; 0 for no limit, not with memory */
	uint8_t *memory;       /* the bytes themselves; or NULL, then: */
	/* As of struct p9_xfer, on the thread of p9_fs_stream(), which waits. */
	int (*data)(void *arg, uint64_t offset, uint8_t *buf, uint32_t n);
	void *arg;
	bool writing;
	uint64_t moved; /* out */
	unsigned most;	/* out: the window at the end */
};
P9_MUST_USE int p9_fs_stream(struct p9_stream *s);

/* ---- fs_dir.c ---- */
/* Lists a directory's fid, which stays the caller's and must stay walkable and in place. */
P9_MUST_USE int p9_dir_of(struct p9_client *c, uint32_t fid, unsigned flags, struct p9_fs_dir **out);
/* Lets go of buffers and of the fid that is open; p9_dir_next() goes on by itself where it was. */
void p9_dir_park(struct p9_fs_dir *d);

#endif
