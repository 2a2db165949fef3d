/* SPDX-License-Identifier: BSD-2-Clause */
/* Processes that work in one directory, over one mount or over several of the same export. What each sees is a matter of
 * timing; what must hold whatever the timing is checked:
 *  - a name made with O_EXCL, by mkdir, by link, and a lock by fcntl and by flock, has one holder at a time: each guards a
 *    counter, which in the end has been raised once for every success;
 *  - O_APPEND: every record of every process is in the file, once, whole, and in its process's order;
 *  - tokens that are renamed from name to name are never lost or doubled;
 *  - a record that is read is one that somebody wrote, at that place;
 *  - in the end the mounts and the directory beneath hold the same. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "diff.h"

enum { TOKENS = 24, RECORD = 512, PLACES = 64, GUARDS = 5 };

struct counts { /* in memory that all processes share */
	uint64_t entered[GUARDS], appended[64], broken;
};

struct guest {
	const char *mount;
	char dir[PATH_MAX];
	unsigned process;
	uint64_t rng, appended;
	struct counts *counts;
};

struct record {
	uint64_t place, process, number, sum;
	char pad[RECORD - 32];
};

static const char *const guards[GUARDS] = { "excl", "mkdir", "link", "fcntl", "flock" };

static void broken(struct guest *g, const char *what, const char *name, long value)
{
	fprintf(stderr, "FAILED shared: process %u: %s: %s (%ld, %s)\n", g->process, name, what, value,
		strerrorname_np(errno));
	__atomic_add_fetch(&g->counts->broken, 1, __ATOMIC_SEQ_CST);
}

static const char *in(const struct guest *g, const char *format, const char *name)
{
	static char text[4][PATH_MAX + 300];
	static unsigned n;
	char *to = text[n++ % 4];
	int used = snprintf(to, PATH_MAX, "%s/", g->dir);
	snprintf(to + used, 300, format, name);
	return to;
}

/* Raises the counter of a guard by one, without any care: whoever holds the guard is alone. */
static void enter(struct guest *g, unsigned guard)
{
	uint64_t value = 0;
	int fd = open(in(g, "count-%s", guards[guard]), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0) {
		broken(g, "the counter cannot be opened", guards[guard], fd);
		return;
	}
	ssize_t n = pread(fd, &value, sizeof value, 0);
	if (n != 0 && n != sizeof value) {
		broken(g, "the counter cannot be read", guards[guard], n);
	}
	value++;
	if (pwrite(fd, &value, sizeof value, 0) != sizeof value) {
		broken(g, "the counter cannot be written", guards[guard], 0);
	}
	if (close(fd) < 0) {
		broken(g, "close", guards[guard], 0);
	}
	__atomic_add_fetch(&g->counts->entered[guard], 1, __ATOMIC_SEQ_CST);
}

static void by_excl(struct guest *g)
{
	const char *name = in(g, "%s", "excl");
	int fd = open(name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0) {
		if (errno != EEXIST) {
			broken(g, "open with O_EXCL", "excl", fd);
		}
		return;
	}
	close(fd);
	enter(g, 0);
	if (unlink(in(g, "%s", "excl")) < 0) {
		broken(g, "the holder cannot unlink it", "excl", 0);
	}
}

static void by_mkdir(struct guest *g)
{
	if (mkdir(in(g, "%s", "dir"), 0755) < 0) {
		if (errno != EEXIST) {
			broken(g, "mkdir", "mkdir", 0);
		}
		return;
	}
	enter(g, 1);
	if (rmdir(in(g, "%s", "dir")) < 0) {
		broken(g, "the holder cannot remove it", "mkdir", 0);
	}
}

