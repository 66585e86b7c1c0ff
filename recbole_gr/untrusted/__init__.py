"""Files that somebody else may have written: nothing in them is run, and all of it is checked."""
