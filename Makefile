# proxyflash: `make help` lists the targets.
VENV ?= .venv
# The host's python3, or another name where that one is too old: `make setup PYTHON=...` takes any.
PYTHON ?= $(or $(shell for found in python3 python3.14 python3.13 python3.12 python3.11; do \
  "$$found" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$found"; break; }; done),python3)
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
LINKS := build/typing/proxyflash
# The lock files name everything that is installed, each file by its hash.
PIP := -m pip install -q --disable-pip-version-check
TOOLS := build/tools
LOCK := CUSTOM_COMPILE_COMMAND="make lock" $(TOOLS)/bin/pip-compile -q --generate-hashes --allow-unsafe --strip-extras \
  --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options

# Before the virtual environment $(1) is made: says in one line why this host can't make one. A virtual environment without
# pip remains of Debian's python3 if its package python3-venv is missing.
define CHECK_PYTHON
	@test -x $(1)/bin/python -a -x $(1)/bin/pip || { \
	  version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2]); sys.exit(sys.version_info < (3, 11))' 2>/dev/null) \
	    || { echo "setup: needs Python 3.11 or newer; $(PYTHON) is $${version:-missing}. Name another Python: make setup PYTHON=/path/to/python3" >&2; \
	      exit 2; }; \
	  $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	    || { echo "setup: $(PYTHON) can't make virtual environments. Run: sudo apt-get install python$$version-venv" >&2; exit 2; }; }
endef
MAKE_VENV = @test -x $(1)/bin/python -a -x $(1)/bin/pip || $(PYTHON) -m venv $(1)

# Each worker and each program under test would compile every module again.
unexport PYTHONDONTWRITEBYTECODE

# The tests make many small files, and what they test waits for each until it is on the disk. Where /dev/shm has room and
# lets programs run, it is the disk of the tests.
MEMORY := /dev/shm
test test-cuts test-real-time: export TMPDIR := $(or $(TMPDIR),$(shell \
  test "$$(df --output=avail -k $(MEMORY) 2>/dev/null | tail -n 1)" -gt 4000000 2>/dev/null \
  && findmnt -no OPTIONS $(MEMORY) | grep -vqw noexec && echo $(MEMORY)),/tmp)

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 16

setup: $(STAMP)  ## the virtual environment in .venv, with everything that the other targets need

$(STAMP): setup.cfg setup.py pyproject.toml requirements/build.lock requirements/dev.lock
	$(call CHECK_PYTHON,$(VENV))
	@echo "setup: installing proxyflash and the tools of its tests into $(VENV); the first time takes 1 to 3 minutes"
	$(call MAKE_VENV,$(VENV))
	@$(BIN)/python $(PIP) --require-hashes -r requirements/build.lock
	@$(BIN)/python $(PIP) --require-hashes --no-build-isolation --use-pep517 -r requirements/dev.lock
	@$(BIN)/python $(PIP) --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)  ## updates three emulated sensors on three buses from one manifest
	$(BIN)/proxyflash demo

demo-real: $(STAMP)  ## the same update with a Zephyr part and an AVR part that really boot what they are given
	$(BIN)/python -m proxyflash.hil_tests.real.demo

# mypy works on one processor: it runs beside the tests, and what it says comes after theirs.
test: $(STAMP) $(LINKS)  ## ruff, mypy, and the tests that need no real time; CUTS=every tries each place of each sweep, CUTS=2/4 a share
	$(BIN)/ruff check .
	@mkdir -p build
	$(BIN)/mypy -p proxyflash >build/mypy.log 2>&1 & types=$$!; failed=0; \
	  $(BIN)/python -m pytest -n 2 --dist worksteal -m 'not real_time' $(if $(CUTS),--every-cut $(if $(filter-out every,$(CUTS)),--cut-share $(CUTS))) || failed=1; \
	  $(SUITE) --simulated-time || failed=1; \
	  $(SUITE) --simulated-time --bench hil_tests/benches/serial.toml -m 'not slow' || failed=1; \
	  $(SUITE) --simulated-time --bench hil_tests/benches/katapult.toml -m 'not slow' || failed=1; \
	  $(SUITE) --simulated-time --bench hil_tests/benches/canopen.toml -m 'not slow' || failed=1; \
	  $(SUITE) --simulated-time --bench hil_tests/benches/stm32-can.toml -m 'not slow' || failed=1; \
	  $(SUITE) --simulated-time --bench hil_tests/benches/xcp.toml -m 'not slow' || failed=1; \
	  $(SUITE) --simulated-time --bench hil_tests/benches/mboot.toml -m 'not slow' || failed=1; \
	  wait $$types || failed=1; cat build/mypy.log; exit $$failed

