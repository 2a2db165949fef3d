# SPDX-License-Identifier: BSD-2-Clause
# A thin front of meson and ninja. Every target installs the Debian packages that it needs and that are missing.
BUILD ?= build
PREFIX ?=
DESTDIR ?=
FUZZ_SECONDS ?= 60

.PHONY: all demo check conformance bench fuzz sanitize format install uninstall clean help
all: $(BUILD)/build.ninja
	@ninja -C $(BUILD)

help:
	@echo 'make             build $(BUILD)/p9d and $(BUILD)/p9'
	@echo 'make demo        share a directory, use it, and mount it with a Linux kernel (in QEMU); about a minute'
	@echo 'make check       build in every way and run all tests; CHECK="--list" or "--only NAME,NAME" for some'
	@echo 'make conformance write doc/conformance.md: p9 conform against p9d and diod'
	@echo 'make check-all   the same, and more of them under sanitizers; an hour'
	@echo 'make bench       measure p9d beside diod and the physical limit'
	@echo 'make fuzz        FUZZ_SECONDS=$(FUZZ_SECONDS) for each fuzz target'
	@echo 'make sanitize    the tests under ASan, UBSan and TSan only'
	@echo 'make format      clang-format over our own files'
	@echo 'make install     PREFIX=/usr/local DESTDIR=; make uninstall takes it away again'
	@echo 'make clean       remove everything that was built'

$(BUILD)/build.ninja:
	@tools/deps.sh build
	@meson setup $(BUILD) >$(BUILD).setup.log 2>&1 || { cat $(BUILD).setup.log; exit 1; }; rm -f $(BUILD).setup.log

demo: all
	@tools/deps.sh demo
	@tools/demo.sh $(BUILD)

check:
	@tools/deps.sh check
	@python3 tests/check.py $(CHECK)

conformance: all
	@tools/deps.sh check
	@tools/conformance.py $(BUILD)

check-all:
	@tools/deps.sh check
	@python3 tests/check.py --all $(CHECK)

sanitize:
	@tools/deps.sh sanitize
	@python3 tests/check.py --only '*-asan,*-tsan' $(CHECK)

bench: all
	@tools/deps.sh bench
	@bench/run $(BENCH)

fuzz:
	@tools/deps.sh fuzz
	@FUZZ_SECONDS=$(FUZZ_SECONDS) python3 tools/fuzz.py $(FUZZ)

format:
	@tools/deps.sh check
	@tools/format.py --fix

install: all
	@test -z '$(PREFIX)' || meson configure $(BUILD) -Dprefix='$(PREFIX)'
	@DESTDIR='$(DESTDIR)' meson install -C $(BUILD)

uninstall: $(BUILD)/build.ninja
	@DESTDIR='$(DESTDIR)' ninja -C $(BUILD) uninstall

clean:
	rm -rf $(BUILD) build-asan build-tsan build-fuzz build-clang
