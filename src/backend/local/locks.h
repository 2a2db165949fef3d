/* SPDX-License-Identifier: BSD-2-Clause */
/* locks.h - the table of locks of an export, for lock.c, which takes and releases them, and lock_pack.c, which gives them to
 * another process. All of it under the mutex.
 */
#ifndef P9_LOCAL_LOCKS_H
#define P9_LOCAL_LOCKS_H
#include "backend/local/local.h"

#define BUCKETS 256u
#define NAME_UNIT 256u	 /* so many bytes of an owner's name count as one range */
#define TO_EOF ((uint64_t)INT64_MAX)

struct range {
	struct range *next;
	uint64_t start, end; /* both inclusive */
	uint8_t type;
	const void *fid;
};
struct owner {
	struct owner *next;
	const void *session;
	_Atomic unsigned *held;
	struct range *ranges;
	uint32_t proc_id;
	int fd;
	bool writable;
	uint16_t client_len;
	char client_id[];
};
struct inode {
	struct inode *next;
	uint32_t major, minor;
	uint64_t ino;
	struct owner *owners;
};

/* One per export, so that a file system that hangs holds up nobody else's locks. */
struct llocks {
	pthread_mutex_t mutex;
	struct inode *table[BUCKETS];
};

/* Where the inode is in its list, or would be. */
struct inode **llocks_find(struct llocks *l, uint32_t major, uint32_t minor, uint64_t ino);
/* Removes owners without ranges, then inodes without owners. */
void llocks_tidy(struct inode **pi);

#endif