SUITE := $(BIN)/python -m pytest -n 2 --dist worksteal hil_tests
IN_REAL_TIME := test_an_update_is_written_verified_and_runs

# They wait for pseudo-terminals, sockets and programs, and so six share two processors well. Of the bench suite one flash of
# each family runs in real time, too.
test-real-time: $(STAMP)  ## whole programs, ours and others', pseudo-terminals, kernels' sockets: in real time
	failed=0; \
	  $(BIN)/python -m pytest -n 6 --dist worksteal -m real_time || failed=1; \
	  $(SUITE) -k $(IN_REAL_TIME) || failed=1; \
	  $(SUITE) -k $(IN_REAL_TIME) --bench hil_tests/benches/serial.toml || failed=1; \
	  $(SUITE) -k $(IN_REAL_TIME) --bench hil_tests/benches/katapult.toml || failed=1; \
	  $(SUITE) -k $(IN_REAL_TIME) --bench hil_tests/benches/canopen.toml || failed=1; \
	  $(SUITE) -k $(IN_REAL_TIME) --bench hil_tests/benches/stm32-can.toml || failed=1; \
	  $(SUITE) -k $(IN_REAL_TIME) --bench hil_tests/benches/xcp.toml || failed=1; \
	  $(SUITE) -k $(IN_REAL_TIME) --bench hil_tests/benches/mboot.toml || failed=1; \
	  exit $$failed

test-cuts: $(STAMP)  ## the sweeps at every place; `make test` tries some of them
	$(BIN)/python -m pytest -n 2 --dist worksteal --every-cut $(SWEEPS)

SWEEPS := tests/flashers/test_contract.py tests/flashers/test_smp_datagrams.py tests/updates/test_sweep.py tests/updates/test_rollback_sweep.py

# By the environment, whatever characters they have.
explore: export SEEDS := $(SEEDS)
explore: export FOR := $(FOR)
explore: $(STAMP)  ## benches, updates and faults drawn from seeds: SEEDS=1..500, or new ones for FOR=180 seconds
	$(BIN)/python -m tests.explore $(if $(FOR),--seconds="$$FOR" --processes 2,-- "$$SEEDS")

properties: $(STAMP)  ## the tests that draw their examples, with new ones
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'hypothesis and not real_time' --hypothesis-profile others

# They wait for lines at their true pace, four fifths of their time.
test-real: $(STAMP)  ## real bootloaders on emulated processors, under QEMU and simavr, which boot what was flashed
	$(BIN)/python -m pytest -n 4 --dist worksteal --timeout=600 hil_tests/real

# What the tests leave in build/kernel-bench: pytest's results, the console's log, what passed on the buses when one failed.
# Two time limits: at the inner one pytest still says which tests had failed, the outer one is the guest's.
# A host that has the drivers itself has only one of each bus: there the lock makes one wait for the other. Guests have a
# /run of their own, and so run at the same time.
KERNEL := $(BIN)/proxyflash vm run --needs can,isotp,slcan,usb --time-limit 1800
LIMITED := flock /run/proxyflash-kernel-bench timeout --foreground --signal=INT 1700
kernel-drivers: $(STAMP)
	rm -rf build/kernel-bench/drivers
	$(KERNEL) --artefacts build/kernel-bench/drivers -- $(LIMITED) \
	  $(BIN)/python -m pytest hil_tests/kernel --timeout=600 --junitxml=build/kernel-bench/drivers/junit.xml

# The guest computes some 25 times slower than this host where it has no KVM: few tests, none of which a clock decides.
kernel-flashes: $(STAMP)  ## a flash by each of the kernel's drivers, in a guest where this host has not all of them
	rm -rf build/kernel-bench/flashes
	$(KERNEL) --artefacts build/kernel-bench/flashes -- $(LIMITED) \
	  $(BIN)/python -m pytest --timeout=600 --junitxml=build/kernel-bench/flashes/junit.xml -k 'not user' $(FLASHES)

FLASHES := $(addprefix hil_tests/kernel/,test_can.py::test_a_flash test_usb_dfu_util.py::test_dfuse \
  test_usb_flasher.py::test_scan_and_flash test_serial_flash.py::TestStm32flash::test_in_its_default_mode)

kernel-suite: $(STAMP)
	rm -rf build/kernel-bench/suite
	$(KERNEL) --artefacts build/kernel-bench/suite -- $(LIMITED) \
	  $(BIN)/python -m proxyflash.hil_tests.kernel_bench --timeout=600 -m 'not slow'

test-kernel: $(STAMP)  ## the tests on real kernel drivers, in guests where this host has not all of them
	$(MAKE) --no-print-directory --keep-going --output-sync=target -j2 kernel-drivers kernel-suite

