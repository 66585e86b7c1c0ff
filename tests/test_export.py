"""A model as a program of torch.export, run where RecBole cannot be imported."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import SMALL

from recbole_gr.generation.beam_search import NEVER
from recbole_gr.serving import export as module
from recbole_gr.serving.export import export, main
from recbole_gr.sid.leaves import Leaves
from recbole_gr.storage.hashes import sha256

PAGE = (Path(__file__).parent.parent / "docs" / "serving.md").read_text(encoding="utf-8")

# What a server does: it has torch and numpy, and cannot have anything of a recommender library.
SERVER = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("recbole", "recbole_gr"):
            raise ImportError(f"a server has no {name}")

sys.meta_path.insert(0, Refuse())
"""
ANSWER = """
import numpy as np, torch
program, batches, answers = sys.argv[1:]
program, batches = torch.export.load(program).module(), np.load(batches)
names = sorted({name.split(".")[0] for name in batches}, key=int)
given = {}
for name in names:
    inputs = [batches[f"{name}.{place}"] for place in range(3) if f"{name}.{place}" in batches]
    items, scores = program(*map(torch.from_numpy, inputs))
    given[f"{name}.items"], given[f"{name}.scores"] = items.numpy(), scores.numpy()
assert not {"recbole", "recbole_gr"} & set(sys.modules)
np.savez(answers, **given)
"""

# A run of `runs.RUNS` by a name, and settings that differ from its training's.
EXPORTS = {
    "TIGER": ("TIGER", {}),
    "TIGER-encoder": ("TIGER-encoder", {}),
    "TIGER-share": ("TIGER-share", {}),
    "TIGER-share-excluding": ("TIGER-share", {"exclude_history": True}),
    "TIGER-hstu": ("TIGER-hstu", {}),
    "TIGER-renormalised": ("TIGER", {"renormalise": True, "beam_size": 40}),
    "TIGER-bf16": ("TIGER", {"enable_amp": True}),
    "PIT": ("PIT", {}),
    "PIT-excluding": ("PIT", {"exclude_history": True}),
    "PIT-encoder": ("PIT-encoder", {}),
    "IntRR": ("IntRR", {}),
    "IntRR-exact": ("IntRR", {"decoding": "exact"}),
    "IntRR-exact-excluding": ("IntRR", {"decoding": "exact", "exclude_history": True}),
    "IntRR-exact-bf16": ("IntRR", {"decoding": "exact", "enable_amp": True}),
    "RPG": ("RPG", {}),
    "RPG-excluding": ("RPG", {"exclude_history": True}),
    "RPG-bf16": ("RPG", {"enable_amp": True}),
    "R3VAE": ("R3VAE", {}),
    "SASRec": ("SASRec", {}),
    "SASRec-excluding": ("SASRec", {}),
    "SASRec-whole": ("SASRec-whole", {}),
}
K = 7


def batches_of(sequences, sizes=(1, 2, 33)):
    """Histories in external tokens by batch: of one item, of more than the model reads, others."""
    longest = max(sequences.values(), key=len)
    assert len(longest) > SMALL["MAX_ITEM_LIST_LENGTH"]
    rows = [longest, longest[:1], longest[: SMALL["MAX_ITEM_LIST_LENGTH"]], *sequences.values()]
    return [[longest[-1:]], *(rows[:size] for size in sizes)]


def inputs_of(batch, description):
    ids = {token: number for number, token in enumerate(description["items"])}
    width = description["max_history"]
    history = np.zeros((len(batch), width), dtype=np.int64)
    for row, tokens in zip(history, batch):
        last = [ids[token] for token in tokens[-width:]]
        row[: len(last)] = last
    inputs = [history, (history > 0).sum(1)]
    if description["max_excluded"]:
        gone = np.zeros((len(batch), description["max_excluded"]), dtype=np.int64)
        for row, tokens in zip(gone, batch):
            row[: len(tokens)] = [ids[token] for token in tokens]
        inputs.append(gone)
    return inputs


def serve(program, batches, folder):
    """The items and scores of each batch, from a process of its own."""
    arrays = {f"{n}.{i}": part for n, batch in enumerate(batches) for i, part in enumerate(batch)}
    np.savez(folder / "batches.npz", **arrays)
    files = [str(program), str(folder / "batches.npz"), str(folder / "answers.npz")]
    subprocess.run([sys.executable, "-c", SERVER + ANSWER, *files], check=True, cwd=folder)
    answers = np.load(folder / "answers.npz")
    return [(answers[f"{n}.items"], answers[f"{n}.scores"]) for n in range(len(batches))]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTS)
def test_a_server_without_recbole_answers_as_the_recommender(
    name, trained, recommender, sequences, tmp_path
):
    run, settings = EXPORTS[name]
    options = {"max_excluded": 60} if "excluding" in name else {}
    file = tmp_path / "program.pt2"
    description = export(trained(run)["checkpoint"], file, k=K, **options, **settings)
    assert json.loads(file.with_suffix(".json").read_text(encoding="utf-8")) == description
    assert sorted(path.name for path in tmp_path.iterdir()) == ["program.json", "program.pt2"]
    own, batches = recommender(run, **settings), batches_of(sequences)
    served = serve(file, [inputs_of(batch, description) for batch in batches], tmp_path)
    for batch, (items, scores) in zip(batches, served, strict=True):
        answers = own.recommend(histories=batch, k=K, exclude_history="excluding" in name)
        assert items.shape == scores.shape == (len(batch), K)
        for row, values, answer in zip(items, scores, answers, strict=True):
            there = row > 0
            assert [description["items"][item] for item in row[there]] == answer.items
            assert values[there] == pytest.approx(answer.scores, abs=1e-5)
            assert (values[~there] == NEVER).all()


