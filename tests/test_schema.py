"""Claims about the types of settings: every key has one, and what it may not hold is refused."""

from functools import cache

import pytest
import yaml

from recbole_gr import registry
from recbole_gr.config import Config
from recbole_gr.config.defaults import default_settings
from recbole_gr.config.layers import class_defaults
from recbole_gr.config.parsing import parse_value, properties_dir
from recbole_gr.config.schema import declared
from recbole_gr.errors import ConfigError
from recbole_gr.model.base import GenerativeRecommender
from recbole_gr.tokenizer.base import Tokenizer

MODELS = ("TIGER", "PIT", "IntRR", "RPG", "R3VAE", "DACT")
RANKING = ("Pop", "BPR", "LightGCN", "SASRec", "GRU4Rec", "BERT4Rec", "DeepFM", "KGAT")
FOLDERS = (".", "model", "tokenizer", "dataset")
NONSENSE = {"a word": "plenty", "a wrong boolean": "maybe", "a negative": "-3", "no list": "[]"}
# What is valid after all. Text: names of files, columns and folders; whether they are there is seen
# when they are looked for.
TEXT = set(
    "sid_file sid_dir content_file content_field content_cache_dir text_encoder result_dir ip "
    "continual_start_sids continual_start_tokenizer "
    "continual_field continual_part_field continual_dir cf_file checkpoint_dir dataset_save_path "
    "additional_feat_suffix dataloaders_save_path wandb_project gpu_id data_path "
    "continual_model warmup_dir".split()
)
NAMES = {"text_fields", "continual_cf_files", "redistribution_items"}
VALID = {
    **{(key, kind): "text" for key in TEXT for kind in NONSENSE if kind != "no list"},
    **{(key, kind): "a list of one name" for key in NAMES for kind in list(NONSENSE)[:2]},
    ("eval_buckets", "no list"): "no buckets",
    ("ablate", "no list"): "nothing is left out",
    ("rqvae_hidden", "no list"): "an encoder without hidden layers",
}


def files():
    folders = [properties_dir() / name for name in FOLDERS]
    return [file for folder in folders for file in sorted(folder.glob("*.yaml"))]


def keys_of(file):
    return declared(file.read_text(encoding="utf-8"), file.parent.name, str(file))


def own_keys(folder, name):
    """Keys that the file of a model or tokenizer, or those of its bases, give a value."""
    cls = registry.get_model(name) if folder == "model" else registry.get_tokenizer(name)
    return sorted(class_defaults(cls, folder)[0])


def refused(model, key, value, tiny_folder, **settings):
    given = {"data_path": str(tiny_folder), **settings}
    try:
        Config(model, "tiny", config_dict=given, cmd_args=[f"--{key}={value}"])
    except ConfigError as error:
        assert key in str(error), f"{error} does not name {key}"
        return str(error)
    return ""


@cache
def defaults_of(model, tokenizer):
    return default_settings(registry.get_model(model), "tiny", tokenizer)


def cases():
    overall = yaml.safe_load((properties_dir() / "overall.yaml").read_text(encoding="utf-8"))
    yield from (("TIGER", None, key) for key in sorted(overall))
    yield from (("TIGER", None, key) for key in sorted(keys_of(properties_dir() / "recbole.yaml")))
    yield from ((name, None, key) for name in MODELS for key in own_keys("model", name))
    whole = keys_of(properties_dir() / "model" / "WholeSequences.yaml")
    yield from (("SASRec", None, key) for key in sorted(whole))
    for name in registry.TOKENIZERS:
        yield from (("TIGER", name, key) for key in own_keys("tokenizer", name))


@pytest.mark.parametrize("model, tokenizer, key", dict.fromkeys(cases()))
def test_nonsense_is_refused_by_name_or_listed_as_valid(model, tokenizer, key, tiny_folder):
    declaration = defaults_of(model, tokenizer).keys[key]
    settings = {"tokenizer": tokenizer} if tokenizer else {}
    for kind, value in NONSENSE.items():
        try:
            declaration.checked(parse_value(value, key))
        except ConfigError as error:  # as a run would have it, see below
            message = str(error)
        else:  # what the type allows may be refused by what else there is to know
            message = refused(model, key, value, tiny_folder, **settings)
        assert (key in message) != ((key, kind) in VALID), (kind, value, message)


