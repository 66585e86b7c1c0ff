"""Reading public raw files line by line; `recbole_gr.convert.command` is the command."""
