"""Stand-ins for the packages of RecBole's tree models: the few calls that RecBole makes."""

import json
import types

import numpy as np


class Booster:
    """Predicts the mean label of the column of item ids, halved where it has one tree only."""

    def __init__(self, params=None, cache=(), model_file=None):
        self.means, self.rounds = {}, 0
        if model_file is not None:
            self.read(model_file)

    def grow(self, data, label, before):
        self.rounds = 1 + (before.rounds if before else 0)
        for item in np.unique(data[:, ITEM]):
            self.means[int(item)] = float(label[data[:, ITEM] == item].mean())
        return self

    def predict(self, data):
        data = data.data if isinstance(data, Matrix) else data
        means = np.array([self.means.get(int(item), 0.5) for item in data[:, ITEM]])
        return means if self.rounds > 1 else means / 2

    def save_model(self, file):
        with open(file, "w") as out:
            json.dump([self.rounds, list(self.means.items())], out)

    def read(self, file):
        with open(file) as kept:
            self.rounds, means = json.load(kept)
        self.means = dict(means)


class Loading(Booster):  # as that of XGBoost
    load_model = Booster.read


Loading.__name__ = "Booster"
ITEM = 1  # the column: user, item, ...


class Matrix:
    def __init__(self, data, label=None, **_):
        self.data, self.label = data, label

    def get_label(self):
        return self.label


def _train_xgboost(params, train, rounds, evals, xgb_model=None, **_):
    before = None if xgb_model is None else Loading(model_file=xgb_model)
    return Loading().grow(train.data, train.label, before)


def _train_lightgbm(params, train, rounds, evals):
    return Booster().grow(train.data, train.label, None)


def packages():
    """The modules by name."""
    xgboost, lightgbm = types.ModuleType("xgboost"), types.ModuleType("lightgbm")
    xgboost.Booster, xgboost.DMatrix, xgboost.train = Loading, Matrix, _train_xgboost
    lightgbm.Booster, lightgbm.Dataset, lightgbm.train = Booster, Matrix, _train_lightgbm
    return {"xgboost": xgboost, "lightgbm": lightgbm}
