/* SPDX-License-Identifier: BSD-2-Clause */
/* fz_conf.c - fuzz target: the command line and configuration file of p9d, export specifications, addresses.
 *
 * An input is lines: the arguments up to a line "@", which stands for the name of a file with the rest. Each line is
 * also parsed as an address.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/log.h"
#include "gen.h"
#include "p9d/p9d.h"

#define ARGS_MAX 40

static int memory = -1;
static char path[40];
static FILE *nowhere;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	memory = memfd_create("p9-fuzz", MFD_CLOEXEC);
	nowhere = fopen("/dev/null", "we");
	FZ_CHECK(memory >= 0 && nowhere, "files");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", memory);
	return 0;
}

static void address(const char *text)
{
	struct p9_addr a;
	char why[40];
	int rc = p9_addr_parse(&a, text, why, sizeof(why));
	FZ_CHECK(rc == 0 || rc == -P9_EINVAL, "%d", rc);
	FZ_CHECK(rc == 0 || (strnlen(why, sizeof(why)) < sizeof(why) && why[0]), "no reason");
	if (rc == 0) {
		FZ_CHECK(strnlen(a.path, sizeof(a.path)) < sizeof(a.path) &&
				 strnlen(a.host, sizeof(a.host)) < sizeof(a.host) &&
				 strnlen(a.port, sizeof(a.port)) < sizeof(a.port),
			 "text without an end");
		FZ_CHECK(a.kind != P9_ADDR_FD || (a.in >= 0 && a.out >= 0), "descriptors %d, %d", a.in, a.out);
	}
}

/* Cuts lines into arguments; the rest after "@" goes into the file. */
static int split(char *text, size_t size, char **argv)
{
	int argc = 1;
	argv[0] = "p9d";
	for (char *p = text, *end = text + size; p < end && argc < ARGS_MAX;) {
		char *nl = memchr(p, '\n', (size_t)(end - p));
		size_t len = (size_t)((nl ? nl : end) - p);
		p[len] = 0;
		bool file = strcmp(p, "@") == 0;
		argv[argc++] = file ? path : p;
		p = nl ? nl + 1 : end;
		if (file) {
			FZ_CHECK(ftruncate(memory, 0) == 0 && pwrite(memory, p, (size_t)(end - p), 0) == end - p,
				 "memfd");
			break;
		}
	}
	argv[argc] = NULL;
	return argc;
}

/* No file of the host is read: --config is followed by our own only. */
static bool harmless(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		bool is = strncmp(argv[i], "-c", 2) == 0 || strncmp(argv[i], "--config", 8) == 0;
		if (is && (argv[i][strlen(argv[i]) - 1] == '=' || strchr(argv[i], '=') ||
			   (argv[i][1] == 'c' && argv[i][2]) || i + 1 == argc || argv[i + 1] != path)) {
			return false;
		}
	}
	return true;
}

static void check_config(const struct p9d_config *c)
{
	FZ_CHECK(c->nexports <= P9D_EXPORT_MAX && c->nlisten <= P9D_LISTEN_MAX, "%u, %u", c->nexports, c->nlisten);
	FZ_CHECK(c->server.msize >= P9_MSIZE_MIN && c->server.msize <= P9_MSIZE_MAX, "%u", c->server.msize);
	FZ_CHECK(c->socket_mode <= 0777, "%o", c->socket_mode);
	for (unsigned i = 0; i < c->nexports; i++) {
		FZ_CHECK(c->exports[i].name[0] && c->exports[i].local.path[0], "export %u", i);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct p9d_config c;
	char *argv[ARGS_MAX + 1], *text = malloc(size + 1);
	memcpy(text, data, size);
	text[size] = 0;
	int argc = split(text, size, argv);
	if (harmless(argc, argv)) {
		FILE *err = stderr;
		memset(&c, 0, sizeof(c));
		stderr = nowhere;
		int rc = p9d_config_read(&c, argc, argv);
		stderr = err;
		FZ_CHECK(rc == 0 || rc == 1 || rc == 2, "exit code %d", rc);
		if (rc == 0) {
			check_config(&c);
		}
		p9d_config_free(&c);
	}
	for (int i = 1; i < argc; i++) {
		address(argv[i]);
	}
	free(text);
	return 0;
}
