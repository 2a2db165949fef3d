/* SPDX-License-Identifier: BSD-2-Clause */
/* Describes every entry of a tree in a line of text, and compares two such lists. What must come out the same: type, mode,
 * owner, links (which names are one inode), size, time of modification, content, attributes, targets of links; and what
 * readdir says of an entry must be what lstat says. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "diff.h"

struct lines {
	char **line;
	size_t n, room;
	struct { /* inodes with several names: the first name is the label */
		ino_t ino;
		size_t line;
	} * inodes;
	size_t n_inodes, inode_room;
	size_t skip; /* of a path: the root's length */
	bool exact;
};

static uint64_t mix(uint64_t h, const void *data, size_t n)
{
	const unsigned char *p = data;
	for (size_t i = 0; i < n; i++) {
		h = (h ^ p[i]) * 0x100000001b3;
	}
	return h;
}

static int compare_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void *grown(void *p, size_t *room, size_t n, size_t each)
{
	if (n < *room) {
		return p;
	}
	*room = *room ? *room * 2 : 256;
	p = realloc(p, *room * each);
	if (!p) {
		abort();
	}
	return p;
}

static void describe_content(const char *path, char *to, size_t room)
{
	static unsigned char buffer[1 << 17];
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) {
		snprintf(to, room, " open:%s", strerrorname_np(errno));
		return;
	}
	uint64_t h = 0xcbf29ce484222325, total = 0;
	ssize_t n;
	while ((n = read(fd, buffer, sizeof buffer)) > 0) {
		h = mix(h, buffer, (size_t)n);
		total += (uint64_t)n;
	}
	if (n < 0) {
		snprintf(to, room, " read:%s", strerrorname_np(errno));
	} else {
		snprintf(to, room, " content=%llu:%016llx", (unsigned long long)total, (unsigned long long)h);
	}
	close(fd);
}

static void describe_xattrs(const char *path, char *to, size_t room)
{
	static char names[1 << 16], value[1 << 16];
	char *sorted[512];
	size_t n_names = 0, used = 0;
	ssize_t n = llistxattr(path, names, sizeof names);
	if (n < 0) {
		snprintf(to, room, "%s%s",
			 errno == EOPNOTSUPP ? "" : " listxattr:", errno == EOPNOTSUPP ? "" : strerrorname_np(errno));
		return;
	}
	for (char *p = names; p < names + n && n_names < 512; p += strlen(p) + 1) {
		sorted[n_names++] = p;
	}
	qsort(sorted, n_names, sizeof *sorted, compare_text);
	to[0] = 0;
	for (size_t i = 0; i < n_names && used < room; i++) {
		ssize_t size = lgetxattr(path, sorted[i], value, sizeof value);
		if (size < 0) {
			used += (size_t)snprintf(to + used, room - used, " %s:%s", sorted[i], strerrorname_np(errno));
		} else {
			used += (size_t)snprintf(to + used, room - used, " %s=%zd:%08x", sorted[i], size,
						 (unsigned)mix(0xcbf29ce484222325, value, (size_t)size));
		}
	}
}

static unsigned char type_of(mode_t mode)
{
	return (unsigned char)((mode & S_IFMT) >> 12); /* IFTODT */
}

static void add(struct lines *all, char *line)
{
	all->line = grown(all->line, &all->room, all->n, sizeof *all->line);
	all->line[all->n++] = line;
}

static const char *label_of(struct lines *all, const struct stat *st, const char *path)
{
	if (S_ISDIR(st->st_mode) || st->st_nlink < 2) {
		return "";
	}
	for (size_t i = 0; i < all->n_inodes; i++) {
		if (all->inodes[i].ino == st->st_ino) {
			return all->line[all->inodes[i].line] + 1;
		}
	}
	all->inodes = grown(all->inodes, &all->inode_room, all->n_inodes, sizeof *all->inodes);
	all->inodes[all->n_inodes].ino = st->st_ino;
	all->inodes[all->n_inodes++].line = all->n;
	return path;
}

