"""The program that recommends, and its function."""

import csv
import io
import json
from types import SimpleNamespace

import pytest
import torch

from recbole_gr.errors import ConfigError
from recbole_gr.serving.explain_command import listed
from recbole_gr.serving.recommend import main, recommend


@pytest.mark.slow
def test_the_function_answers_as_the_class(trained):
    file = trained("PIT")["checkpoint"]
    content = {"new": torch.zeros(8)}
    answers = recommend(file, users=["u1", "u2"], k=41, new_items=content, show_progress=False)
    assert [answer.user for answer in answers] == ["u1", "u2"]
    assert all("new" in answer.items for answer in answers)
    (given,) = recommend(file, histories=[["i1", "i2"]], k=3, beam_size=20, batch_size=1)
    assert len(given.items) == 3 and given.scores == sorted(given.scores, reverse=True)


@pytest.fixture
def run(trained, capsys):
    """A function from arguments to the exit code, output and errors of the program."""

    def run(*arguments, name="TIGER"):
        code = main([f"--checkpoint={trained(name)['checkpoint']}", *arguments])
        return code, *capsys.readouterr()

    return run


def titles_of(folder):
    with open(folder / "tiny" / "tiny.item") as file:
        return dict(line.rstrip("\n").split("\t")[:2] for line in file)


@pytest.mark.parametrize("name", ["TIGER", "SASRec"])
def test_the_program_prints_titles_and_scores(name, run, recommender, tiny_folder):
    code, out, err = run("--user=u1,u2", "--k=3", name=name)
    assert code == 0 and err == ""
    titles = titles_of(tiny_folder)
    for answer in recommender(name).recommend(["u1", "u2"], k=3):
        assert f"user {answer.user}\n" in out
        for rank, (item, score) in enumerate(zip(answer.items, answer.scores), 1):
            cells = [titles[item], str(rank), item, f"{score:.4f}"]
            assert cells in [[c.strip() for c in line.split("|")[1:-1]] for line in out.split("\n")]


def test_the_program_answers_a_history(run, sequences):
    code, out, _ = run("--history=" + ",".join(sequences["u1"]), "--k=4", "--exclude_history=True")
    items = [line.split("|")[3].strip() for line in out.splitlines() if line.startswith("|")][2:]
    assert code == 0 and len(items) == 4 and not set(items) & set(sequences["u1"])


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_file_of_users_is_answered_into_a_file(
    suffix, run, recommender, tmp_path, tiny_folder, monkeypatch
):
    monkeypatch.setattr("recbole_gr.terminal.bars.is_terminal", lambda: True)
    users = [f"u{n}" for n in (5, 1, 40)]
    (tmp_path / "users.txt").write_text("\n".join(users) + "\n\n")
    output = tmp_path / "out" / f"answers{suffix}"
    code, out, err = run(
        f"--users_file={tmp_path / 'users.txt'}",
        f"--output={output}",
        "--k=3",
        "--batch_size=2",
        "--show_progress=True",
    )
    assert code == 0 and f"{output}, 3 users" in out and "Recommend" in err and "/3" in err
    titles, expected = titles_of(tiny_folder), recommender("TIGER").recommend(users, k=3)
    with open(output, newline="") as file:
        if suffix == ".csv":
            lines = list(csv.DictReader(file))
            assert [
                (line["user"], line["rank"], line["item"], line["title"]) for line in lines
            ] == [
                (answer.user, str(rank), item, titles[item])
                for answer in expected
                for rank, item in enumerate(answer.items, 1)
            ]
        else:
            lines = [json.loads(line) for line in file]
            assert [(line["user"], line["items"]) for line in lines] == [a[:2] for a in expected]
            assert lines[0]["titles"] == [titles[item] for item in expected[0].items]
    assert [path.name for path in output.parent.iterdir()] == [output.name]


