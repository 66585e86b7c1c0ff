"""IntRR: one token per item, SIDs redistributed inside the model (arXiv 2602.20704).

The paper's text can only be read in part; what follows its released code and figures is cited as
*released*, and where a docstring says *inferred* the choice is this project's own.
"""
