"""Reading public raw files line by line; `recbole_gr.data.convert` is the command."""
