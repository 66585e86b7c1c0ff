"""One run of one model, from its configuration to its test results."""
