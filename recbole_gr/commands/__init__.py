"""What the program does beside a run: tokenize, SID features, verify."""