lint: $(STAMP) $(LINKS)  ## ruff and mypy alone
	$(BIN)/ruff check .
	$(BIN)/mypy -p proxyflash

pictures: $(STAMP)  ## docs/pictures: what commands print on a terminal, as SVG
	$(BIN)/python -m proxyflash.docs.draw_pictures

bench: $(STAMP)  ## the benchmarks, side by side with other tools where those are installed
	$(BIN)/python -m benchmarks

SECONDS ?= 600
FUZZ_STAMP := $(VENV)/.stamp-fuzz
DOCS_STAMP := $(VENV)/.stamp-docs

fuzz: $(FUZZ_STAMP)  ## every reader of foreign bytes under atheris, SECONDS=600 in all
	$(BIN)/python -m proxyflash.tests.fuzz --seconds $(SECONDS)

$(FUZZ_STAMP): $(STAMP)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[fuzz]'
	touch $@

docs: $(DOCS_STAMP)  ## the documentation site, into build/docs/html
	$(BIN)/python -m proxyflash.docs.build

$(DOCS_STAMP): $(STAMP) requirements/docs.lock
	@$(BIN)/python $(PIP) --require-hashes -r requirements/docs.lock
	@touch $@

wheel: $(STAMP)  ## builds the wheel into dist/
	$(BIN)/python -m build --wheel --outdir dist .

$(TOOLS)/.stamp: requirements/tools.lock
	$(call CHECK_PYTHON,$(TOOLS))
	$(call MAKE_VENV,$(TOOLS))
	$(TOOLS)/bin/python $(PIP) --require-hashes -r requirements/tools.lock
	touch $@

lock: $(TOOLS)/.stamp  ## brings the lock files up to what setup.cfg asks for; UPGRADE=--upgrade takes the newest releases
	@$(TOOLS)/bin/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "lock: needs the oldest Python that" \
	  "proxyflash runs on, 3.11. Run: rm -r $(TOOLS); make lock PYTHON=python3.11" >&2; exit 2; }
	$(LOCK) $(UPGRADE) -o requirements/build.lock --only-build-deps --build-deps-for wheel setup.py
	$(LOCK) $(UPGRADE) -o requirements/run.lock setup.py
	$(LOCK) $(UPGRADE) -o requirements/dev.lock -c requirements/run.lock --extra dev setup.py
	$(LOCK) $(UPGRADE) -o requirements/docs.lock -c requirements/dev.lock --extra docs setup.py
	$(LOCK) $(UPGRADE) -o requirements/tools.lock requirements/tools.in

sbom: $(TOOLS)/.stamp  ## the software bill of materials (CycloneDX) of what an installation brings along, into dist/
	mkdir -p build dist
	printf '[project]\nname = "proxyflash"\nversion = "%s"\n' "$$(sed -n 's/^version = //p' setup.cfg)" >build/sbom.toml
	$(TOOLS)/bin/python -W ignore::UserWarning -m cyclonedx_py requirements requirements/run.lock --pyproject build/sbom.toml --output-reproducible \
	  --output-format JSON --output-file dist/proxyflash.cdx.json

audit: $(TOOLS)/.stamp  ## known vulnerabilities of the locked releases; needs the package index's advisories
	rm -f build/audit.json
	status=0; $(TOOLS)/bin/pip-audit --progress-spinner off --disable-pip --require-hashes -f json -o build/audit.json \
	  -r requirements/dev.lock -r requirements/tools.lock || status=$$?; \
	  test -s build/audit.json || { echo "audit: could not run: the package index gives no advisories here" >&2; exit 2; }; \
	  $(TOOLS)/bin/python -c "import json; found = [(one, bad) for one in json.load(open('build/audit.json'))['dependencies'] \
	  for bad in one.get('vulns', ())]; [print(one['name'], one['version'], bad['id'], *bad['fix_versions']) for one, bad in found]; \
	  print(f'audit: {len(found)} known vulnerabilities')"; exit $$status

# Type checkers want a folder with the package's name: links to the folders of this one.
$(LINKS): Makefile
	rm -rf $@ && mkdir -p $@
	for entry in __init__.py py.typed transports flashers enumerators updates emulators hil_tests testing report_page tools tests \
	  benchmarks examples docs; do ln -s ../../../$$entry $@/$$entry; done

clean:  ## removes what the targets made
	rm -rf build dist .venv *.egg-info

.PHONY: help setup demo demo-real test test-real-time test-cuts test-real test-kernel kernel-drivers kernel-flashes kernel-suite properties lint \
  bench fuzz explore docs pictures wheel lock sbom audit clean
