"""Claims about settings: precedence, defaults, parsing, and what bad settings are answered with."""

import sys
from pathlib import Path

import pytest
import torch
import yaml

from recbole_gr import registry
from recbole_gr.config import Config
from recbole_gr.config.defaults import default_settings
from recbole_gr.config.parsing import SettingsLoader, parse_value, properties_dir
from recbole_gr.distributed import processes
from recbole_gr.errors import ConfigError
from recbole_gr.terminal.arguments import joined


@pytest.fixture
def make(tiny_folder):
    """Config of a model on the tiny data set; keywords are settings of the command line."""

    def make(model="SASRec", config_dict=None, config_file_list=None, other_models=(), **settings):
        arguments = [f"--{key}={value}" for key, value in settings.items()]
        return Config(
            model,
            "tiny",
            config_file_list,
            {"data_path": str(tiny_folder), **(config_dict or {})},
            arguments,
            other_models,
        )

    return make


def write_yaml(path, **settings):
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return str(path)


def test_command_line_wins_over_dict_over_file_over_defaults(make, tmp_path):
    file = write_yaml(tmp_path / "a.yaml", epochs=11, n_layers=11, hidden_size=32, seed=11)
    config = make(config_file_list=[file], config_dict={"epochs": 22, "n_layers": 22}, epochs=33)
    assert (config["epochs"], config["n_layers"], config["hidden_size"]) == (33, 22, 32)
    assert config["n_heads"] == 2  # RecBole's SASRec.yaml
    assert config["valid_metric"] == "NDCG@10"  # our overall.yaml over RecBole's MRR@10


def test_later_files_win_and_config_files_argument_is_a_file_too(make, tmp_path):
    first = write_yaml(tmp_path / "a.yaml", epochs=1, seed=1)
    second = write_yaml(tmp_path / "b.yaml", epochs=2)
    third = write_yaml(tmp_path / "c.yaml", seed=3)
    config = make(config_file_list=[first, second], config_files=f"{third}")
    assert (config["epochs"], config["seed"]) == (2, 3)
    assert make(config_files=f"{first},{second}")["epochs"] == 2


