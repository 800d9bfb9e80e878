"""``train_config``: upstream's fields and defaults, local folders, and the fork's own flags."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from llama_recipes_local._upstream import load_alone
from llama_recipes_local.configs.optimizer_names import SCHEDULERS
from llama_recipes_local.fields import (
    ABOVE_0,
    AT_LEAST_0,
    AT_LEAST_1,
    AUTOMATIC,
    BITS_64,
    EVALUATION,
    FOLDER,
    OF_ONE_RUN,
    SELECTS_PARAMETERS,
    SHARE,
    TEXT,
    WITH_FSDP,
    Choices,
    Needs,
    Range,
    Resume,
)

if TYPE_CHECKING:
    from llama_recipes_local._vendor.llama_recipes.configs.training import train_config as upstream
else:
    upstream = load_alone("configs.training").train_config

REPORTERS = Choices("tensorboard", "wandb", "mlflow", "swanlab")
SECONDS = Range("from 1 to 1000000", lambda seconds: 1 <= seconds <= 10**6)
CHECKPOINTED = Needs("save_steps", why="no checkpoint would be saved")
RESUMED = Needs("resume_from_checkpoint", why="no run would be resumed")
AUTO, KEEP, SELECTIVE, FULL, OFFLOAD = "auto", "keep", "selective", "full", "offload"
TOP_LAYERS = Range("from 0 to 1000", lambda layers: 0 <= layers <= 1000)
RECOMPUTING = (FULL, OFFLOAD)
LOSS, GLEU, ROUGE_L, STOP_SHARE = "loss", "gleu", "rougeL", "stop_share"
HIGHER_IS_BETTER = {LOSS: False, GLEU: True, ROUGE_L: True, STOP_SHARE: True}
"""The metrics that the best model is chosen by."""
ANSWERED_AT_A_TIME, LONGEST_ANSWER = 8, 100
"""Prompts completed together for such metrics, and tokens of an answer, as of ``evaluate``."""
BEST_METRICS = {
    prefix + name: metric
    for metric, names in {
        LOSS: ("loss",),
        GLEU: ("gleu",),
        ROUGE_L: ("rougel", "rouge_l", "rouge-l", "rouge"),
        STOP_SHARE: ("stop_share", "stop-share"),
    }.items()
    for name in names
    for prefix in ("", "eval_")
}
"""What they are called in flags, in lower case; transformers' Trainer has eval_loss."""
POLICIES = Choices(AUTO, KEEP, SELECTIVE, FULL, OFFLOAD)  # of activations
QUANTIZATIONS = Choices(None, False, True, "4bit", "8bit")
ATTENTIONS = Choices(AUTO, "documents", "sdpa", "eager", "flash_attention_2")
DESPITE = Choices(*(kind.value for kind in Resume if kind is not Resume.FREE))


