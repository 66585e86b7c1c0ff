"""The command that each command ends with works as it is printed."""

import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import raw_files
from runs import RUNS, arguments, rest_slow

from recbole_gr import registry, run_recbole_gr
from recbole_gr.commands import verify as verifying
from recbole_gr.commands.sid_features import main as sid_features
from recbole_gr.commands.tokenize import main as tokenize
from recbole_gr.config.command_lines import example_in_file, export_command, recommend_command
from recbole_gr.convert.command import main as convert
from recbole_gr.model.tiger import TIGER
from recbole_gr.search.command import main as search
from recbole_gr.serving.export import main as export
from recbole_gr.serving.recommend import main as recommend
from recbole_gr.tokenizer.rvq import RVQ
from run_recbole_gr import main

SMALL = ("--n_layers=1", "--hidden_size=16")
QUICK = ("--epochs=1", "--MAX_ITEM_LIST_LENGTH=5", "--show_progress=False")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def paste(capsys):
    """A function that runs the command after a word of some output, in this process; returns the
    command's arguments and output."""

    def paste(output, after, *more):
        (line,) = [line for line in output.splitlines() if after in line]
        python, *words = shlex.split(line.partition(after)[2])
        assert python == "python"
        if words[0] == "-m":
            words = words[1:]
        module = importlib.import_module(words[0].removesuffix(".py"))
        assert module.main([*words[1:], *more]) == 0
        return words, capsys.readouterr().out

    return paste


def n_items(output):
    return len([line for line in output.splitlines() if line.startswith("| ")]) - 2


@pytest.mark.parametrize("name", rest_slow("TIGER", "IntRR", "SASRec", "Pop"))
def test_a_run_names_the_command_that_recommends(name, tiny_folder, capsys, paste):
    model, settings = RUNS[name]
    assert main(arguments(model, tiny_folder, **settings)) == 0
    out = capsys.readouterr().out
    words, answer = paste(out, "recommend:  ")
    assert n_items(answer) == 5 and f"checkpoint: {words[1].partition('=')[2]}" in out
    assert f"{model}: best epoch " in out and "] (95 % over 60 users)" in out
    report = out.rpartition("Report: ")[2].partition(" and ")[0]
    assert "95 % over 60 users" in Path(report).read_text(encoding="utf-8")
    (result,) = json.loads(Path(report).with_suffix(".json").read_text(encoding="utf-8"))
    ends = result["test_interval"]["metrics"]["ndcg@10"]
    assert ends[0] <= result["test_result"]["ndcg@10"] <= ends[1]


def test_a_run_of_clicks_names_no_command_that_would_be_refused(tiny_folder, capsys):
    own = {"threshold": "{'rating': 3}", "topk": "[5]"}
    code = main(arguments("LR", tiny_folder, **own, load_col="{'inter': ['user_id', 'item_id', 'rating', 'timestamp']}"))  # noqa: E501
    out = capsys.readouterr().out
    assert code == 0 and "recommend:" not in out and "LR: best epoch 0, test AUC" in out


def test_several_models_have_their_lines_each(tiny_folder, capsys, paste):
    assert main(arguments("Pop,BPR", tiny_folder)) == 0
    out = capsys.readouterr().out
    assert out.count("recommend:  ") == 2 and out.count("Report: ") == 1


