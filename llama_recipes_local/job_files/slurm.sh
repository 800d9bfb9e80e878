#!/usr/bin/env bash
# Fine-tune on several nodes under Slurm, and resume after a time limit or a preemption:
#
#   sbatch --nodes 2 --gpus-per-node 8 llama_recipes_local/job_files/slurm.sh \
#       --model_name DIR --output_dir DIR --dataset NAME --use_peft --save_steps 100
#
# Run from the checkout, which all nodes see, as they do --output_dir. Every argument is one of
# finetuning.py; each start resumes from the newest complete checkpoint.

#SBATCH --job-name=finetune
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
# this script gets SIGUSR1 so many seconds before the time is up: longer than a checkpoint takes
#SBATCH --signal=B:USR1@300

set -euo pipefail

PATH=$PWD/.venv/bin:$PATH # which make and a bundle's install have made; it need not be there
ranks_per_node=${SLURM_GPUS_ON_NODE:-1}
head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
launch=(
    --nnodes "$SLURM_JOB_NUM_NODES" --nproc_per_node "$ranks_per_node"
    --rdzv_backend c10d --rdzv_id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}"
    --rdzv_endpoint "$head_node:${MASTER_PORT:-29500}"
    --max_restarts 0 # the ranks end when they have saved, and Slurm starts them again
)

# srun hands on the signals that it gets, and this launcher does so to its ranks, waits until they have
# saved, and ends with their exit code. torchrun itself would end at once.
srun --kill-on-bad-exit=0 python -m llama_recipes_local.torchrun "${launch[@]}" \
    finetuning.py --enable_fsdp "$@" --resume_from_checkpoint auto &
step=$!

time_is_up=
trap 'time_is_up=1; kill -USR1 $step' USR1
status=0
while kill -0 $step 2>/dev/null; do
    wait $step && status=0 || status=$?
done

# 75: a signal has come, such as the SIGTERM to srun alone at a preemption, and the ranks have saved
if [[ $time_is_up || $status == 75 ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
