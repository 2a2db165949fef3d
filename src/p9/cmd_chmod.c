/* SPDX-License-Identifier: BSD-2-Clause */
/* cmd_chmod.c - p9 chmod: permission bits, octal or as changes to those that are there (u+x,go-w,a=rX,o=g). */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "p9/each.h"

struct change {
	struct p9_each each;
	const char *text; /* symbolic; NULL when octal */
	uint32_t octal;
};

enum { WHO_U = 04700, WHO_G = 02070, WHO_O = 01007 };

static uint32_t parse_who(const char **p)
{
	uint32_t who = 0;
	for (;; ++*p) {
		switch (**p) {
		case 'u':
			who |= WHO_U;
			break;
		case 'g':
			who |= WHO_G;
			break;
		case 'o':
			who |= WHO_O;
			break;
		case 'a':
			who |= WHO_U | WHO_G | WHO_O;
			break;
		default:
			return who;
		}
	}
}

/* The bits of one class, copied to all three. */
static uint32_t copied(uint32_t mode, unsigned shift)
{
	uint32_t three = mode >> shift & 7;
	return three | three << 3 | three << 6;
}

static uint32_t parse_permissions(const char **p, uint32_t mode)
{
	bool x = S_ISDIR(mode) || (mode & 0111);
	uint32_t bits = 0;
	for (;; ++*p) {
		switch (**p) {
		case 'r':
			bits |= 0444;
			break;
		case 'w':
			bits |= 0222;
			break;
		case 'x':
			bits |= 0111;
			break;
		case 'X':
			bits |= x ? 0111 : 0;
			break;
		case 's':
			bits |= S_ISUID | S_ISGID;
			break;
		case 't':
			bits |= S_ISVTX;
			break;
		case 'u':
			bits |= copied(mode, 6);
			break;
		case 'g':
			bits |= copied(mode, 3);
			break;
		case 'o':
			bits |= copied(mode, 0);
			break;
		default:
			return bits;
		}
	}
}

/* Applies the changes. False when the text is none. */
static bool apply(const char *p, uint32_t *mode)
{
	do {
		uint32_t who = parse_who(&p);
		uint32_t mask = who ? who : 07777 & ~p9_umask();
		mask |= who & WHO_U && who & WHO_G && who & WHO_O ? 07777 : 0;
		if (*p != '+' && *p != '-' && *p != '=') {
			return false;
		}
		while (*p == '+' || *p == '-' || *p == '=') {
			char op = *p++;
			uint32_t bits = parse_permissions(&p, *mode) & mask;
			if (op == '=') {
				uint32_t keep = S_ISDIR(*mode) ? 0777 : 07777; /* as chmod(1): a directory's s stay */
				*mode &= ~((who ? who : 07777u) & keep);
			}
			*mode = op == '-' ? *mode & ~bits : *mode | bits;
		}
	} while (*p == ',' && *++p);
	return *p == 0;
}

static int change(struct p9_each *e, uint32_t fid)
{
	const struct change *c = (const struct change *)e;
	struct p9_tsetattr set = { .fid = fid, .valid = P9_SETATTR_MODE, .mode = c->octal };
	struct p9_rgetattr st;
	if (c->text) {
		int rc = p9_client_getattr(e->client, fid, P9_GETATTR_MODE, &st);
		if (rc < 0) {
			return rc;
		}
		set.mode = st.mode;
		(void)apply(c->text, &set.mode); /* it was tried before */
	}
	set.mode &= 07777;
	return p9_client_setattr(e->client, &set);
}

/* "-w" and the like are modes, not options. */
static int first_operand(int argc, char **argv)
{
	int i = 1;
	if (i < argc && strcmp(argv[i], "--") == 0) {
		i++;
	}
	return i;
}

int p9_cmd_chmod(struct p9_cli *cli, int argc, char **argv)
{
	struct change c = { .each = { .act = change, .follow = P9_WALK_FOLLOW } };
	int first = first_operand(argc, argv);
	uint32_t trial = 0;
	char *end;
	if (argc - first < 2) {
		return p9_cli_usage(cli, "a mode and a file");
	}
	unsigned long octal = strtoul(argv[first], &end, 8);
	if (argv[first][0] >= '0' && argv[first][0] <= '7' && *end == 0 && octal <= 07777) {
		c.octal = (uint32_t)octal;
	} else if (apply(argv[first], &trial)) {
		c.text = argv[first];
	} else {
		return p9_cli_usage(cli, "the mode is neither octal nor as in u+x,go-w");
	}
	return p9_each(cli, &c.each, argc - first - 1, argv + first + 1);
}
