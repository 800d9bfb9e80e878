"""``sft.py``: TRL's ``SFTTrainer`` on local folders, with TRL's flags.

``command.main`` reads the command line (``command_line``, ``unsupported_flags``, ``flags``), makes
the automatic choices (``choices``), checks everything (``sft_run``, ``sft_rules``), and then loads
the data (``trl_dataset``) and trains (``trl_model``, ``trl_trainer``).
"""