@pytest.mark.parametrize("file", files(), ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_every_key_of_the_property_files_is_declared_with_type_help_and_owner(file):
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    everywhere = {name: key for other in files() for name, key in keys_of(other).items()}
    recboles = default_settings(registry.get_model("SASRec"), "sample").keys
    for name in set(values) - {"per_model", "per_tokenizer"}:
        key = everywhere.get(name) or recboles[name]
        assert key.help and key.owner and (key.kinds or key.words), name


def test_a_key_has_one_type_in_all_files():
    """But for those that a base leaves open, and RecBole's, which have no defaults here."""
    forms = {}
    for file in files():
        for name, key in keys_of(file).items():
            if file.stem != "recbole":
                forms.setdefault(name, {})[file.stem] = (key.words, *(k.says for k in key.kinds))
    several = {name for name, found in forms.items() if len(set(found.values())) > 1}
    assert several == {"train_sample", "architecture", "position", "commitment_weight"} & several


def test_defaults_of_recboles_models_are_of_the_types_that_its_files_declare():
    for name in sorted(registry.recbole_models()):
        try:
            model_class = registry.get_model(name)
        except ConfigError:
            continue  # its package is not installed
        defaults = default_settings(model_class, "ml-100k")
        for key, value in defaults.values.items():
            if key in defaults.keys:
                assert defaults.keys[key].checked(value) == value, (name, key)


SWITCHES = {"true": True, "yes": True, "On": True, "FALSE": False, "no": False, "off": False}


@pytest.mark.parametrize("text, meant", SWITCHES.items())
def test_switches_mean_what_they_say(text, meant, tiny_folder, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(f"exclude_history: {text}\ntorch_compile: '{text}'\nkg_reverse_r: {text}\n")
    path = {"data_path": str(tiny_folder)}
    arguments = [f"--exclude_history={text}", f"--torch_compile={text}", f"--shuffle={text}"]
    for config in (
        Config("TIGER", "tiny", [str(file)], path),
        Config("TIGER", "tiny", config_dict=path, cmd_args=arguments),
        Config("TIGER", "tiny", None, {**path, "exclude_history": text, "torch_compile": text}),
    ):
        assert config["exclude_history"] is meant and config["torch_compile"] is meant
    assert config["shuffle"] is True


@pytest.mark.parametrize("key", ["exclude_history", "torch_compile", "renormalise", "shuffle"])
@pytest.mark.parametrize("value", ["maybe", "1", "0", "2", "None-such", "[True]"])
def test_what_is_no_switch_is_refused(key, value, tiny_folder):
    message = refused("TIGER", key, value, tiny_folder)
    assert "must be True or False" in message and "(command line)" in message


def test_a_message_names_key_value_source_and_what_is_allowed(tiny_folder, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("n_layers: many\nper_model: {TIGER: {dropout: 2}}\n")
    with pytest.raises(ConfigError) as refusal:
        Config("TIGER", "tiny", [str(file)], {"select": "best", "lr_scheduler": "cosin"},
               ["--beam_size=-1"], ["PIT"])  # fmt: skip
    message = str(refusal.value)
    assert f"n_layers: 'many' must be an integer of at least 1 (file '{file}')" in message
    assert "dropout: 2 must be a number in [0, 1) (per_model section of TIGER)" in message
    assert "lr_scheduler: 'cosin' is not one of constant, cosine, inverse_sqrt" in message
    assert "did you mean 'cosine'? (config_dict)" in message
    assert "beam_size: -1 must be an integer of at least 1 (command line)" in message


def test_recboles_keys_are_checked_by_the_types_of_its_files(tiny_folder):
    for model, key, value in (
        ("SASRec", "hidden_dropout_prob", "high"),
        ("LightGCN", "reg_weight", "little"),
        ("DeepFM", "mlp_hidden_size", "wide"),
        ("SASRec", "show_progress", "seldom"),
        ("BPR", "embedding_size", "[8]"),
        ("SASRec", "user_inter_num_interval", "5"),
    ):
        assert refused(model, key, value, tiny_folder)


def test_words_are_understood_in_any_case_and_numbers_in_any_form(tiny_folder):
    given = {"data_path": str(tiny_folder), "lr_scheduler": "Cosine", "learner": "AdamW"}
    arguments = ["--sid_gate=OFF", "--train_batch_size=1e3", "--learning_rate=1"]
    config = Config("TIGER", "tiny", config_dict=given, cmd_args=arguments)
    assert (config["lr_scheduler"], config["learner"]) == ("cosine", "adamw")
    assert config["sid_gate"] == "off"
    assert config["train_batch_size"] == 1000 and type(config["train_batch_size"]) is int


class Decaying(GenerativeRecommender):
    """A model of one's own, whose keys are declared as those of the files are."""

    default_config = """
    level_decay: 0.5     # (0 < float <= 1) Weight of a level over that of the level before.
    flavour: plain       # (plain | rich) Which of both.
    """

    start = calculate_loss = None


class Signs(Tokenizer):
    """A tokenizer of one's own, likewise."""

    default_config = """
    codebook_size: 2     # One bit per level.
    sid_levels: 12
    sharpness: 1.0       # (float > 0) Of the signs.
    """

    def build(self):
        pass


@pytest.fixture
def signs(monkeypatch):
    monkeypatch.setitem(registry.TOKENIZERS, "Signs", Signs)


def test_a_model_of_ones_own_declares_its_keys_and_has_those_of_its_base(tiny_folder, signs):
    given = {"data_path": str(tiny_folder), "tokenizer": "Signs"}
    config = Config(Decaying, "tiny", config_dict=given)
    assert (config["level_decay"], config["flavour"]) == (0.5, "plain")
    assert (config["beam_size"], config["exclude_history"], config["sid_levels"]) == (20, False, 12)
    for key, value in (
        ("level_decay", "abc"), ("level_decay", "-3"), ("flavour", "sour"), ("sharpness", "0"),
        ("beam_size", "wide"),
    ):  # fmt: skip
        assert refused(Decaying, key, value, tiny_folder, tokenizer="Signs")
    with pytest.raises(ConfigError, match="sharpness: -1 must be a number above 0"):
        Signs({"sharpness": -1}, 8)


def test_a_dictionary_of_defaults_keeps_numbers_numbers_and_switches_switches(tiny_folder):
    class Plain(Decaying):
        default_config = {"decay": 1, "warm": True, "name": "a"}

    assert refused(Plain, "decay", "abc", tiny_folder) and refused(Plain, "warm", "2", tiny_folder)
    given = {"data_path": str(tiny_folder), "decay": 0.5, "warm": "no"}
    config = Config(Plain, "tiny", config_dict=given)
    assert (config["decay"], config["warm"], config["level_decay"]) == (0.5, False, 0.5)


def test_a_declaration_that_cannot_be_read_names_class_key_and_form(tiny_folder):
    class Odd(Decaying):
        default_config = "depth: 3  # (int => 1) Depth.\n"

    with pytest.raises(ConfigError, match=r"Odd.default_config': depth: .*\(int => 1\)"):
        Config(Odd, "tiny", config_dict={"data_path": str(tiny_folder)})


def test_a_default_of_another_type_than_declared_is_refused():
    with pytest.raises(ConfigError, match="depth: 0 must be an integer of at least 1"):
        declared("depth: 0  # (int >= 1) Depth.\n", "model", "mine.yaml")


def test_a_tokenizers_own_default_wins_over_what_a_data_set_says_of_its_base(signs):
    """ml-100k has 64 codes a level for every tokenizer that has no number of its own."""
    own = Config("TIGER", "ml-100k", config_dict={"tokenizer": "Signs"})
    assert (own["codebook_size"], own["sid_levels"]) == (2, 12)
    for name in registry.TOKENIZERS:
        if name != "Signs":
            ours = Config("TIGER", "ml-100k", config_dict={"tokenizer": name})
            assert ours["codebook_size"] == 64, name


def test_no_section_of_a_model_in_our_files_holds_keys_of_a_tokenizer():
    shared = keys_of(properties_dir() / "tokenizer" / "Tokenizer.yaml")
    for file in (properties_dir() / "dataset").glob("*.yaml"):
        sections = yaml.safe_load(file.read_text(encoding="utf-8")).get("per_model") or {}
        for model, settings in sections.items():
            assert not set(settings) & set(shared), (file.name, model)


def test_a_section_of_a_users_file_for_a_tokenizer_holds_for_that_tokenizer(tiny_folder, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "codebook_size: 8\n"
        "per_tokenizer:\n  RQVAE: {codebook_size: 16, rqvae_dim: 8}\n  Tokenizer: {sid_levels: 2}\n"
    )

    def config(tokenizer, **settings):
        given = {"data_path": str(tiny_folder), "tokenizer": tokenizer, **settings}
        return Config("TIGER", "tiny", [str(file)], given)

    assert config("RQVAE")["codebook_size"] == config("LETTER")["codebook_size"] == 16
    assert (config("RKMeans")["codebook_size"], config("RKMeans")["sid_levels"]) == (8, 2)
    assert config("RQVAE", codebook_size=4)["codebook_size"] == 4
    file.write_text("per_tokenizer: {RQVAE: {rqvae_dim: wide}}\n")
    assert config("RKMeans")
    with pytest.raises(ConfigError, match=r"rqvae_dim: 'wide' .*\(per_tokenizer section of RQVAE"):
        config("RQVAE")
    file.write_text("per_tokenizer: [RQVAE]\n")
    with pytest.raises(ConfigError, match="must map tokenizer names to settings"):
        config("RQVAE")
