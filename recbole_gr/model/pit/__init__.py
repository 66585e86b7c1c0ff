"""PIT: an item tokenizer and a generative recommender that are trained together (arXiv 2602.08530).

One item may own several SIDs. ``items`` makes the item vectors, ``alignment`` lets collaborative
signal into them, ``item_to_token`` proposes SIDs of an item, ``user_to_token`` generates the SID of
a user's next item, ``selection`` picks the proposal that suits the user best, ``index`` keeps the
weighted graph of items and SIDs that decoding may end on, ``evolving`` and ``moves`` let items move
to other SIDs, and ``model`` puts them together. The phases of training are in
:mod:`recbole_gr.trainer.pit`.

The text of the paper's method could only be read in part; where a docstring says *inferred* or
*ours* the choice is this project's own.
"""
