"""The program that recommends, and its function."""

import csv
import json

import pytest
import torch

from recbole_gr.recommend import main, recommend


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
def test_a_file_of_users_is_answered_into_a_file(suffix, run, recommender, tmp_path, tiny_folder):
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
    assert code == 0 and f"{output}, 3 users" in out and "Recommend" in err and "3/3" in err
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


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "Give one of --user"),
        (["--user=u1", "--history=i1"], "Give one of"),
        (["--user=nobody"], "users: not in the data: 'nobody'"),
        (["--history=i1,nothing"], "'nothing'"),
        (["--history="], "histories: number 1"),
        (["--user=u1", "--k=none"], "k: None"),
        (["--user=u1", "--k=2.5"], "k: 2.5"),
        (["--user=u1", "--exclude_history=maybe"], "--exclude_history=maybe: write True or False"),
        (["--user=u1", "--batch_size=0"], "--batch_size=0"),
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


def test_a_missing_checkpoint_is_named(capsys):
    assert main(["--checkpoint=none.pth", "--user=1"]) == 2
    assert "There is no checkpoint 'none.pth'" in capsys.readouterr().err
    assert main(["--user=1"]) == 2
    assert "add --checkpoint=FILE" in capsys.readouterr().err
    assert main(["--help"]) == 0 and "usage" in capsys.readouterr().out
