.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
STEPWISE := .venv/bin/stepwise
STAMP := .venv/.installed
PERF := .venv/perf_analyzer/.installed
# Two test groups, defined in tests/conftest.py, run in parallel.
PYTEST := $(PYTHON) -m pytest -n 2 --no-loadscope-reorder

define CHECKS
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
endef

PLAN := miniatures/plans/sdxl_turbo_w8a8

.PHONY: help demo test test-all plan miniatures exported videos quality quantized bench load caps perf soak leavers fuzz full-size \
	docs findings screenshot browser clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

demo: $(STAMP) ## Set up, export the miniatures, serve each when ready, make pictures and videos
	$(PYTHON) demo.py

test: $(STAMP) $(PERF) browser ## Set up, check the code, run the suite
	$(CHECKS)
	$(PYTEST) -m "not further"

test-all: $(STAMP) $(PERF) browser ## The same, with all parametrized cases and more generated ones
	$(CHECKS)
	DAMAGE_EXAMPLES=40 FUZZ_EXAMPLES=150 $(PYTEST)

miniatures: $(STAMP) ## Retrain the miniatures from scratch (a day on two cores; video ones use a GPU)
	$(PYTHON) -m miniatures

plan: $(STAMP) ## Recreate the demo's quantization plan for SDXL-Turbo (about ten minutes)
	$(STEPWISE) export sdxl_turbo --checkpoint miniatures/sdxl_turbo --quantize w8a8 --name sdxl_turbo_w8a8 \
		--prompts miniatures/calibration.txt --repository out/plan
	mkdir -p $(PLAN)
	cp out/plan/sdxl_turbo_w8a8_unet/1/plan.json out/plan/sdxl_turbo_w8a8_unet/1/ranges.json $(PLAN)/

exported: $(STAMP) ## Export all miniatures that are not yet exported
	$(STEPWISE) export sd3 --checkpoint miniatures/sd3
	$(STEPWISE) export sdxl --checkpoint miniatures/sdxl
	$(STEPWISE) export sdxl_turbo --checkpoint miniatures/sdxl_turbo
	$(STEPWISE) export easyanimate --checkpoint miniatures/easyanimate
	$(STEPWISE) export easyanimate_i2v --checkpoint miniatures/easyanimate_i2v

videos: exported ## Score 100 videos per pipeline, served and diffusers; measure decoding and sharing a server
	$(PYTHON) -m benchmarks videos --pipeline easyanimate
	$(PYTHON) -m benchmarks videos --pipeline easyanimate_i2v
	$(PYTHON) -m benchmarks decoder --pipeline easyanimate
	$(PYTHON) -m benchmarks together --pipeline easyanimate

quality: exported ## Score 300 pictures per pipeline, served and diffusers; for SD3 also in fp16
	$(PYTHON) -m benchmarks quality
	$(PYTHON) -m benchmarks quality --pipeline sdxl
	$(PYTHON) -m benchmarks quality --pipeline sdxl_turbo
	$(STEPWISE) export sd3 --checkpoint miniatures/sd3 --repository out/fp16 --precision fp16
	$(PYTHON) -m benchmarks quality --repository out/fp16

quantized: exported ## Compare MixDQ with stock quantizers on the SDXL-Turbo miniature (about an hour)
	$(PYTHON) -m benchmarks quality --pipeline sdxl_turbo --quantized

bench: exported ## Measure each pipeline's speed, two pipelines at once, and in-flight batching
	$(PYTHON) -m benchmarks latency
	$(PYTHON) -m benchmarks latency --pipeline sdxl
	$(PYTHON) -m benchmarks latency --pipeline sdxl_turbo
	$(PYTHON) -m benchmarks together
	$(PYTHON) -m benchmarks inflight

load: $(STAMP) ## Measure the server under load, batched and one at a time (about 12 minutes)
	$(STEPWISE) export sd3 --checkpoint miniatures/sd3
	$(PYTHON) -m benchmarks load

caps: $(STAMP) ## Measure how many rows a denoiser call should have
	$(STEPWISE) export sd3 --checkpoint miniatures/sd3
	$(PYTHON) -m benchmarks caps

perf: $(STAMP) $(PERF) ## Compare our load generator with NVIDIA's perf_analyzer
	$(STEPWISE) export sd3 --checkpoint miniatures/sd3
	$(PYTHON) -m benchmarks perf

soak: $(STAMP) ## Send good, cancelled, bad and late requests for 20 minutes, then cancel a thousand
	$(STEPWISE) export sd3 --checkpoint miniatures/sd3
	$(PYTHON) -m benchmarks soak --minutes 20
	$(PYTHON) -m benchmarks cancels

leavers: exported ## Let the clients of 20,000 requests leave at random moments
	$(PYTHON) -m benchmarks leavers

