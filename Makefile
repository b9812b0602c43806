# `make demo` and `make test` are the two commands of a fresh clone. The others are for developers.
# Each environment is made once from a lock file with hashes; a stamp in it makes every later run start at once.

PYTHON ?= python3
ARGS ?=
MINUTES ?= 30
RESULTS ?= build/bench

RUN := .venv
DEV := .venv-dev
SUPPLY := .venv-supply
CHARTS := .venv-chart
LOCKER := .venv-lock
PIP_FLAGS := --disable-pip-version-check --no-input --quiet

# Tests start some hundred processes: without bytecode on disk each would compile all modules anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-rabbitmq4 test-hooks-off test-changed test-everything pictures faults soak simulate fuzz lint format lock dashboard runbook image test-image sbom audit vendor clean python
.PHONY: bench bench-counted bench-latency bench-growth bench-scale bench-plot bench-isolation bench-attacks
.PHONY: chart chart-check publishers conformance
.DELETE_ON_ERROR:

help: ## show this list
	@echo 'notifier: OpenID Connect Back-Channel Logout, delivered. What make can do here:'
	@echo
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r goal text; do \
		printf '  make %-15s %s\n' "$$goal" "$$text"; done
	@echo
	@echo 'Another Python (3.11 or newer): make demo PYTHON=python3.12.'
	@echo 'Arguments for pytest or the demo: make test ARGS="tests/model -x"'

demo: $(RUN)/.made ## sign users out of five sample clients: no broker, no configuration; 30 s
	@$(RUN)/bin/notifier demo $(ARGS)

PYTEST = $(DEV)/bin/python -m pytest
ON_4 = NOTIFIER_TEST_AMQP_URL= NOTIFIER_TEST_RABBITMQ=4
ALONGSIDE = --numprocesses 4 --dist loadfile --no-loadscope-reorder  # of two cores: tests wait for half of their time
NO_PARTS = $$($(DEV)/bin/python -m tools.parts elsewhere)
# Faults that RabbitMQ has no part in, or only as the far end of a connection: `make faults` makes them on 4.x too.
ELSEWHERE = $(patsubst %,--ignore tests/faults/test_%.py,client_keys forgeries \
	ledger moving network network_clients publishers \
	rolling_update soak standstill upstreams worst_events)

test: $(DEV)/.made ## run the tests that every change needs, on a private RabbitMQ (root: installed by apt); 5 min the first time, then 3 min
	@$(PYTEST) $(if $(ARGS),$(ARGS),-m 'not full' --hypothesis-profile short $(NO_PARTS) $(ALONGSIDE))

test-all: $(DEV)/.made ## run every test but those of the parts below, with all faults, and on RabbitMQ 4.x; 15 min
	@failed=; \
		$(PYTEST) -m 'not alone' $(NO_PARTS) $(ALONGSIDE) || failed=1; \
		$(PYTEST) -m alone $(NO_PARTS) || failed=1; \
		if $(DEV)/bin/python -m tests.support.rabbitmq_installation; then $(MAKE) --no-print-directory test-rabbitmq4 || failed=1; \
		elif [ "$$NOTIFIER_TEST_RABBITMQ4" = required ]; then failed=1; fi; \
		[ -z "$$failed" ]

test-rabbitmq4: $(DEV)/.made ## run the queue's contract and the broker's faults on RabbitMQ 4.x (root on Debian; 350 MB, once)
	@$(ON_4) $(PYTEST) $(if $(ARGS),$(ARGS),-m "not alone" tests/contract tests/faults $(NO_PARTS) $(ELSEWHERE) $(ALONGSIDE))

test-hooks-off: $(DEV)/.made ## run the queue's contract and the HTTP transport's tests by the libraries' public ways; 3 min
	@NOTIFIER_TEST_HOOKS=off $(PYTEST) $(if $(ARGS),$(ARGS),-m "not alone" -k "not sqlite" tests/contract tests/network/http \
		--ignore tests/network/http/test_http_hooks.py $(ALONGSIDE))