@pytest.mark.parametrize("text, tokens", [
    ("50,181, 258", ["50", "181", "258"]),
    ('"Alien, 1979",50,"Alien, 1986"', ["Alien, 1979", "50", "Alien, 1986"]),
    ('50, "Alien, 1979"', ["50", "Alien, 1979"]),
    ('pipe 5", the ""', ['pipe 5"', 'the ""']),
    ("50\n181\n", ["50", "181"]),
    ('"50', ["50"]),
    (" , ,", []),
    ("", []),
])  # fmt: skip
def test_tokens_of_a_command_line_are_parted_by_commas_outside_of_quotes(text, tokens):
    assert listed(text) == tokens


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "Give one of --user"),
        (["--user=u1", "--history=i1"], "Give one of"),
        (["--user=nobody"], "users: not in the data: 'nobody'"),
        (["--history=nothing"], "'nothing'"),
        (["--history="], "histories: number 1"),
        (["--user=u1", "--k=none"], "k: None"),
        (["--user=u1", "--k=2.5"], "k: 2.5"),
        (["--user=u1", "--k=abc"], "--k: 'abc' must be an integer of at least 1"),
        (["--user=u1", "--k="], "--k: '' must be an integer of at least 1"),
        (["--user="], "--user= names no user; write a user token"),
        (["--user=,"], "--user=, names no user"),
        (["--history=,"], "histories: number 1 is []"),
        (["--user=u1", "--beam_size=0"], "beam_size: 0 must be an integer of at least 1"),
        (["--user=u1", "--new_items=missing"], "--new_items=missing cannot be read"),
        (["--user=u1", "--new_items=/dev/null"], "none are given"),
        (["--user=u1", "--exclude_history=maybe"], "'maybe' must be True or False"),
        (["--user=u1", "--batch_size=0"], "--batch_size: 0 must be an integer of"),
        (["--user=u1", "--output=answers.txt"], ".csv or .jsonl"),
        (["--user=u1", "--beam_sise=3"], "Unknown key 'beam_sise'"),
        (["--user=u1", "--user=u2"], "--user is given twice"),
        (["--users_file=missing.txt"], "--users_file=missing.txt cannot be read"),
        (["--users_file=/dev/null"], "names no user"),
        (["--user=u1", "nonsense"], "Cannot read the argument 'nonsense'"),
        (["--user=u1", "--data_path=nowhere"], "no folder"),
    ],
)
def test_bad_arguments_end_without_a_traceback(arguments, message, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert code == 2 and out == "" and err.startswith("error: ") and message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "data",
    [b"u1\nu2\n", b"\xef\xbb\xbfu1\nu2", b"u1\r\nu2\r\n", b"\n  u1 \n\n\t\nu2\n\n", b"u1\ru2\r"],
)
def test_a_file_of_users_may_come_from_any_editor(data, run, tmp_path, monkeypatch):
    (tmp_path / "users.txt").write_bytes(data)
    code, out, err = run(f"--users_file={tmp_path / 'users.txt'}", "--k=2", "--show_progress=False")
    assert code == 0 and err == "" and [x for x in out.split("\n") if x.startswith("user")] == [
        "user u1", "user u2"
    ]  # fmt: skip
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    assert run("--users_file=-", "--k=2", "--show_progress=False") == (0, out, "")


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "names no user; write one user token on each line"),
        (b"\xef\xbb\xbf\n \r\n", "names no user"),
        ("u1\nu2\n".encode("utf-16"), "it is UTF-16; save it as UTF-8, for example by iconv"),
        ("u1\nu2\n".encode("utf-16-le"), "it is UTF-16"),
        ("u1\nu2\n".encode("utf-16-be"), "it is UTF-16"),
        ("u1\nü2\n".encode("latin-1"), "it is not UTF-8 (byte 0xfc in line 2); save it as UTF-8"),
    ],
)
def test_a_file_of_users_that_cannot_be_read_is_named_with_the_remedy(data, message, run, tmp_path):
    file = tmp_path / "users.txt"
    file.write_bytes(data)
    code, out, err = run(f"--users_file={file}")
    assert code == 2 and out == "" and err.startswith(f"error: --users_file={file}")
    assert message in err


