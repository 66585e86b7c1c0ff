"""Detection of tracing: code that is recorded into a graph instead of run."""

import torch


def exporting() -> bool:
    """True while ``torch.export`` records a graph that is to serve batches of any size.

    Code whose shapes follow from the values it finds takes shapes there that hold for all values.
    Versions of torch that cannot tell do not export either (`recbole-gr export` refuses).
    """
    return getattr(torch.compiler, "is_exporting", lambda: False)()