static void by_link(struct guest *g)
{
	char own[32];
	snprintf(own, sizeof own, "own-%u", g->process);
	int fd = open(in(g, "%s", own), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0) {
		broken(g, "open", own, fd);
		return;
	}
	close(fd);
	if (link(in(g, "%s", own), in(g, "%s", "linked")) < 0) {
		if (errno != EEXIST) {
			broken(g, "link", "link", 0);
		}
		return;
	}
	enter(g, 2);
	if (unlink(in(g, "%s", "linked")) < 0) {
		broken(g, "the holder cannot unlink it", "link", 0);
	}
}

static void by_lock(struct guest *g, bool whole)
{
	int fd = open(in(g, "%s", whole ? "flocked" : "locked"), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0) {
		broken(g, "open", "lock", fd);
		return;
	}
	struct flock l = { .l_type = F_WRLCK, .l_start = 10, .l_len = 10 };
	bool wait = random_next(&g->rng) % 2;
	int rc;
	do {
		rc = whole ? flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB)) : fcntl(fd, wait ? F_SETLKW : F_SETLK, &l);
	} while (rc < 0 && errno == EINTR);
	if (rc == 0) {
		enter(g, whole ? 4 : 3);
	} else if (errno != EAGAIN && errno != EACCES) {
		broken(g, "lock", whole ? "flock" : "fcntl", rc);
	}
	close(fd);
}

static uint64_t sum_of(const struct record *r)
{
	return (r->place * 31 + r->process) * 1000003 + r->number + 0x1234567;
}

static void make(struct record *r, uint64_t place, unsigned process, uint64_t n)
{
	*r = (struct record){ .place = place, .process = process, .number = n };
	r->sum = sum_of(r);
	memset(r->pad, (int)(r->sum & 0xff), sizeof r->pad);
}

static bool whole(const struct record *r)
{
	for (size_t i = 0; i < sizeof r->pad; i++) {
		if ((unsigned char)r->pad[i] != (r->sum & 0xff)) {
			return false;
		}
	}
	return r->sum == sum_of(r);
}

