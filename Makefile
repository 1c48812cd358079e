# make serve   try it: a server over ./backups on localhost:8080
# make test    lint, then all tests; brings the real clients and servers that the tests use
# make venv    only the environment, in .venv      make lint    format, style and types
# make deb     the Debian package for this machine's release, in dist (RELEASE=trixie: for another one, as root)
# make test-deb  only the tests of the package; as root, as "make test" does too
# make bench   measure beside rest-server and rclone, rewrites its section of docs/benchmarks.md (see bench/__main__.py)
# make clean   remove what the targets above made; ./backups stays

PYTHON ?=
ADDR ?= localhost:8080
BACKUPS ?= ./backups
PYTEST_WORKERS ?= 4
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PEERS := .peers
DIST := dist
RELEASE ?=
# Debian packages: of the environment, and of programs that only the tests use (systemd: systemd-socket-activate;
# memcached: Swift; groff-base: manual pages; openssh-server: SFTP; nghttp2: HTTP/2; openssl: a TLS client that changes
# its keys; zsh: completions; apache2 and lighttpd: WebDAV servers).
VENV_PACKAGES := python3-venv
TEST_PACKAGES := systemd openssl haproxy groff-base logrotate memcached openssh-server apache2-bin lighttpd lighttpd-mod-webdav nghttp2-client nghttp2-proxy zsh

# What builds the Debian package, and what tests it as root: these lay and check a small Debian.
DEB_PACKAGES := build-essential debhelper dh-virtualenv python3 python3-venv
ROOT_TEST_PACKAGES := $(DEB_PACKAGES) debootstrap lintian

.PHONY: help venv peers serve test lint deb test-deb bench clean

help:
	@sed -n '/^#/!q; s/^# //p' Makefile

venv: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml setup.py
	@PYTHON="$(PYTHON)" tools/make-venv $(VENV) $(VENV_PACKAGES)
	$(BIN)/pip install -q -e '.[dev]'
	@touch $@

peers: venv
	@tools/system-packages $(TEST_PACKAGES)
	@[ "$$(id -u)" != 0 ] || tools/system-packages $(ROOT_TEST_PACKAGES)
	@PYTHON=$(BIN)/python tools/get-peers $(PEERS)

serve: venv
	@mkdir -p "$(BACKUPS)"
	@tools/first-steps "$(ADDR)" "$(BACKUPS)"
	@exec $(BIN)/twistd -n --pidfile= resticd --addr "$(ADDR)" "$(BACKUPS)"

lint: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Pytest comes last, so that its summary is the last line.
test: peers lint
	$(BIN)/pytest -n $(PYTEST_WORKERS) --dist loadgroup $(PYTEST_ARGS)

deb:
	@tools/system-packages $(DEB_PACKAGES)
	@tools/build-deb $(DIST) $(RELEASE)

test-deb: peers
	$(BIN)/pytest tests/packaging $(PYTEST_ARGS)

bench: peers
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) $(PEERS) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis bench/results $(DIST)
	find . -name __pycache__ -prune -exec rm -rf {} +
	rm -f twisted/plugins/dropin.cache