def test_sys_argv_is_never_read(make, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program", "--epochs=77", "--nonsense=1"])
    assert make()["epochs"] == 300


def test_own_defaults_are_found_beside_the_package_or_in_it():
    assert (properties_dir() / "overall.yaml").is_file()


@pytest.mark.parametrize(
    "text, value",
    [
        ("0.5", 0.5),
        ("1e-3", 1e-3),
        ("[5,10]", [5, 10]),
        ("[Recall, NDCG]", ["Recall", "NDCG"]),
        ("{'split': {'LS': 'valid_and_test'}}", {"split": {"LS": "valid_and_test"}}),
        ("{split: {LS: valid_and_test}}", {"split": {"LS": "valid_and_test"}}),
        ("True", True),
        ("false", False),
        ("~", None),
        ("None", None),
        ("null", None),
        ("0,1", (0, 1)),
        ("NDCG@10", "NDCG@10"),
        ("[5,inf)", "[5,inf)"),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
        ("max(1, 2)", "max(1, 2)"),
        ("", ""),
    ],
)
def test_values_are_read_as_literals_and_nothing_is_executed(text, value):
    assert parse_value(text) == value and type(parse_value(text)) is type(value)


def test_an_interval_stays_text_even_where_it_looks_like_a_list():
    assert parse_value("[5,10]", "user_inter_num_interval") == "[5,10]"


def test_yaml_files_may_not_build_objects(make, tmp_path):
    file = tmp_path / "evil.yaml"
    file.write_text("epochs: !!python/object/apply:os.getpid []\n")
    with pytest.raises(ConfigError, match="evil.yaml"):
        make(config_file_list=[str(file)])


def test_numbers_with_an_exponent_are_numbers_and_pyyaml_itself_is_left_alone():
    assert yaml.load("a: 1e-5", Loader=SettingsLoader) == {"a": 1e-5}
    assert yaml.safe_load("a: 1e-5") == {"a": "1e-5"}


@pytest.mark.parametrize("key, near", [("learning_rat", "learning_rate"), ("TOPK", "topk")])
def test_unknown_key_on_the_command_line_names_the_nearest(make, key, near):
    with pytest.raises(ConfigError, match=rf"'{key}' \(command line\), did you mean '{near}'"):
        make(**{key: 1})


def test_unknown_key_in_a_file_or_dict_names_its_source(make, tmp_path):
    file = write_yaml(tmp_path / "mine.yaml", hiden_size=3)
    with pytest.raises(ConfigError, match=r"'hiden_size' \(file .*mine\.yaml.*'hidden_size'"):
        make(config_file_list=[file])
    with pytest.raises(ConfigError, match=r"'hiden_size' \(config_dict\)"):
        make(config_dict={"hiden_size": 3})


def test_key_of_another_model_is_refused_alone_and_left_out_beside_that_model(make):
    with pytest.raises(ConfigError, match="'n_heads'"):
        make("Pop", n_heads=4)
    assert make("Pop", n_heads=4, other_models=["SASRec"])["n_heads"] is None
    assert make("SASRec", n_heads=4, other_models=["Pop"])["n_heads"] == 4


def test_computed_keys_cannot_be_set(make):
    with pytest.raises(ConfigError, match="'device'.*computed"):
        make(device="cpu")


def test_keys_that_recbole_reads_without_a_default_are_known(make):
    assert make("BPR", reg_weight=0.1)["reg_weight"] == 0.1  # read by RecBole's trainer


@pytest.mark.parametrize("argument", ["epochs=3", "--epochs", "-e=3", "--model SASRec"])
def test_arguments_of_another_form_are_refused_with_the_right_form(tiny_folder, argument):
    with pytest.raises(ConfigError, match="--.*=VALUE"):
        Config("Pop", "tiny", config_dict={"data_path": str(tiny_folder)}, cmd_args=[argument])


def test_a_space_stands_for_the_equals_sign(tiny_folder):
    path = {"data_path": str(tiny_folder)}
    arguments = ["--epochs", "3", "--exclude_history", "no", "--seed=1", "--topk", "[5,10]"]
    config = Config("TIGER", "tiny", config_dict=path, cmd_args=arguments)
    assert [config[key] for key in ("epochs", "exclude_history", "seed")] == [3, False, 1]
    assert joined(["--quiet", "a", "--learning_rate", "-1", "--k=1", "b"]) == [
        "--quiet", "a", "--learning_rate=-1", "--k=1", "b",
    ]  # fmt: skip


def test_one_key_twice_with_different_values_is_refused(tiny_folder):
    given = {"data_path": str(tiny_folder)}
    with pytest.raises(ConfigError, match="epochs"):
        Config("Pop", "tiny", config_dict=given, cmd_args=["--epochs=1", "--epochs=2"])


def test_softmax_loss_of_sequential_models_needs_no_setting_of_negatives(make):
    for model in ("SASRec", "GRU4Rec", "BERT4Rec"):
        assert make(model)["train_neg_sample_args"]["distribution"] == "none"
    assert make("SASRec", loss_type="BPR")["train_neg_sample_args"]["distribution"] == "uniform"
    asked = "{'distribution': 'uniform', 'sample_num': 1}"
    with pytest.raises(ConfigError, match="train_neg_sample_args"):
        make("SASRec", train_neg_sample_args=asked)


def test_counting_models_are_not_fed_sampled_negatives(make):
    assert make("Pop")["train_neg_sample_args"]["distribution"] == "none"
    assert make("BPR")["train_neg_sample_args"]["distribution"] == "uniform"


@pytest.mark.parametrize("model", ["Pop", "BPR", "LightGCN", "SASRec", "BERT4Rec", "KGAT"])
def test_ranking_models_of_all_types_share_one_protocol(make, model):
    config, reference = make(model), make("SASRec")
    for key in ("eval_args", "metrics", "topk", "valid_metric", "repeatable"):
        assert config[key] == reference[key]
    assert config["eval_args"]["split"] == {"LS": "valid_and_test"}
    assert config["eval_args"]["order"] == "TO" and config["repeatable"] is True


def test_context_models_keep_recboles_protocol_unless_told_otherwise(make):
    config = make("DeepFM")
    assert (
        config["metrics"] == ["AUC", "LogLoss"] and config["eval_args"]["mode"]["test"] == "labeled"
    )
    assert config["eval_args"]["split"] == {"RS": [0.8, 0.1, 0.1]}
    changed = make("DeepFM", metrics="['AUC']")
    assert changed["metrics"] == ["AUC"]


def test_eval_args_may_be_given_in_part(make):
    config = make(eval_args="{'mode': 'uni50'}")
    assert config["eval_args"]["order"] == "TO"
    assert config["eval_args"]["mode"] == {"valid": "uni50", "test": "uni50"}


def test_missing_data_folder_is_refused_with_its_path(make, tmp_path):
    with pytest.raises(ConfigError, match=rf"'{tmp_path}/tiny'.*--data_path"):
        make(data_path=tmp_path)


def test_data_path_that_is_the_data_set_itself_gets_a_hint(make, tiny_folder):
    with pytest.raises(ConfigError, match="give its parent folder"):
        make(data_path=tiny_folder / "tiny")


def test_ml_100k_is_recboles_copy_unless_a_path_is_given(tmp_path):
    assert "recbole" in Config("Pop", "ml-100k")["data_path"]
    (tmp_path / "ml-100k").mkdir()
    config = Config("Pop", "ml-100k", cmd_args=[f"--data_path={tmp_path}"])
    assert config["data_path"] == str(tmp_path / "ml-100k")


def test_unmeasured_valid_metric_is_refused_before_training(make):
    with pytest.raises(ConfigError, match="NDCG@20.*topk"):
        make(valid_metric="NDCG@20")
    with pytest.raises(ConfigError, match="Recal"):
        make(metrics="[Recal]")


def test_per_model_section_of_a_file_holds_for_that_model_and_loses_to_the_command_line(
    make, tmp_path
):
    file = write_yaml(
        tmp_path / "a.yaml", epochs=5, per_model={"SASRec": {"epochs": 7, "n_layers": 3}}
    )
    assert make("SASRec", config_file_list=[file])["epochs"] == 7
    assert make("SASRec", config_file_list=[file])["n_layers"] == 3
    assert make("Pop", config_file_list=[file])["epochs"] == 5
    assert make("SASRec", config_file_list=[file], epochs=9)["epochs"] == 9
    wrong = write_yaml(tmp_path / "b.yaml", per_model={"SASRec": {"n_layer": 3}})
    with pytest.raises(ConfigError, match="'n_layer'.*'n_layers'"):
        make("SASRec", config_file_list=[wrong])


def test_per_model_section_of_our_dataset_file_is_the_last_default(
    monkeypatch, tmp_path, tiny_folder
):
    (tmp_path / "dataset").mkdir()
    (tmp_path / "overall.yaml").write_text("epochs: 4\n")
    (tmp_path / "dataset" / "tiny.yaml").write_text(
        "epochs: 5\nper_model:\n  BPR: {epochs: 6, embedding_size: 8}\n"
    )
    monkeypatch.setattr("recbole_gr.config.defaults.properties_dir", lambda: tmp_path)
    bpr, pop = (default_settings(registry.get_model(name), "tiny")[0] for name in ("BPR", "Pop"))
    assert (bpr["epochs"], bpr["embedding_size"], pop["epochs"]) == (6, 8, 5)


class FakeGenerative:
    """Only what the configuration looks at in a generative model."""

    from recbole.utils import InputType, ModelType

    type = ModelType.SEQUENTIAL
    input_type = InputType.POINTWISE
    generative = True
    default_config = {"beam_size": 20, "depth": 3}

    @classmethod
    def prepare_config(cls, config):
        """Nothing to check."""


def test_beam_narrower_than_topk_is_refused(make):
    assert make(FakeGenerative, beam_size=10)["beam_size"] == 10
    with pytest.raises(ConfigError, match="beam_size 9.*topk 10"):
        make(FakeGenerative, beam_size=9)


def test_generative_models_read_their_tokenizers_defaults_and_no_others(make):
    config = make(FakeGenerative)
    assert config["codebook_size"] and config["train_neg_sample_args"]["distribution"] == "none"
    assert make("SASRec")["codebook_size"] is None
    with pytest.raises(ConfigError, match="Unknown tokenizer 'RKMean'.*Tokenizers: RKMeans"):
        make(FakeGenerative, tokenizer="RKMean")


def test_keys_of_a_model_from_outside_come_from_its_default_config(make):
    assert make(FakeGenerative)["depth"] == 3
    assert make(FakeGenerative, depth=5)["depth"] == 5
    with pytest.raises(ConfigError, match="'deth'.*'depth'"):
        make(FakeGenerative, deth=5)


def test_recboles_argument_lists_are_not_changed_by_a_config(make):
    from recbole.utils import dataset_arguments

    before = list(dataset_arguments)
    Config("Pop", "ml-100k")
    assert dataset_arguments == before


def test_the_model_r3vae_is_tiger_on_r3vae_sids():
    """With all of TIGER's defaults, those for single data sets too."""
    tiger, preset = (Config(model, "ml-100k") for model in ("TIGER", "R3VAE"))
    assert (tiger["tokenizer"], preset["tokenizer"]) == ("RKMeans", "R3VAE")
    for key in ("hidden_size", "train_batch_size", "item_content", "codebook_size", "beam_size"):
        assert preset[key] == tiger[key], key
    assert preset["train_sample"] == "sequence" and preset["rating_mode"] == "top1_rating"
    plain = Config("R3VAE", "ml-100k", config_dict={"tokenizer": "RQVAE"})
    assert plain["rqvae_dim"] == 32
    with pytest.raises(ConfigError, match="'rating_mod'.*did you mean 'rating_mode'"):
        Config("R3VAE", "ml-100k", config_dict={"rating_mod": "softmax"})


def test_a_preset_of_two_models_runs_one_of_them_alone():
    file = str(properties_dir() / "preset" / "intrr_paper.yaml")
    intrr = Config("IntRR", "ml-100k", [file])
    assert intrr["ran_hidden_size"] == 512 and intrr["initializer_range"] is None
    assert Config("TIGER", "ml-100k", [file])["architecture"] == "decoder_only"
    for key in ("codebook_size", "suffix_size"):  # one size for all levels
        assert intrr[key] == 128
    assert intrr["train_sample"] == "prefix" and intrr["MAX_ITEM_LIST_LENGTH"] == 19
    with pytest.raises(ConfigError, match="'architectur'.*did you mean 'architecture'"):
        Config("IntRR", "ml-100k", [file], {"architectur": "decoder_only"})
    with pytest.raises(ConfigError, match="Unknown key 'initializer_range' .config_dict"):
        Config("IntRR", "ml-100k", [file], {"initializer_range": 0.02})


def test_rank_zero_in_single_process_mode_can_make_configurations(tiny_folder, monkeypatch):
    # Of a continual run on two processes: what the other one has no part in.
    device = torch.device("cpu")
    ranks = {"is_launched": True, "world_size": 1, "init_process_group": device}
    for name, value in ranks.items():
        monkeypatch.setattr(processes, name, lambda *_, v=value: v)
    settings = {"data_path": str(tiny_folder), "nproc": 2}
    assert Config("SASRec", "tiny", config_dict=settings)["world_size"] == 1


@pytest.mark.parametrize("command", ["run", "tokenize", "sid_features", "search"])
def test_every_command_names_the_data_set_that_was_meant(
    command, tiny_folder, tmp_path, monkeypatch, capsys
):
    from recbole_gr.commands import sid_features, tokenize
    from recbole_gr.search.command import main as search
    from run_recbole_gr import main

    monkeypatch.chdir(tmp_path)
    Path("p.test").write_text("learning_rate choice [0.1]\n")
    mains = {"run": main, "tokenize": tokenize.main, "sid_features": sid_features.main}
    own = {"run": ["--model=Pop"], "search": ["--model=SASRec", "--params_file=p.test"]}
    given = ["--dataset=Tinny", f"--data_path={tiny_folder}", *own.get(command, [])]
    assert mains.get(command, search)(given) == 2
    error = capsys.readouterr().err
    assert "Data set 'Tinny': there is no folder" in error and "did you mean 'tiny'?" in error


def test_the_data_set_that_comes_with_recbole_is_named_where_it_would_be_found(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'ml-100k'"):
        Config("Pop", "ml100k")
    with pytest.raises(ConfigError) as refused:
        Config("Pop", "ml100k", config_dict={"data_path": str(tmp_path)})
    assert "did you mean" not in str(refused.value)


def test_a_preset_has_one_name_in_a_checkout_and_elsewhere(tmp_path, monkeypatch, quiet_argv):
    root = properties_dir().parent
    monkeypatch.chdir(tmp_path)
    file = "properties/preset/tiger_paper.yaml"
    config = Config("TIGER", "ml-100k", config_file_list=[file])
    assert config["n_layers"] == yaml.safe_load((root / file).read_text())["n_layers"]
    with pytest.raises(ConfigError, match="no configuration file.*nothing.yaml"):
        Config("TIGER", "ml-100k", config_file_list=["properties/preset/nothing.yaml"])