static void append(struct guest *g)
{
	struct record r;
	int fd = open(in(g, "%s", "appended"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0) {
		broken(g, "open", "appended", fd);
		return;
	}
	for (unsigned n = 1 + (unsigned)(random_next(&g->rng) % 4); n > 0; n--) {
		make(&r, 0, g->process, g->appended);
		if (write(fd, &r, sizeof r) != sizeof r) {
			broken(g, "write", "appended", 0);
			break;
		}
		g->appended++;
	}
	if (close(fd) < 0) {
		broken(g, "close", "appended", 0);
	}
	g->counts->appended[g->process] = g->appended;
}

static void places(struct guest *g)
{
	struct record r;
	uint64_t place = random_next(&g->rng) % PLACES;
	int fd = open(in(g, "%s", "places"), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0) {
		broken(g, "open", "places", fd);
		return;
	}
	if (random_next(&g->rng) % 2) {
		make(&r, place, g->process, random_next(&g->rng));
		if (pwrite(fd, &r, sizeof r, (off_t)place * RECORD) != sizeof r) {
			broken(g, "write", "places", (long)place);
		}
	} else {
		static const struct record none;
		ssize_t n = pread(fd, &r, sizeof r, (off_t)place * RECORD);
		if (n == sizeof r && memcmp(&r, &none, sizeof r) && (r.place != place || r.sum != sum_of(&r))) {
			broken(g, "what is read was never written there", "places", (long)place);
		}
	}
	close(fd);
}

/* Takes a token from whatever name it has to a name that only this process makes. */
static void move_token(struct guest *g)
{
	DIR *d = opendir(in(g, "%s", "tokens"));
	char from[300], to[64];
	unsigned n = 0, chosen = (unsigned)(random_next(&g->rng) % TOKENS);
	from[0] = 0;
	if (!d) {
		broken(g, "opendir", "tokens", 0);
		return;
	}
	for (struct dirent *e; (e = readdir(d));) {
		if (e->d_name[0] != '.' && n++ == chosen) {
			snprintf(from, sizeof from, "tokens/%s", e->d_name);
		}
	}
	closedir(d);
	snprintf(to, sizeof to, "tokens/t-%u-%llu", g->process, (unsigned long long)random_next(&g->rng));
	if (from[0] && rename(in(g, "%s", from), in(g, "%s", to)) < 0 && errno != ENOENT) {
		broken(g, "rename", from, 0);
	}
}

static void churn(struct guest *g)
{
	char name[64];
	snprintf(name, sizeof name, "churn-%u", (unsigned)(random_next(&g->rng) % 6));
	struct stat st;
	int rc = 0, ok = ENOENT;
	switch (random_next(&g->rng) % 5) {
	case 0:
		rc = open(in(g, "%s", name), O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
		if (rc >= 0) {
			close(rc);
		}
		ok = 0;
		break;
	case 1:
		rc = unlink(in(g, "%s", name));
		break;
	case 2:
		rc = stat(in(g, "%s", name), &st);
		break;
	case 3:
		rc = truncate(in(g, "%s", name), (off_t)(random_next(&g->rng) % 9000));
		break;
	default:
		rc = chmod(in(g, "%s", name), 0600 | (random_next(&g->rng) & 077));
		break;
	}
	/* A name that another process removes between two steps: ENOENT of an open with O_CREAT, and ESTALE when it was
	 * removed over another mount. */
	if (rc < 0 && errno != ok && errno != ENOENT && errno != ESTALE) {
		broken(g, "churn", name, rc);
	}
}

static int guest_run(struct guest *g, uint64_t rounds)
{
	for (uint64_t i = 0; i < rounds; i++) {
		switch (random_next(&g->rng) % 9) {
		case 0:
			by_excl(g);
			break;
		case 1:
			by_mkdir(g);
			break;
		case 2:
			by_link(g);
			break;
		case 3:
			by_lock(g, false);
			break;
		case 4:
			by_lock(g, true);
			break;
		case 5:
			append(g);
			break;
		case 6:
			places(g);
			break;
		case 7:
			move_token(g);
			break;
		default:
			churn(g);
			break;
		}
	}
	return 0;
}

static void check_counters(struct guest *g)
{
	for (unsigned i = 0; i < GUARDS; i++) {
		uint64_t value = 0;
		int fd = open(in(g, "count-%s", guards[i]), O_RDONLY | O_CLOEXEC);
		if (fd >= 0) {
			if (read(fd, &value, sizeof value) < 0) {
				broken(g, "read", guards[i], 0);
			}
			close(fd);
		}
		if (value != g->counts->entered[i]) {
			fprintf(stderr, "entered %llu times, counted %llu\n", (unsigned long long)g->counts->entered[i],
				(unsigned long long)value);
			broken(g, "two were inside at a time", guards[i], (long)value);
		}
	}
}

static void check_appended(struct guest *g, unsigned processes)
{
	uint64_t seen[64] = { 0 };
	struct record r;
	ssize_t n;
	int fd = open(in(g, "%s", "appended"), O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		return;
	}
	while ((n = read(fd, &r, sizeof r)) == sizeof r) {
		if (!whole(&r) || r.process >= processes) {
			broken(g, "a record that is none", "appended", (long)lseek(fd, 0, SEEK_CUR));
			break;
		}
		if (r.number != seen[r.process]) {
			broken(g, "records are lost, doubled, or out of order", "appended",
			       (long)lseek(fd, 0, SEEK_CUR));
			break;
		}
		seen[r.process]++;
	}
	if (n != 0) {
		broken(g, "ends in the middle of a record, or cannot be read", "appended", n);
	}
	for (unsigned i = 0; i < processes; i++) {
		if (seen[i] != g->counts->appended[i]) {
			broken(g, "records are missing", "appended", (long)(g->counts->appended[i] - seen[i]));
		}
	}
	close(fd);
}

static void check_tokens(struct guest *g)
{
	bool seen[TOKENS] = { false };
	unsigned n = 0;
	DIR *d = opendir(in(g, "%s", "tokens"));
	for (struct dirent *e; d && (e = readdir(d));) {
		char path[300];
		unsigned char id = 255;
		if (e->d_name[0] == '.') {
			continue;
		}
		snprintf(path, sizeof path, "tokens/%s", e->d_name);
		int fd = open(in(g, "%s", path), O_RDONLY | O_CLOEXEC);
		if (fd < 0 || read(fd, &id, 1) != 1 || id >= TOKENS || seen[id]) {
			broken(g, "a token is doubled, or not readable", path, id);
		} else {
			seen[id] = true;
		}
		close(fd);
		n++;
	}
	if (d) {
		closedir(d);
	}
	if (n != TOKENS) {
		broken(g, "tokens were lost", "tokens", (long)n);
	}
}

static void prepare(struct guest *g)
{
	tree_remove(g->dir);
	if (mkdir(g->dir, 0755) < 0 || mkdir(in(g, "%s", "tokens"), 0755) < 0) {
		perror(g->dir);
		exit(2);
	}
	for (unsigned char i = 0; i < TOKENS; i++) {
		char name[32];
		snprintf(name, sizeof name, "tokens/first-%u", i);
		int fd = open(in(g, "%s", name), O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
		if (fd < 0 || write(fd, &i, 1) != 1) {
			perror(name);
			exit(2);
		}
		close(fd);
	}
}

static void check_all(struct guest *g, const char *const *mounts, unsigned n_mounts, const char *beneath,
		      unsigned processes, bool exact)
{
	char below[PATH_MAX];
	snprintf(below, sizeof below, "%s/shared", beneath ? beneath : mounts[0]);
	check_counters(g);
	check_appended(g, processes);
	check_tokens(g);
	for (unsigned i = 0; i < n_mounts; i++) {
		snprintf(g->dir, sizeof g->dir, "%s/shared", mounts[i]);
		if (!tree_equal(g->dir, below, exact, stderr)) {
			broken(g, "differs from what is beneath", mounts[i], 0);
		}
	}
}

int shared_run(const char *const *mounts, unsigned n_mounts, const char *beneath, unsigned processes, uint64_t rounds,
	       uint64_t seed, bool exact)
{
	struct counts *counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct guest g = { .counts = counts };
	int status;
	if (counts == MAP_FAILED || processes > 64) {
		fprintf(stderr, "differential: at most 64 processes\n");
		exit(2);
	}
	snprintf(g.dir, sizeof g.dir, "%s/shared", mounts[0]);
	prepare(&g);
	for (unsigned i = 0; i < processes; i++) {
		pid_t pid = fork();
		if (pid == 0) {
			g.process = i;
			g.rng = seed * 77777 + i;
			snprintf(g.dir, sizeof g.dir, "%s/shared", mounts[i % n_mounts]);
			exit(guest_run(&g, rounds));
		}
		if (pid < 0) {
			perror("fork");
			exit(2);
		}
	}
	while (wait(&status) > 0) {
		if (!WIFEXITED(status) || WEXITSTATUS(status)) {
			broken(&g, "a process did not come to its end", "shared", status);
		}
	}
	if (n_mounts > 1) {
		sleep(2); /* attributes may be as old as the mounts' time-out says */
	}
	check_all(&g, mounts, n_mounts, beneath, processes, exact);
	if (counts->broken == 0) {
		printf("nothing broken: seed %llu, %u processes over %u mounts, %llu rounds each; guards entered %llu times\n",
		       (unsigned long long)seed, processes, n_mounts, (unsigned long long)rounds,
		       (unsigned long long)(counts->entered[0] + counts->entered[1] + counts->entered[2] +
					    counts->entered[3] + counts->entered[4]));
	}
	return (int)counts->broken;
}