test-changed: $(DEV)/.made ## run the parts that have changed since they last passed whole: tools/parts.toml lists them
	@$(DEV)/bin/python -m tools.parts changed

test-everything: $(DEV)/.made ## run all parts whole, or PART=browsers alone, and note what passes in tools/parts.json; an hour
	@$(DEV)/bin/python -m tools.parts everything $(PART)

pictures: $(DEV)/.made ## make the documents' pictures of the pages for browsers, of the console and of `status` anew (needs what the part browsers does); 4 min
	@mkdir -p docs/front-channel docs/upstreams docs/console
	@NOTIFIER_TEST_KEYCLOAK=required NOTIFIER_TEST_PICTURES=docs $(DEV)/bin/python -m pytest -q \
		tests/browsers/test_pictures_whole.py tests/browsers/test_console_pictures_whole.py tests/browsers/test_federated_whole.py tests/browsers/test_keycloak_upstream_whole.py \
		tests/system/test_status_picture.py -k 'picture or chromium-blocked'

lint: $(DEV)/.made ## ruff, mypy in strict mode, the direction of the imports, Dockerfile, workflows, compose, plain English
	@$(DEV)/bin/ruff check notifier tests tools publishers benchmarks conftest.py
	@$(DEV)/bin/ruff format --check notifier tests tools publishers benchmarks conftest.py
	@$(DEV)/bin/mypy
	@$(DEV)/bin/lint-imports --no-cache
	@$(DEV)/bin/python -m tools.plain_english --check
	@$(DEV)/bin/hadolint Dockerfile
	@$(DEV)/bin/zizmor --offline --no-progress --quiet --persona pedantic .github
	@$(DEV)/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yaml
	@$(DEV)/bin/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	@$(DEV)/bin/check-jsonschema --quiet --builtin-schema vendor.compose-spec deploy/compose.yaml

format: $(DEV)/.made ## let ruff put imports and lines in order
	@$(DEV)/bin/ruff check --fix notifier tests tools publishers benchmarks conftest.py
	@$(DEV)/bin/ruff format notifier tests tools publishers benchmarks conftest.py

lock: $(LOCKER)/.made ## take the newest versions that pyproject.toml allows into the lock files
	@.ci/lock $(LOCKER)/bin/uv

chart: $(DEV)/.made ## make the chart's schema, README, copies and golden files anew, after a change of settings, rules or dashboard
	@$(DEV)/bin/python -m tools.chart

