"""Job files: a Slurm script, a Kubernetes Job and a container file, with a run's flags."""