def test_the_description_tells_what_the_program_was_made_of(trained, recommender, tmp_path):
    checkpoint = trained("TIGER")["checkpoint"]
    made = export(checkpoint, tmp_path / "a.pt2", k=12, beam_size=10)
    assert made["items"] == recommender("TIGER").item_tokens and made["items"][0] == "[PAD]"
    assert (made["k"], made["beam_size"], made["max_history"]) == (12, 12, 10)
    assert made["max_excluded"] is None and made["inputs"] == ["history", "length"]
    assert made["device"] == "cpu" and made["format_version"] == 1
    assert made["program_sha256"] == sha256(tmp_path / "a.pt2")
    assert made["checkpoint_sha256"] == sha256(checkpoint)
    assert made["sid_digest"] == trained("TIGER")["sid_digest"]


@pytest.mark.slow
def test_the_program_leaves_out_what_a_search_does_not_read(trained, tmp_path):
    file = tmp_path / "a.pt2"
    export(trained("PIT")["checkpoint"], file)
    kept = torch.export.load(file).state_dict
    assert kept["model.items.content"].numel() > 0
    unread = [n for n in kept if n.startswith(("model.alignment.", "model.item_to_token."))]
    assert unread and all(kept[name].numel() == 0 for name in unread)


@pytest.mark.parametrize(
    "run, arguments, message",
    [
        ("TIGER", ["--output=a.pth"], "--output=a.pth: the name must end in .pt2"),
        ("TIGER", [], "add --output=NAME.pt2"),
        ("TIGER", ["--output=a.pt2", "--k=0"], "--k: 0 must be an integer of at least 1"),
        ("TIGER", ["--output=a.pt2", "--k=41"], "k: 41"),
        ("TIGER", ["--output=a.pt2", "--max_excluded=5"], "add --exclude_history=True"),
        (
            "TIGER",
            ["--output=a.pt2", "--exclude_history=True", "--max_excluded=0"],
            "--max_excluded: 0 must be an integer of at least 1",
        ),
        ("TIGER", ["--output=a.pt2", "--beam_sise=3"], "Unknown key 'beam_sise'"),
        ("Pop", ["--output=a.pt2"], "only sequential models"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    run, arguments, message, trained, tmp_path, monkeypatch, capsys
):
    checkpoint = trained(run)["checkpoint"]
    monkeypatch.chdir(tmp_path)
    assert main([f"--checkpoint={checkpoint}", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and message in err
    assert list(tmp_path.iterdir()) == []


def test_a_model_whose_search_reads_values_is_refused(trained, tmp_path, monkeypatch, capsys):
    from recbole_gr.model.tiger import TIGER

    start = TIGER.start

    def reading(self, interaction):
        assert int(interaction[self.ITEM_SEQ_LEN].max()) > 0
        return start(self, interaction)

    monkeypatch.setattr(TIGER, "start", reading)
    checkpoint = trained("TIGER")["checkpoint"]
    assert main([f"--checkpoint={checkpoint}", f"--output={tmp_path / 'a.pt2'}"]) == 2
    err = capsys.readouterr().err
    assert "TIGER: its search is no graph for batches of any size" in err and "`start`" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_program_that_answers_otherwise_is_not_kept(trained, tmp_path, monkeypatch):
    file = tmp_path / "a.pt2"
    export(trained("TIGER")["checkpoint"], file)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(module, "_drop_unread", spoil)
    with pytest.raises(RuntimeError, match="does not answer as the model"):
        export(trained("TIGER")["checkpoint"], file)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def spoil(program):
    name = "model.code_embedding.weight"
    program.state_dict[name] = torch.nn.Parameter(program.state_dict[name].flip(0))


def test_most_items_is_the_number_on_the_most_crowded_leaves():
    counts = torch.tensor([1, 4, 2, 1, 7])
    leaves = Leaves()
    leaf = torch.repeat_interleave(torch.arange(5), counts)
    leaves._hold(leaf, torch.arange(1, 16))
    expected = [7, 11, 13, 14, 15, 15, 15]
    assert [leaves.most_items(n) for n in range(1, 8)] == expected
    leaves._crowded = leaves._crowded[:2]  # of the others a bound alone is known
    bounds = [leaves.most_items(n) for n in range(1, 8)]
    assert bounds[:2] == expected[:2] and all(b >= e for b, e in zip(bounds, expected))


@pytest.mark.slow
def test_the_command_writes_what_the_server_of_the_page_reads(trained, tmp_path, capsys):
    (snippet,) = re.findall(r"^```python\n(import json\n.*?)^```", PAGE, re.M | re.S)
    checkpoint, tokens = trained("TIGER")["checkpoint"], ["i1", "i2", "i3"]
    arguments = [f"--checkpoint={checkpoint}", f"--output={tmp_path / 'served' / 'tiger.pt2'}"]
    assert main([*arguments, "--k=5"]) == 0
    assert "tiger.pt2" in capsys.readouterr().out
    for token, ours in zip(("50", "181", "258"), tokens, strict=True):
        assert f'"{token}"' in snippet
        snippet = snippet.replace(f'"{token}"', f'"{ours}"')
    code = SERVER + snippet + "\nprint(json.dumps(answers))"
    run = [sys.executable, "-c", code]
    out = subprocess.run(run, check=True, cwd=tmp_path, capture_output=True, text=True).stdout
    assert [len(answer) for answer in json.loads(out)] == [5, 5]
