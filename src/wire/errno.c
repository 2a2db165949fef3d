/* SPDX-License-Identifier: BSD-2-Clause */
/* errno.c - names and texts of errors, from proto/errno.def. */
#include "p9/error.h"
#include "wire/cursor.h"

static const struct {
	const char *name, *text;
} errors[] = {
#define ERRNO(name, number, text) [number] = { #name, text },
#include "errno.def"
};
#define COUNT (sizeof(errors) / sizeof(errors[0]))

const char *p9_error_name(uint32_t ecode)
{
	return ecode < COUNT && errors[ecode].name ? errors[ecode].name : "E?";
}

const char *p9_error_text(uint32_t ecode)
{
	return ecode < COUNT && errors[ecode].text ? errors[ecode].text : "Unknown error";
}

uint32_t p9_error_number(const char *name, unsigned n)
{
	for (uint32_t i = 0; i < COUNT; i++) {
		if (errors[i].name && p9_cstr_is(errors[i].name, name, n)) {
			return i;
		}
	}
	return 0;
}