def test_classes_of_ones_own_are_named_in_the_command(
    tiny_folder, capsys, paste, tmp_path, monkeypatch
):
    Path("own_classes.py").write_text(
        "from recbole_gr.model.tiger import TIGER\n"
        "from recbole_gr.tokenizer.rkmeans import RKMeans\n"
        "class OwnTIGER(TIGER): pass\n"
        "class OwnKMeans(RKMeans): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = {"tokenizer": "own_classes:OwnKMeans"}
    assert main(arguments("own_classes:OwnTIGER", tiny_folder, **own)) == 0
    words, answer = paste(capsys.readouterr().out, "recommend:  ")
    assert "--model=own_classes:OwnTIGER" in words and n_items(answer) == 5


@pytest.mark.slow
def test_a_class_that_no_other_process_finds_has_no_command(tiny_folder, monkeypatch):
    class Mine(TIGER):
        pass

    monkeypatch.setattr(registry, "MODELS", {**registry.MODELS, "Mine": Mine})
    result = run_recbole_gr(cmd_args=arguments("TIGER", tiny_folder), model=Mine)
    assert result["example"] is None
    monkeypatch.setattr(registry, "TOKENIZERS", {**registry.TOKENIZERS, "Own": RVQ})
    result = run_recbole_gr(cmd_args=arguments("TIGER", tiny_folder, tokenizer="Own"))
    assert result["example"]["tokenizer"] == "recbole_gr.tokenizer.rvq:RVQ"


@pytest.mark.slow
def test_periods_end_with_a_command_for_the_last_one(tiny_folder, capsys, paste):
    own = {"continual_cuts": [0.6, 1.0], "continual_tokenizer": "frozen", "tokenizer": "RKMeans",
           "continual_recommender": "finetune,frozen", "sid_gate": "off"}  # fmt: skip
    command = arguments("DACT", tiny_folder, **{**RUNS["TIGER"][1], **own})
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "Period 1, TIGER frozen/finetune: best epoch" in out
    assert n_items(paste(out, "recommend:  ")[1]) == 5
    assert main(command) == 0  # all of it is read from files now
    assert n_items(paste(capsys.readouterr().out, "recommend:  ")[1]) == 5


@pytest.mark.parametrize("names", rest_slow("RKMeans", "RKMeans,RQVAE"))
def test_tokenizing_names_the_training_on_its_sids(names, tiny_folder, capsys, paste):
    own = {"tokenizer": names, "codebook_size": 8, "content_dim": 8, "tokenizer_epochs": 1}
    own = own if "," in names else {**own, "tokenizer_epochs": None}
    given = [a for a in arguments("", tiny_folder, **own) if not a.endswith(("=None", "--model="))]
    given = [a for a in given if not a.startswith("--epochs")]
    assert tokenize([*given, "--output=out", "--quiet"]) == 0
    out = capsys.readouterr().out
    after = "Train with them: " if "Train with them: " in out else "Train with them all the same: "
    words, trained = paste(out, after, *QUICK[:2], *SMALL)
    assert any(w.startswith("--sid_file=out") for w in words) and "TIGER: best epoch" in trained
    assert not any("log_level" in word for word in words)


def test_sid_features_name_the_training_on_them(tiny_folder, capsys, paste):
    load = {"inter": ["user_id", "item_id", "rating"], "item": ["item_id"]}
    own = {"content_dim": 8, "codebook_size": 4, "load_col": load, "threshold": {"rating": 3},
           "sid_gate": "off"}  # fmt: skip
    assert sid_features([*arguments("", tiny_folder, **own)[1:], "--output=out"]) == 0
    words, trained = paste(capsys.readouterr().out, "Train with them: ", *QUICK[::2])
    assert "--dataset=tiny-sid" in words and "DeepFM" in trained


def test_a_conversion_names_the_training_on_its_data(tmp_path, capsys, paste):
    raw_files.table(tmp_path)
    columns = "--columns=user_id:uid,item_id:sku,timestamp:ts"
    first = ["--format=table", "--dataset=shop", "--interactions=events.csv", "--quiet"]
    assert convert([*first, columns]) == 0
    words, trained = paste(capsys.readouterr().out, "Train on them: ", *QUICK)
    assert "--model=SASRec" in words and "SASRec: best epoch" in trained
    items = ["--items=products.csv", "--item_columns=item_id:sku,title:name"]
    assert convert([*first, columns, *items, "--force=True"]) == 0
    words, trained = paste(capsys.readouterr().out, "Train on them: ", *QUICK, *SMALL)
    assert "--model=TIGER" in words and "TIGER: best epoch" in trained
    assert convert([*first, "--columns=user_id:uid,item_id:sku", "--force=True"]) == 0
    words, trained = paste(capsys.readouterr().out, "Train on them: ", *QUICK[::2])
    assert "--model=BPR" in words and "BPR: best epoch" in trained


def test_a_search_names_training_and_recommending(tiny_folder, capsys, paste):
    Path("p.test").write_text("learning_rate choice [0.01,0.001]\n")
    given = arguments("SASRec", tiny_folder, MAX_ITEM_LIST_LENGTH=5)
    assert search([*given, "--params_file=p.test", "--tool=optuna"]) == 0
    out = capsys.readouterr().out
    assert "Trial " in out and "(95 % over 60 users)" in out and "np.float" not in out
    assert n_items(paste(out, "recommend:  ")[1]) == 5
    best = next(line for line in out.splitlines() if line.startswith("python "))
    assert main(shlex.split(best)[2:]) == 0


def test_a_file_of_answers_names_what_goes_on_from_it(trained, capsys, paste):
    file = trained("SASRec")["checkpoint"]
    Path("users.txt").write_text("nobody\nu1\nu2\n")
    given = ["--users_file=users.txt", "--output=answers.csv", "--show_progress=False", "--k=3"]
    assert recommend([f"--checkpoint={file}", *given]) == 0
    words, answer = paste(capsys.readouterr().out, "See one of them: ")
    assert "--user=u1" in words and n_items(answer) == 3
    file = Path("copy.pth")
    file.write_bytes(Path(trained("TIGER")["checkpoint"]).read_bytes())
    assert recommend([f"--checkpoint={file}", *given]) == 0
    words = shlex.split(capsys.readouterr().out.partition("Serve the model: ")[2])
    assert words[1:3] == ["-m", "recbole_gr.export"]
    assert f"--checkpoint={file}" in words and "--output=copy.pt2" in words and "--k=3" in words


def test_an_exported_program_answers_to_the_printed_command(trained, capsys, monkeypatch):
    """Torch alone runs it."""
    written = {"items": ["[PAD]", "a"], "max_history": 3, "max_excluded": 2}
    monkeypatch.setattr("recbole_gr.serving.export.export", lambda *_, **__: written)
    Path("it's.pt2").write_bytes(b"")
    assert export(["--checkpoint=x.pth", "--output=it's.pt2"]) == 0
    python, c, code = shlex.split(capsys.readouterr().out.partition("Ask it: ")[2])
    asked = []

    class Program:
        def module(self):
            return lambda *inputs: asked.append([i.tolist() for i in inputs])

    monkeypatch.setattr("torch.export.load", lambda path: Program() if path == "it's.pt2" else None)
    exec(code, {})
    assert c == "-c" and asked == [[[[1, 0, 0]], [1], [[0, 0]]]]


@pytest.mark.parametrize("differs", [False, True])
def test_a_verification_names_what_goes_on(differs, trained, capsys, paste, monkeypatch):
    manifest = trained("Pop")["files"]["manifest"]
    found = ["Pop: test_result ndcg@10 is 1, was 0"] if differs else []
    monkeypatch.setattr(verifying, "verify", lambda *_, **__: found)
    assert verifying.main([manifest, "--show_progress=False"]) == differs
    out = capsys.readouterr().out
    if not differs:
        assert n_items(paste(out, "Recommend with it: ")[1]) == 5
        return
    monkeypatch.setattr(verifying, "verify", lambda *_, **__: [])
    words, _ = paste(out, "Allow for another order of sums: ")
    assert words[1:] == [manifest, "--show_progress=False", "--tolerance=0.001"]


def test_a_command_of_names_with_spaces_is_quoted():
    line = recommend_command("a b.pth", {"user": "it's me", "k": 5})
    assert shlex.split(line)[3:] == ["--checkpoint=a b.pth", "--user=it's me", "--k=5"]
    assert "--output=a b.pt2" in shlex.split(export_command("a b.pth"))
    assert recommend_command(None, {"user": "1"}) is recommend_command("a", None) is None


def test_a_file_does_not_put_code_into_a_printed_command():
    example = {"user": "1", "k": 5, "model": "evil:Class", "data_path": "/"}
    assert example_in_file(example, ["--model=DACT"]) is None
    assert example_in_file(example, ["--model=evil:Class"]) == {
        "user": "1", "k": 5, "model": "evil:Class",
    }  # fmt: skip
    assert example_in_file({"user": "1", "x": "y"}, []) == {"user": "1"}


def test_help_lists_models_and_tokenizers_without_torch():
    code = (
        "import sys; from run_recbole_gr import main; main(['--help']); "
        "assert not {'torch', 'recbole.config'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for part in (r"  TIGER +Generates the SID", "LightGCN, ", r"  RKMeans +Residual k-means"):
        assert re.search(part, run.stdout), part
