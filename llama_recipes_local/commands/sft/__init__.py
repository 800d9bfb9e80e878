"""``sft.py``: TRL's ``SFTTrainer`` on local folders, with TRL's flags.

``command.main`` reads the words of the command line (``words``, ``refusals``, ``arguments``),
settles what was left open (``choices``), checks everything (``preflight``, ``checks``), and then
loads the data (``data``) and trains (``model``, ``training``).
"""
