"""The page of runs: what their folders hold, drawn and written as one file of HTML."""
