"""Search for the settings that score best on the validation targets, see `run_hyper.py`."""