chart-check: $(DEV)/.made $(CHARTS)/.made ## have checkov look over what the chart makes of each file of values
	@rm -rf build/chart && mkdir -p build/chart
	@for values in helm/notifier/ci/*.yaml; do \
		$(DEV)/bin/helm template notifier helm/notifier -f "$$values" > "build/chart/$$(basename "$$values")" || exit 1; done
	@$(CHARTS)/bin/checkov --config-file deploy/checkov.yaml --directory build/chart $(ARGS)

dashboard: $(DEV)/.made ## write the Grafana dashboard, deploy/grafana/notifier.json, from its code in tools
	@$(DEV)/bin/python -m tools.dashboard > deploy/grafana/notifier.json

runbook: $(DEV)/.made ## copy the runbook and the reference of settings from the package to docs/; an edited copy is refused
	@$(DEV)/bin/python -m tools.reference_pages

LONG_FAULTS = NOTIFIER_TEST_FAULTS=long NOTIFIER_TEST_FAULTS_REPORT=$(CURDIR)/build/faults.jsonl \
	$(DEV)/bin/python -m pytest tests/faults $(ALONGSIDE) --deselect tests/faults/test_table.py $(ARGS)

faults: $(DEV)/.made ## make every fault in its long form, on RabbitMQ 3.10 and 4.x, and write docs/evidence/faults.md's table
	@rm -f build/faults.jsonl && mkdir -p build
	@$(LONG_FAULTS)
	@$(ON_4) $(LONG_FAULTS)
	@$(DEV)/bin/python -m tools.faults_table build/faults.jsonl

soak: $(DEV)/.made ## mix faults for MINUTES=30 beside a steady load, and see that nothing is lost and nothing grows; ARGS="--document"
	@mkdir -p build
	@$(DEV)/bin/python -m tests.faults.soak --minutes $(MINUTES) --json build/soak.json $(ARGS)

simulate: $(DEV)/.made ## hold the goals for clients in trouble in virtual time, in their long form, on all cores; up to an hour on two: ARGS="recovery overload"
	@$(DEV)/bin/python -m tests.simulator --curve $(RESULTS)/outage-lag.json $(ARGS)

fuzz: $(DEV)/.made ## read 100,000 made-up events and as many other odd inputs; about half an hour
	@NOTIFIER_TEST_FAULTS=long $(DEV)/bin/python -m pytest tests/fuzz $(ARGS)

bench: $(DEV)/.made ## measure what one core delivers, beside the ceiling; 1 min a case, 26 cases: ARGS="--case 'rabbitmq-*'"
	@$(DEV)/bin/python -m benchmarks.throughput --json $(RESULTS)/throughput.json $(ARGS)

bench-latency: $(DEV)/.made ## measure how long a logout is on its way at 10, 50 and 80 % of what a core can do; 5 min
	@$(DEV)/bin/python -m benchmarks.latency --json $(RESULTS)/latency.json $(ARGS)

bench-growth: $(DEV)/.made ## measure what a delivery costs with more of everything, and starts; 25 cases: ARGS="--case 'backlog-*'"
	@$(DEV)/bin/python -m benchmarks.growth --json $(RESULTS)/growth.json $(ARGS)

bench-scale: $(DEV)/.made ## measure what a second worker adds (as root), and what an event costs the broker; 1 min a case
	@$(DEV)/bin/python -m benchmarks.scale --json $(RESULTS)/scale.json $(ARGS)
	@$(DEV)/bin/python -m benchmarks.broker_cost --json $(RESULTS)/broker.json

bench-counted: $(DEV)/.made ## count the instructions of a delivery; fails if a case costs over 1 % more than recorded: ARGS=--record
	@$(DEV)/bin/python -m benchmarks.counted $(ARGS)

bench-plot: $(DEV)/.made ## write benchmarks/results into the documents: tables and pictures
	@$(DEV)/bin/python -m tools.performance.document $(ARGS)

bench-isolation: $(DEV)/.made ## measure what healthy clients feel of a faulty one; on a quiet machine, 2 to 6 min a case; fails if a limit is missed: ARGS="--case slow"
	@$(DEV)/bin/python -m benchmarks.isolation --json $(RESULTS)/isolation.json $(ARGS)

bench-attacks: $(DEV)/.made ## measure what a publisher, a stranger and a probe feel of attacks on the API; on a quiet machine, 20 s a case: ARGS="--case hellos"
	@$(DEV)/bin/python -m benchmarks.attacks --json $(RESULTS)/attacks.json $(ARGS)

image: ## build the image notifier:dev by docker, or by podman: ARGS="--build-arg …"
	@commit=$$(git rev-parse HEAD 2>/dev/null); $$(command -v docker || echo podman) build --tag notifier:dev \
		--build-arg COMMIT="$$commit" --build-arg REVISION="$$commit" $(ARGS) .

test-image: ## build the image by buildah and try it; no registry is needed (root on Debian; 4 min)
	@.ci/test-image $(ARGS)

publishers: $(DEV)/.made ## build the packages for identity servers into build/publishers: wheel, npm, jar (Maven), NuGet (.NET)
	@.ci/publishers $(DEV)/bin/python build/publishers

conformance: $(DEV)/.made ## try every publisher in the whole form: thousands of sign-outs, 30 kills: ARGS="--publisher python"
	@if command -v dotnet >/dev/null; then dotnet build -c Release publishers/duende/tests/Notifier.Host; fi
	@$(DEV)/bin/python -m pytest publishers/conformance --form whole $(ARGS)

sbom: $(SUPPLY)/.made ## write what the image is made of as CycloneDX: build/sbom.cdx.json
	@mkdir -p build
	@$(SUPPLY)/bin/cyclonedx-py requirements deploy/requirements-image.txt --pyproject pyproject.toml --mc-type application \
		--output-reproducible --sv 1.6 --output-file build/sbom.cdx.json 2>/dev/null
	@$(SUPPLY)/bin/python -m tools.vendor_console sbom build/sbom.cdx.json
	@echo "build/sbom.cdx.json: $$(grep -c '"purl"' build/sbom.cdx.json) packages"

audit: $(SUPPLY)/.made $(DEV)/.made ## ask PyPI, and npm, whether a package that is shipped has a known hole
	@$(SUPPLY)/bin/pip-audit --strict --disable-pip --require-hashes --requirement deploy/requirements-image.txt $(ARGS)
	@$(DEV)/bin/python -m tools.vendor_console audit

vendor: $(DEV)/.made ## write the console's libraries anew, as npm has them, at the versions of notifier/features/console/vendored.json
	@$(DEV)/bin/python -m tools.vendor_console

clean: ## remove the environments, caches and what builds leave behind
	@rm -rf $(RUN) $(DEV) $(SUPPLY) $(CHARTS) $(LOCKER) build dist *.egg-info publishers/python/build publishers/python/src/*.egg-info
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find notifier tests tools publishers benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# ── environments ────────────────────────────────────────────────────────────────────────────────────────────────

$(RUN)/.made: deploy/requirements.txt pyproject.toml | python
	@echo 'Making $(RUN) from $< (this once, about a minute) …'
	@$(PYTHON) -m venv --clear $(RUN)
	@$(RUN)/bin/python -m pip install $(PIP_FLAGS) --require-hashes -r $<
	@$(RUN)/bin/python -m pip install $(PIP_FLAGS) --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV)/.made: deploy/requirements-dev.txt pyproject.toml publishers/python/pyproject.toml | python
	@echo 'Making $(DEV) from $< (this once, about a minute) …'
	@$(PYTHON) -m venv --clear $(DEV)
	@$(DEV)/bin/python -m pip install $(PIP_FLAGS) --require-hashes -r $<
	@$(DEV)/bin/python -m pip install $(PIP_FLAGS) --no-deps --no-build-isolation --editable . --editable publishers/python
	@touch $@

# What looks at the packages is kept apart from them.
$(SUPPLY)/.made: deploy/requirements-supply.txt | python
	@$(PYTHON) -m venv --clear $(SUPPLY)
	@$(SUPPLY)/bin/python -m pip install $(PIP_FLAGS) --require-hashes -r $<
	@touch $@

$(CHARTS)/.made: deploy/requirements-chart.txt | python
	@echo 'Making $(CHARTS) from $< (this once, about a minute) …'
	@$(PYTHON) -m venv --clear $(CHARTS)
	@$(CHARTS)/bin/python -m pip install $(PIP_FLAGS) --require-hashes -r $<
	@touch $@

$(LOCKER)/.made: | python
	@$(PYTHON) -m venv --clear $(LOCKER)
	@$(LOCKER)/bin/python -m pip install $(PIP_FLAGS) 'uv>=0.8'
	@touch $@

# Debian's python3 comes without ensurepip, and then `python3 -m venv` fails half-way with a page of text.
python:
	@command -v $(PYTHON) >/dev/null || { \
		echo 'error: there is no "$(PYTHON)" here. Install Python 3.11 or newer (apt-get install python3 python3-venv), or name one: make PYTHON=/path/to/python3'; exit 1; } >&2
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: notifier needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make PYTHON=python3.12 …"; exit 1; } >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || .ci/python-venv $(PYTHON)