def test_the_program_adds_new_items_of_a_file(run, recommender, tmp_path):
    file = tmp_path / "new.jsonl"
    vector = recommender("PIT").model.saved_content(recommender("PIT").model.state_dict())[1]
    lines = [
        {"item": "fresh", "title": "night river", "genre": "drama"},
        {"item": 7, "vector": vector.tolist()},
    ]
    file.write_text("\ufeff" + "\n\n".join(map(json.dumps, lines)), encoding="utf-8")
    wide = ("--k=42", "--beam_size=1000", f"--new_items={file}")
    code, out, err = run("--user=u1", *wide, name="PIT")
    assert code == 0 and err == "" and " fresh " in out and " 7 " in out
    for text, message in (
        ('{"title": "x"}', "line 1 cannot be read; write a JSON object"),
        ("[1]", "line 1 cannot be read"),
        ('{"item": "a", "title": "x"}\n{"item": "a"}', "line 2: 'a' is there already"),
        ('{"item": "a", "titel": "x"}', "did you mean 'title'"),
    ):
        file.write_text(text)
        code, out, err = run("--user=u1", f"--new_items={file}", name="PIT")
        assert code == 2 and out == "" and message in err


def test_a_missing_checkpoint_is_named(capsys):
    assert main(["--checkpoint=none.pth", "--user=1"]) == 2
    assert "There is no checkpoint 'none.pth'" in capsys.readouterr().err
    assert main(["--user=1"]) == 2
    assert "add --checkpoint=FILE" in capsys.readouterr().err
    assert main(["--help"]) == 0 and "usage" in capsys.readouterr().out


def test_unknown_users_of_a_file_are_named_and_the_others_answered(
    trained, alone, capsys, tmp_path
):
    alone()
    (tmp_path / "users.txt").write_text("u1\nnobody\nu2\nU3\n")
    given = [f"--checkpoint={trained('SASRec')['checkpoint']}", "--k=2", "--show_progress=False"]
    assert main([*given, "--users_file=users.txt"]) == 0
    out, err = capsys.readouterr()
    assert [line for line in out.split("\n") if line.startswith("user ")] == ["user u1", "user u2"]
    assert err.startswith("warning: users: 2 of 4 are not in the data and left out: 'nobody', 'U3'")
    assert main([*given, "--user=nobody,u2", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert "user u2" in out and "'nobody'" in err


def test_where_all_users_are_unknown_it_is_an_error(trained, capsys):
    given = [f"--checkpoint={trained('SASRec')['checkpoint']}", "--user=nobody,noone"]
    assert main(given) == 2
    assert "error: users: not in the data: 'nobody', 'noone'" in capsys.readouterr().err


def test_unknown_items_of_a_history_are_named_and_left_out(trained, alone, capsys):
    alone()
    given = [f"--checkpoint={trained('SASRec')['checkpoint']}", "--k=2"]
    assert main([*given, "--history=i1,i2"]) == 0
    whole = capsys.readouterr().out
    assert main([*given, "--history=i1,novelty,i2"]) == 0
    out, err = capsys.readouterr()
    assert out == whole and "1 of 3 are not in the data and left out: 'novelty'" in err
    assert main([*given, "--history=novelty"]) == 2


def test_python_refuses_what_is_unknown_unless_told_otherwise(trained, recommender, caplog):
    asked = recommender("SASRec")
    with pytest.raises(ConfigError, match="not in the data: 'nobody'"):
        asked.recommend(users=["u1", "nobody"])
    assert [a.user for a in asked.recommend(users=["nobody", "u1"], unknown="skip")] == ["u1"]
    assert "users: 1 of 2 are not in the data" in caplog.text
    file = trained("SASRec")["checkpoint"]
    assert len(recommend(file, users=["nobody", "u1"], unknown="skip", show_progress=False)) == 1
    with pytest.raises(ConfigError, match="unknown: 'ignore' is not one of error, skip"):
        asked.recommend(users=["u1"], unknown="ignore")