fuzz: $(STAMP) ## Send 2,000 generated requests and messages to a live server; damage 200 checkpoints
	FUZZ_EXAMPLES=2000 $(PYTHON) -m pytest tests/e2e/test_fuzz.py tests/e2e/test_fuzz_models.py -rP
	DAMAGE_EXAMPLES=200 $(PYTHON) -m pytest tests/unit/export/checkpoint/test_damage.py -rP

full-size: $(STAMP) ## Export, check, build and serve full-size components with random weights (hours, 45 GB of disk)
	$(PYTHON) -m miniatures full sdxl --output out/full/sdxl
	$(PYTHON) -m benchmarks.full_size component sdxl unet --checkpoint out/full/sdxl --side 512 --engine
	$(PYTHON) -m benchmarks.full_size component sdxl vae_decoder --checkpoint out/full/sdxl --side 512 --engine
	$(PYTHON) -m benchmarks.full_size quantized sdxl unet --checkpoint out/full/sdxl --side 512
	rm -rf out/full/sdxl
	$(PYTHON) -m miniatures full sdxl_turbo --output out/full/sdxl_turbo
	$(STEPWISE) export sdxl_turbo --checkpoint out/full/sdxl_turbo --precision fp16 --repository out/full/repository
	$(PYTHON) -m benchmarks.full_size served sdxl_turbo --checkpoint out/full/sdxl_turbo --repository out/full/repository
	rm -rf out/full/sdxl_turbo out/full/repository
	$(PYTHON) -m miniatures full sdxl_turbo_narrow --output out/full/sdxl_turbo_narrow
	$(STEPWISE) export sdxl_turbo --checkpoint out/full/sdxl_turbo_narrow --repository out/full/repository
	$(PYTHON) -m benchmarks.full_size encoders sdxl_turbo --repository out/full/repository
	rm -rf out/full/sdxl_turbo_narrow out/full/repository
	$(PYTHON) -m miniatures full sd3 --output out/full/sd3
	$(PYTHON) -m benchmarks.full_size component sd3 transformer --checkpoint out/full/sd3 --engine
	$(PYTHON) -m benchmarks.full_size component sd3 vae_decoder --checkpoint out/full/sd3 --side 512 --engine
	$(PYTHON) -m benchmarks.full_size component sd3 t5 --checkpoint out/full/sd3
	rm -rf out/full/sd3
	$(PYTHON) -m miniatures full easyanimate_shallow --output out/full/easyanimate_shallow
	$(PYTHON) -m benchmarks.full_size component easyanimate transformer --checkpoint out/full/easyanimate_shallow --engine
	rm -rf out/full/easyanimate_shallow
	$(PYTHON) -m miniatures full easyanimate --output out/full/easyanimate
	$(PYTHON) -m benchmarks.full_size written easyanimate transformer --checkpoint out/full/easyanimate
	rm -rf out/full/easyanimate
	$(PYTHON) -m benchmarks.full_size operators sd3
	$(PYTHON) -m benchmarks.full_size operators sdxl

docs: $(STAMP) ## Build the documentation into out/docs, and fail at a broken link
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

findings: ## Run every script of findings/, one after the other (downloads several packages)
	@status=0; for script in findings/*.sh; do echo "$$script"; bash "$$script" || status=1; done; exit $$status

screenshot: $(STAMP) browser ## Redraw docs/page.png
	SCREENSHOT=docs/page.png $(PYTHON) -m pytest tests/e2e/test_page.py -k readme

browser: ## Install Chromium for the page's tests, unless it is installed
	@command -v chromium > /dev/null || { [ "$$(id -u)" = 0 ] && apt-get update --quiet && \
		apt-get install --quiet --yes --no-install-recommends chromium; } || \
		{ echo "The tests of the page need Chromium: sudo apt-get install chromium" >&2; exit 1; }

clean: ## Remove the environment, exported graphs and pictures
	rm -rf .venv out
	git clean -fdqX model_repository

# The three distributions of this checkout, installed in editable mode.
DISTRIBUTIONS := client serving export

$(STAMP): requirements.txt constraints.txt $(DISTRIBUTIONS:%=%/pyproject.toml)
	python3 -m venv .venv
	$(PYTHON) -m pip install --quiet --upgrade pip
	$(PYTHON) -m pip install --quiet --no-compile -r requirements.txt -c constraints.txt
	@$(PYTHON) -m compileall -qq -j 0 .venv/lib || true  # on all cores; some packages contain templates
	$(PYTHON) -m pip install --quiet --no-deps --no-build-isolation $(DISTRIBUTIONS:%=--editable %)
	@touch $@

# The last tritonclient wheel with perf_analyzer; newer perf_analyzer builds need a newer glibc.
$(PERF): $(STAMP)
	$(PYTHON) -m pip install --quiet --no-deps --upgrade --target $(@D) tritonclient==2.50.0
	@touch $@