@dataclass
class train_config(upstream):
    """How to train. A default of ``upstream.NAME`` is upstream's."""

    # upstream's, in upstream's order

    model_name: Annotated[str, FOLDER, Resume.MODEL, EVALUATION] = ""
    """Folder of the model to fine-tune, in the Hugging Face layout."""

    # upstream says that this one and quantization are a str
    tokenizer_name: Annotated[str | None, FOLDER, Resume.TOKENIZER, EVALUATION] = None  # type: ignore[assignment]
    """Folder of the tokenizer; None means the model's."""

    enable_fsdp: Annotated[bool, Resume.FREE] = upstream.enable_fsdp
    """Run under torchrun on several ranks, with FSDP2."""

    low_cpu_fsdp: Annotated[bool, Resume.FREE] = upstream.low_cpu_fsdp
    """Each rank reads only its own shard of the weights."""

    run_validation: Annotated[bool, Resume.FREE] = upstream.run_validation
    """Validate before training, and after each epoch or each ``eval_steps``."""

    batch_size_training: Annotated[int, ABOVE_0, Resume.BATCH, AUTOMATIC] = (
        upstream.batch_size_training
    )
    """Rows of a rank's micro-batch. "auto" chooses the fastest that fits, and sets
    ``gradient_accumulation_steps`` so that an optimiser step keeps its number of rows."""

    batching_strategy: Annotated[str, Choices("packing", "padding"), Resume.DATA, EVALUATION] = (
        upstream.batching_strategy
    )
    """"packing" fills rows with whole documents, "padding" pads each to the longest of its
    batch."""

    length_group_size: Annotated[
        int, AT_LEAST_0, Resume.FREE, Needs("batching_strategy=padding")
    ] = 0
    """How many rows of similar length come one after another; 0 means ``batch_size_training``. A
    run that had to use smaller micro-batches records it, so that it can be repeated."""

    context_length: Annotated[int, ABOVE_0, Resume.DATA, EVALUATION] = upstream.context_length
    """The number of tokens in a row; longer samples are truncated."""

    gradient_accumulation_steps: Annotated[int, ABOVE_0, Resume.BATCH] = (
        upstream.gradient_accumulation_steps
    )
    """Micro-batches in an optimiser step."""

    gradient_clipping: Annotated[bool, Resume.SCHEDULE] = upstream.gradient_clipping
    """Scale down gradients whose norm is above the threshold."""

    gradient_clipping_threshold: Annotated[
        float, ABOVE_0.when("gradient_clipping"), Resume.SCHEDULE, Needs("gradient_clipping")
    ] = upstream.gradient_clipping_threshold
    """The largest norm with ``gradient_clipping``."""

    num_epochs: Annotated[int, ABOVE_0, Resume.FREE] = upstream.num_epochs
    """Passes over the training data."""

    max_train_step: Annotated[int, AT_LEAST_0, Resume.FREE] = upstream.max_train_step
    """Optimiser steps after which the run ends; 0 means no limit."""

    max_eval_step: Annotated[int, AT_LEAST_0, Resume.FREE, EVALUATION] = upstream.max_eval_step
    """The most batches of a validation; 0 means all."""

    num_workers_dataloader: Annotated[int, AT_LEAST_0, Resume.FREE] = (
        upstream.num_workers_dataloader
    )
    """Worker processes that prepare batches, for each rank; at most 16, or 4 for each CPU."""

    lr: Annotated[float, ABOVE_0, Resume.SCHEDULE] = upstream.lr
    """Learning rate."""

    weight_decay: Annotated[float, AT_LEAST_0, Resume.SCHEDULE] = upstream.weight_decay
    """Decoupled weight decay of the optimiser."""

    # at 0 or below, the rate would be 0 or negative from the second epoch on
    gamma: Annotated[float, ABOVE_0, Resume.SCHEDULE] = upstream.gamma
    """Factor that the scheduler "step" multiplies the rate by after each epoch."""

    seed: Annotated[int, BITS_64, Resume.DATA, EVALUATION] = upstream.seed
    """Seed of the order of the data, dropout and the initial weights of adapters."""

    use_fp16: Annotated[bool, Resume.METHOD, EVALUATION] = upstream.use_fp16
    """Compute in float16 with a gradient scaler instead of in bfloat16."""

    mixed_precision: Annotated[bool, Resume.FREE, EVALUATION] = upstream.mixed_precision
    """Mixed precision on CUDA: compute in bfloat16, or in float16 with ``use_fp16``."""

    val_batch_size: Annotated[int, ABOVE_0, Resume.FREE, EVALUATION] = upstream.val_batch_size
    """Rows of a rank's batch in validation."""

    peft_method: Annotated[str, Choices(source="adapters.registry:METHODS"), Resume.METHOD] = (
        upstream.peft_method
    )
    """Adapter method for ``use_peft``."""

    use_peft: Annotated[bool, Resume.METHOD] = upstream.use_peft
    """Train an adapter, see ``peft_method``; the model's own weights stay unchanged."""

    from_peft_checkpoint: Annotated[str, FOLDER, Resume.FREE, Needs("use_peft")] = (
        upstream.from_peft_checkpoint
    )
    """Folder of an adapter to continue training."""

    allow_other_base: Annotated[bool, Resume.FREE, Needs("from_peft_checkpoint")] = False
    """Allow an adapter on another base model than the one that it was trained on; by default this
    is refused."""

    output_dir: Annotated[str, FOLDER, Resume.FREE, OF_ONE_RUN] = "outputs"
    """Folder that the adapter or model is saved in."""

    overwrite_output_dir: Annotated[bool, Resume.FREE, OF_ONE_RUN] = False
    """Replace what an earlier run wrote into ``output_dir``; by default this is refused."""

    freeze_layers: Annotated[bool, Resume.METHOD, SELECTS_PARAMETERS] = upstream.freeze_layers
    """Do not train the first ``num_freeze_layers`` decoder layers."""

    num_freeze_layers: Annotated[
        int,
        AT_LEAST_1.when("freeze_layers"),
        Resume.METHOD,
        SELECTS_PARAMETERS,
        Needs("freeze_layers"),
    ] = upstream.num_freeze_layers
    """How many layers ``freeze_layers`` freezes."""

    quantization: Annotated[bool | str | None, QUANTIZATIONS, Resume.METHOD, EVALUATION] = None  # type: ignore[assignment]
    """"4bit" or "8bit"; None does not quantise the weights, True is upstream's old name for
    "8bit"."""

    one_gpu: Annotated[bool, Resume.FREE] = upstream.one_gpu
    """No effect; accepted for compatibility. Without ``enable_fsdp`` there is one process
    anyway."""

    save_model: Annotated[bool, Resume.FREE] = upstream.save_model
    """Save the adapter or model; with validation, the best one."""

    dist_checkpoint_root_folder: Annotated[str, FOLDER, Resume.FREE, OF_ONE_RUN] = "checkpoints"
    """Folder for the checkpoints of fully sharded models, below the working directory."""

    dist_checkpoint_folder: Annotated[str, TEXT, Resume.FREE, OF_ONE_RUN] = (
        upstream.dist_checkpoint_folder
    )
    """Prefix of the name of a sharded model's folder, in ``dist_checkpoint_root_folder``."""

    save_optimizer: Annotated[bool, Resume.FREE, WITH_FSDP] = upstream.save_optimizer
    """Save the optimiser's state with a full model that FSDP trains."""

    use_fast_kernels: Annotated[bool, Resume.FREE] = upstream.use_fast_kernels
    """Use fused kernels on CUDA. Also choose the fastest sharding, recomputation and micro-batch
    that fit, where no flag sets them; the choice is printed with its reason."""

    use_wandb: Annotated[bool, Resume.FREE] = upstream.use_wandb
    """Log to Weights & Biases, offline unless ``wandb_config.mode`` says otherwise."""

    save_metrics: Annotated[bool, Resume.FREE] = upstream.save_metrics
    """Also write all losses into one JSON file."""

    flop_counter: Annotated[bool, Resume.FREE] = upstream.flop_counter
    """Count the floating-point operations of a step."""

    flop_counter_start: Annotated[int, AT_LEAST_0, Resume.FREE, Needs("flop_counter")] = (
        upstream.flop_counter_start
    )
    """The step that ``flop_counter`` counts."""

    use_profiler: Annotated[bool, Resume.FREE] = upstream.use_profiler
    """Write traces of some steps into ``profiler_dir``."""

    profiler_dir: Annotated[str, FOLDER, Resume.FREE, OF_ONE_RUN, Needs("use_profiler")] = (
        "profiles"
    )
    """Folder for the traces of ``use_profiler``."""

    # the fork's own; upstream has a data set's name too, but without a type, so no flag reaches it

    dataset: Annotated[
        str,
        Choices(
            source="datasets.registry:DATASETS",
            otherwise="name one of them, or a file or folder of yours: --dataset PATH",
        ),
        Resume.DATA,
        EVALUATION,
    ] = "samsum_dataset"
    """Name of the data set, or the path of your own files (a file, folder or glob pattern), read as
    local_dataset."""

    dry_run: Annotated[bool, Resume.FREE, OF_ONE_RUN] = False
    """Check the run, prepare its data, print the memory and time that it would take, and stop
    before a weight is loaded."""

    rehearse: Annotated[bool, Resume.FREE, OF_ONE_RUN] = False
    """Try the whole run on the CPU with a model of two layers, in about two minutes: train, be
    killed, resume, merge, generate, evaluate and report; then print the plan and write job
    files."""

    samples: Annotated[int, AT_LEAST_0, Resume.FREE] = 0
    """How many prompts of the validation part to answer before and after training; the answers are
    printed at the end."""

    config: Annotated[str, FOLDER, Resume.FREE, OF_ONE_RUN] = ""
    """Read settings from a recipe (``llama-recipes-local recipes`` lists their names), a YAML or
    JSON file, or a run's run_config.json, which repeats that run. Flags override them. Relative
    paths, also those in the file, start from the working directory."""

    train_only: Annotated[str, TEXT, Resume.METHOD, SELECTS_PARAMETERS] = ""
    """Which weights are trained without an adapter: "lm_head" only the head, "last:N" only the last
    N decoder layers (not the final normalisation or the head), "" all of them."""

    top_layers: Annotated[int, TOP_LAYERS, Resume.METHOD, SELECTS_PARAMETERS] = 0
    """How many new fully connected layers to add between the last hidden state and the head. Only
    they are trained; they are saved with the model."""

    data_root: Annotated[str, FOLDER, Resume.FREE, EVALUATION] = ""
    """Folder that relative data paths start from; empty means ``LLAMA_RECIPES_DATA_ROOT`` or the
    working directory."""

    data_cache: Annotated[str, FOLDER, Resume.FREE, OF_ONE_RUN] = ""
    """Folder that tokens are cached in; empty means ``LLAMA_RECIPES_CACHE`` or
    ``~/.cache/llama-recipes-local``."""

    tokens_path: Annotated[str, FOLDER, Resume.FREE, EVALUATION] = ""
    """Folder that ``prepare tokens`` made: data tokenised in advance, used instead of its files."""

    dtype: Annotated[str, Choices("auto", source="fields:DTYPES"), Resume.METHOD, EVALUATION] = (
        "auto"
    )
    """The dtype in which the weights are stored: "bfloat16", "float16", "float32" or "auto", which
    is bfloat16 on CUDA (with ``use_fp16`` float16) and float32 on the CPU."""

    attn_implementation: Annotated[str, ATTENTIONS, Resume.FREE, EVALUATION] = "auto"
    """Attention kernel: "auto", "documents" (this package's, which keeps packed documents apart
    without a mask), or one of transformers': "sdpa", "eager", "flash_attention_2"."""

    fp8: Annotated[bool, Resume.METHOD] = False
    """Multiply by the decoder layers' weights in fp8, on Hopper and later, at about twice the rate
    of bfloat16. Frozen weights are kept in fp8, in half the memory; the saved result is not in
    fp8, nor is a validation of trained weights."""

    gradient_checkpointing: Annotated[bool, Resume.FREE] = False
    """Recompute each layer's activations in the backward pass: less memory for about a third more
    work. With FSDP, ``fsdp_activation_checkpointing`` decides this instead."""

    activation_policy: Annotated[str, POLICIES, Resume.FREE, AUTOMATIC] = AUTO
    """What is kept of each layer for the backward pass: "keep" all activations, "selective" all but
    the norms' outputs, which are recomputed, "full" only its input, so that everything is
    recomputed, "offload" its input in host memory; "auto" chooses the fastest that fits. By default
    it is "keep"; with ``gradient_checkpointing`` or ``fsdp_activation_checkpointing`` it is "full",
    or on CUDA with ``use_fast_kernels`` "offload"."""

    scheduler: Annotated[str, Choices(*SCHEDULERS), Resume.SCHEDULE] = "step"
    """Learning-rate schedule: "step" (upstream's, which multiplies by ``gamma`` after each epoch),
    or per optimiser step "constant", "linear", "cosine" or "wsd" (warm up, stay, decay)."""

    loraplus_lr_ratio: Annotated[float, AT_LEAST_0, Resume.METHOD] = 0.0
    """The learning rate of LoRA's B matrices as a multiple of ``lr`` (LoRA+, 2402.12354); 0 means
    the same."""

    train_new_tokens: Annotated[bool, Resume.METHOD] = False
    """Train embedding rows for the tokenizer's new tokens, which start as the mean of the other
    rows. With LoRA they are saved as PEFT's trainable tokens, separate from the embedding."""

    warmup_steps: Annotated[int, AT_LEAST_0, Resume.SCHEDULE] = 0
    """Optimiser steps in which the rate rises to ``lr``, with any scheduler."""

    min_lr_ratio: Annotated[float, SHARE, Resume.SCHEDULE] = 0.0
    """The rate at the end of "linear", "cosine" and "wsd", as a fraction of ``lr``."""

    wsd_decay_ratio: Annotated[
        float, Range("above 0 and at most 1", lambda share: 0 < share <= 1), Resume.SCHEDULE
    ] = 0.1
    """The last part of the run in which "wsd" decays, as a fraction of its steps."""

    eval_steps: Annotated[int, AT_LEAST_0, Resume.FREE] = 0
    """Optimiser steps from one validation to the next; 0 validates after each epoch."""

    eval_generation_rows: Annotated[int, AT_LEAST_0, Resume.FREE] = 0
    """How many rows of the validation part the model answers at each validation, by greedy
    decoding, for GLEU, ROUGE-L and the share of answers that stop. In a mixture they are taken from
    the source with the largest weight. 0 means none."""

    metric_for_best_model: Annotated[
        str, Choices(*HIGHER_IS_BETTER, also=BEST_METRICS, any_case=True), Resume.FREE
    ] = LOSS
    """The metric that decides which model is saved: "loss", or a metric of the answers to
    ``eval_generation_rows``: "gleu", "rougeL" or "stop_share". The prefix "eval_" is accepted."""

    early_stopping_patience: Annotated[int, AT_LEAST_0, Resume.FREE] = 0
    """Validations without improvement after which the run ends; 0 means never."""

    early_stopping_threshold: Annotated[
        float, AT_LEAST_0, Resume.FREE, Needs("early_stopping_patience")
    ] = 0.0
    """By how much a validation must be better than the best one to count as an improvement."""

    verbose: Annotated[bool, Resume.FREE] = False
    """Also print upstream's own lines and the libraries' loading bars; ``run.log`` always has the
    lines."""

    report_to: Annotated[list[str], REPORTERS, Resume.FREE] = field(default_factory=list)
    """Loggers in addition to ``metrics.jsonl``: "tensorboard", "wandb", "mlflow", "swanlab"; all
    write below ``output_dir``."""

    save_steps: Annotated[int, AT_LEAST_0, Resume.FREE] = 0
    """Optimiser steps from one checkpoint to the next; 0 saves one only when a signal asks."""

    save_total_limit: Annotated[int, AT_LEAST_0, Resume.FREE, CHECKPOINTED] = 0
    """How many of the newest checkpoints to keep; the best one is kept in addition. 0 keeps all."""

    async_save: Annotated[bool, Resume.FREE, CHECKPOINTED] = False
    """Continue training while a checkpoint is written from a copy in host memory."""

    process_group_timeout: Annotated[int, SECONDS, Resume.FREE] = 1800
    """Seconds that a rank waits for another before the run ends."""

    resume_from_checkpoint: Annotated[str, FOLDER, Resume.FREE, OF_ONE_RUN] = ""
    """Folder of a checkpoint to resume from, or "auto": the newest complete one in ``output_dir``,
    or from scratch if there is none."""

    resume_despite: Annotated[list[str], DESPITE, Resume.FREE, OF_ONE_RUN, RESUMED] = field(
        default_factory=list
    )
    """What may differ from the run that is resumed: "data", "tokenizer", "batch", "model",
    "method", "schedule"."""
