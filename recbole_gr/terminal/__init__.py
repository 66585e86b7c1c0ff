"""Terminal output and command lines: log, progress bars, arguments, signals."""
