# Every target does its own set-up: a virtual environment in .venv with the versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
RUN_EXTRAS := plots
TEST_EXTRAS := mocap,web,text,hf,train,plots,explain,yt8m,export,quant,scale,tracking,lora,dev
VIDEO ?= $(firstword $(wildcard examples/*.mp4))

.PHONY: demo test test-slow lint types clean

demo: .venv/run  ## recognise the action in a clip of examples/; leaves a video and a contact sheet in demo/
	mkdir -p demo
	$(BIN)/marey predict $(VIDEO) --save-annotated demo/annotated.mp4 --contact-sheet demo/contact_sheet.png

test: .venv/test  ## the test suite on two cores, in under ten minutes
	MAREY_TEST_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-slow: .venv/test  ## the tests marked slow, which `make test` leaves out
	MAREY_TEST_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m slow

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/test
	$(BIN)/mypy

.venv/run: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(RUN_EXTRAS)]"
	touch $@

.venv/test: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(TEST_EXTRAS)]"
	touch $@ .venv/run

clean:
	rm -rf .venv demo build dist
