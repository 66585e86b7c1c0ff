"""Short runs of a very small TIGER on the generated data set."""

SMALL = {
    "hidden_size": 16,
    "n_layers": 1,
    "n_heads": 2,
    "head_size": 8,
    "inner_size": 32,
    "dropout": 0.1,
    "beam_size": 15,
    "train_batch_size": 16,
    "MAX_ITEM_LIST_LENGTH": 10,
    "warmup_steps": 3,
    "epochs": 3,
    "show_progress": False,
    "topk": [5, 10],
}


def arguments(model, folder, name="tiny", **settings):
    """A command line for `model` on the data set `name` in `folder`; 8 codes a level for TIGER."""
    if "TIGER" in model:
        settings = {**SMALL, "epochs": 1, "codebook_size": 8, "content_dim": 8, **settings}
    settings = {"epochs": 1, "show_progress": False, "data_path": folder, **settings}
    pairs = [f"--{key}={value}" for key, value in settings.items()]
    return [f"--model={model}", f"--dataset={name}", *pairs]
