"""Log-probabilities of single targets, where what a model gives are probabilities."""

import numpy as np
import pytest
import torch
from data_helpers import rows_by_user
from runs import RUNS

from recbole_gr import registry
from recbole_gr.config import Config
from recbole_gr.data import create_dataset, data_preparation
from recbole_gr.run.model import build_model
from recbole_gr.trainer.ranks import ranks_for

OWN = {"TIGER": {}, "IntRR": {"uid_size": 12, "ran_hidden_size": 24}, "PIT": RUNS["PIT"][1]}
OWN["RPG"] = {}
ASKED = {"eval_likelihood": True}


def evaluated(config, trainer, train, valid, test):
    trainer.eval_collector.data_collect(train)
    trainer.ranks = ranks_for(config, trainer.model, (train, valid), test)
    result = dict(trainer.evaluate(test, load_best_model=False))
    return result, trainer.ranks.arrays(test._dataset)


@pytest.fixture
def likelihood_of(tiny_folder, tmp_path, monkeypatch):
    """A function from a model of RecBole's to its `log_likelihood`, its scores and its targets."""
    monkeypatch.chdir(tmp_path)

    def likelihood_of(name, **options):
        settings = {"data_path": str(tiny_folder), "show_progress": False, **ASKED, **options}
        settings |= {} if name == "BPR" else {"MAX_ITEM_LIST_LENGTH": 10}
        config = Config(name, "tiny", config_dict=settings)
        loaders = data_preparation(config, create_dataset(config))
        model = build_model(config, loaders[0]._dataset).eval()
        trainer = registry.get_trainer(config, config.model_class)(config, model)
        ranks = evaluated(config, trainer, *loaders)[1]
        rows = rows_by_user(loaders[-1])
        with torch.no_grad():
            return ranks.get("log_likelihood"), model.full_sort_predict(rows), rows["item_id"]

    return likelihood_of


@pytest.mark.parametrize("model", ["SASRec", "BERT4Rec"])
def test_of_cross_entropy_it_is_the_softmax_over_the_catalogue(model, likelihood_of):
    found, scores, items = likelihood_of(model, eval_batch_size=700)
    weights = np.exp(scores.double().numpy()[:, 1:])  # without the padding item
    expected = weights[np.arange(len(items)), items.numpy() - 1] / weights.sum(1)
    assert found.dtype == np.float32 and found == pytest.approx(np.log(expected), abs=1e-5)


BPR = {"loss_type": "BPR", "train_neg_sample_args": RUNS["SASRec-BPR"][1]["train_neg_sample_args"]}


@pytest.mark.parametrize(
    "model, options",
    [
        ("SASRec", BPR),
        ("SASRecCPR", {"reranker_CAN_NUM": 5}),
        ("BPR", {}),
        ("SASRec", {**ASKED, "eval_likelihood": False}),
    ],
)
def test_where_scores_are_no_logits_or_nobody_asks_there_is_none(model, options, likelihood_of):
    assert likelihood_of(model, **options)[0] is None


@pytest.mark.parametrize("metrics", [["Recall"], ["Recall", "GAUC"]])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("model", OWN)
def test_of_generative_models_it_is_that_of_the_exact_scores(model, shared, metrics, parts):
    options = {**OWN[model], "metrics": metrics, "valid_metric": "Recall@10"}
    config, trainer, *loaders = parts(
        shared, model, **{**options, "beam_size": 10, "eval_batch_size": 17}
    )
    figures, none = evaluated(config, trainer, *loaders)
    config["eval_likelihood"] = True
    same, ranks = evaluated(config, trainer, *loaders)
    assert same == figures and "log_likelihood" not in none
    rows = rows_by_user(loaders[-1])
    with torch.no_grad():
        exact = trainer.model.exact(rows)
    expected = exact[torch.arange(len(rows)), rows["item_id"]].numpy()
    assert ranks["user"].tolist() == rows["user_id"].tolist()
    assert ranks["log_likelihood"].dtype == np.float32 and (expected < 0).all()
    assert ranks["log_likelihood"] == pytest.approx(expected, abs=1e-4)
