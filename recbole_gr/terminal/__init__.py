"""What a user sees in the terminal: lines of the log, bars, help, and how to go on."""