/* One entry. listed, ino: what readdir said; 255 for the root. */
static void describe(struct lines *all, const char *path, unsigned char listed, ino_t ino, struct stat *st)
{
	static char more[1 << 17];
	char *line = NULL;
	const char *name = path + all->skip;
	if (lstat(path, st) < 0) {
		memset(st, 0, sizeof *st);
		if (asprintf(&line, "%s lstat:%s", name, strerrorname_np(errno)) < 0) {
			abort();
		}
		add(all, line);
		return;
	}
	char when[64] = "recent", size[32] = "", wrong[64] = "", target[PATH_MAX] = "";
	if (all->exact || st->st_mtime < EXPLICIT) {
		snprintf(when, sizeof when, "%lld.%09ld", (long long)st->st_mtime, st->st_mtim.tv_nsec);
	}
	if (!S_ISDIR(st->st_mode) || all->exact) {
		snprintf(size, sizeof size, " size=%lld", (long long)st->st_size);
	}
	if (listed != 255 && listed != type_of(st->st_mode) && listed != DT_UNKNOWN) {
		snprintf(wrong, sizeof wrong, " READDIR-TYPE=%u", listed);
	} else if (listed != 255 && ino != st->st_ino) {
		snprintf(wrong, sizeof wrong, " READDIR-INO=%llu, not %llu", (unsigned long long)ino,
			 (unsigned long long)st->st_ino);
	}
	more[0] = 0;
	if (S_ISREG(st->st_mode)) {
		describe_content(path, more, sizeof more);
	} else if (S_ISLNK(st->st_mode)) {
		ssize_t n = readlink(path, target, sizeof target - 1);
		snprintf(more, sizeof more, " -> %.*s", (int)(n < 0 ? 0 : n), target);
	}
	size_t used = strlen(more);
	describe_xattrs(path, more + used, sizeof more - used);
	if (asprintf(&line, "%s mode=%o uid=%u gid=%u nlink=%lu%s mtime=%s%s%s same-as=%.200s", name, st->st_mode,
		     st->st_uid, st->st_gid, (unsigned long)st->st_nlink, size, when, more, wrong,
		     label_of(all, st, name)) < 0) {
		abort();
	}
	add(all, line);
}

struct found {
	char *name;
	unsigned char type;
	ino_t ino;
};

static int compare_found(const void *a, const void *b)
{
	return strcmp(((const struct found *)a)->name, ((const struct found *)b)->name);
}

/* The entries of a directory, by name; n < 0: errno. */
static struct found *list(const char *path, ssize_t *n)
{
	DIR *d = opendir(path);
	struct found *all = NULL;
	size_t room = 0;
	*n = 0;
	if (!d) {
		*n = -errno;
		return NULL;
	}
	errno = 0;
	for (struct dirent *e; (e = readdir(d)); errno = 0) {
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) {
			all = grown(all, &room, (size_t)*n, sizeof *all);
			all[(*n)++] = (struct found){ strdup(e->d_name), e->d_type, e->d_ino };
		}
	}
	int err = errno;
	closedir(d);
	if (all) {
		qsort(all, (size_t)*n, sizeof *all, compare_found);
	}
	if (err) {
		for (ssize_t i = 0; i < *n; i++) {
			free(all[i].name);
		}
		free(all);
		*n = -err;
		return NULL;
	}
	return all;
}

/* A directory and what is below: without recursion, for trees may become deep. */
static void walk(struct lines *all, const char *root)
{
	char **todo = NULL;
	size_t n_todo = 0, room = 0;
	struct stat st;
	all->skip = strlen(root);
	describe(all, root, 255, 0, &st);
	todo = grown(todo, &room, 0, sizeof *todo);
	todo[n_todo++] = strdup(root);
	while (n_todo > 0) {
		char *here = todo[--n_todo];
		ssize_t n;
		struct found *entries = list(here, &n);
		char *line = NULL;
		if (n < 0 && asprintf(&line, "%s opendir:%s", here + all->skip, strerrorname_np((int)-n)) > 0) {
			add(all, line);
		}
		for (ssize_t i = 0; i < n; i++) {
			char *path = NULL;
			if (asprintf(&path, "%s/%s", here, entries[i].name) < 0) {
				abort();
			}
			describe(all, path, entries[i].type, entries[i].ino, &st);
			free(entries[i].name);
			if (S_ISDIR(st.st_mode)) {
				todo = grown(todo, &room, n_todo, sizeof *todo);
				todo[n_todo++] = path;
			} else {
				free(path);
			}
		}
		free(entries);
		free(here);
	}
	free(todo);
}

static void forget(struct lines *all)
{
	for (size_t i = 0; i < all->n; i++) {
		free(all->line[i]);
	}
	free(all->line);
	free(all->inodes);
}

bool tree_equal(const char *one, const char *other, bool exact, FILE *to)
{
	struct lines a = { .exact = exact }, b = { .exact = exact };
	walk(&a, one);
	walk(&b, other);
	size_t i = 0, j = 0, shown = 0;
	while (i < a.n || j < b.n) {
		int side = i == a.n ? 1 : j == b.n ? -1 : strcmp(a.line[i], b.line[j]);
		if (side == 0) {
			i++;
			j++;
			continue;
		}
		if (shown++ < 6) {
			fprintf(to, "trees differ:\n  in %s:\n    %.600s\n  in %s:\n    %.600s\n", one,
				i < a.n ? a.line[i] : "(no more)", other, j < b.n ? b.line[j] : "(no more)");
		}
		i += i < a.n;
		j += j < b.n;
	}
	forget(&a);
	forget(&b);
	return shown == 0;
}

void tree_remove(const char *path)
{
	/* Directories may have any mode; only root does without. */
	char *argv[] = {
		"sh", "-c",	    "rm -rf -- \"$1\" 2>/dev/null || { chmod -R u+rwx \"$1\"; rm -rf -- \"$1\"; }",
		"sh", (char *)path, NULL
	};
	pid_t pid = fork();
	if (pid == 0) {
		execvp("sh", argv);
		_exit(127);
	}
	int status;
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
	}
}
