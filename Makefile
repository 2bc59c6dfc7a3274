# proxyflash: `make help` lists the targets.
VENV ?= .venv
PYTHON ?= python3.11
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
LINKS := build/typing/proxyflash

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 16

setup: $(STAMP)  ## the virtual environment in .venv, with everything that the other targets need

$(STAMP): setup.cfg setup.py pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --upgrade 'pip>=23' 'setuptools>=68' wheel
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(STAMP)  ## updates three emulated sensors on three buses from one manifest
	$(BIN)/proxyflash demo

test: $(STAMP) lint  ## ruff, mypy and all tests that need nothing attached
	$(BIN)/python -m pytest -n 2 --dist worksteal
	$(BIN)/python -m pytest -n 2 --dist worksteal hil_tests --ignore hil_tests/kernel

# The folder is there as `build/kernel-bench` in the guest as well; pytest's own results lie beside the console's log.
# Two time limits: at the inner one pytest still says which tests had failed, the outer one is the guest's.
test-kernel: $(STAMP)  ## the tests on real kernel drivers, in a guest where this host has not all of them
	$(BIN)/proxyflash vm run --needs can,isotp,slcan,usb,gadget --time-limit 1200 --artefacts build/kernel-bench -- \
	  timeout --signal=INT 1140 $(BIN)/python -m pytest hil_tests/kernel --timeout=600 --junitxml=build/kernel-bench/junit.xml

lint: $(STAMP) $(LINKS)  ## ruff and mypy alone
	$(BIN)/ruff check .
	$(BIN)/mypy -p proxyflash

bench: $(STAMP)  ## the benchmarks, side by side with other tools where those are installed
	$(BIN)/python -m benchmarks

wheel: $(STAMP)  ## builds the wheel into dist/
	$(BIN)/python -m build --wheel --outdir dist .

# Type checkers want a folder with the package's name: links to the folders of this one.
$(LINKS): Makefile
	rm -rf $@ && mkdir -p $@
	for entry in __init__.py py.typed transports flashers enumerators updates emulators hil_tests tools tests \
	  benchmarks examples; do ln -s ../../../$$entry $@/$$entry; done

clean:  ## removes what the targets made
	rm -rf build dist .venv *.egg-info

.PHONY: help setup demo test test-kernel lint bench wheel clean
