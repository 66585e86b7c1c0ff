"""The commands beside a run: tokenize, SID features, verify."""
