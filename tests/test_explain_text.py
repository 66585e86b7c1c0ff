"""Claims about the text of an explained answer, and about `recommend --explain`."""

import json
import math
import re

import pytest
from pages import snippets

from recbole_gr.serving.explain import explain
from recbole_gr.serving.explain_text import WIDTH, explained
from recbole_gr.serving.recommend import main


@pytest.fixture
def run(trained, capsys):
    """A function from arguments to the exit code, output and errors of `recommend`."""

    def run(*arguments, name="TIGER"):
        code = main([f"--checkpoint={trained(name)['checkpoint']}", *arguments])
        return code, *capsys.readouterr()

    return run


def test_the_program_prints_levels_and_answer_and_writes_the_same_as_json(
    run, recommender, tmp_path
):
    file = tmp_path / "new" / "why.json"
    code, out, err = run("--user=u1", "--k=4", f"--explain={file}", "--why=i2,i30")
    found = json.loads(file.read_text())
    expected = explain(recommender("TIGER"), "u1", k=4, why=["i2", "i30"])
    assert code == 0 and err == "" and found == expected
    assert out == explained(expected) + f"\nWritten: {file}\n"
    lines = out.split("\n")
    assert [line.split(":")[0] for line in lines if line.startswith("level ")] == [
        f"level {n} of 3" for n in (1, 2, 3)
    ]
    for item in expected["items"]:
        (line,) = [line for line in lines if line.endswith(f"{item['item']}  {item['title']}")]
        assert f"{item['score']:.4f}" in line.split()
    assert "why i2 " in out and "why i30 " in out and "prefix: the codes of a SID" in out
    assert run("--user=u1", "--k=4", "--why=i2,i30", "--explain") == (0, explained(expected), "")
    assert run("--explain", "--user=u1", "--k=4", "--why=i2,i30")[1] == explained(expected)


def test_the_program_explains_a_history_without_what_is_unknown(run, caplog):
    code, out, err = run("--history=i1,novelty,i2", "--explain", "--k=3")
    assert code == 0 and out.startswith("history: 2 items") and "'novelty'" in err + caplog.text


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--user=u1,u2", "--explain"], "give one --user or --history"),
        (["--users_file=u.txt", "--explain"], "without --users_file"),
        (["--user=u1", "--output=a.csv", "--explain"], "without --output"),
        (["--user=u1", "--explain=why.txt"], "--explain=why.txt: the name must end in .json"),
        (["--user=u1", "--why=i1"], "--why=i1 goes with --explain"),
        (["--user=u1", "--explain", "--why=thing"], "why: not in the data: 'thing'"),
        (["--user=u1", "--explain=/dev/null/why.json"], "cannot be written"),
    ],
)
def test_bad_arguments_are_named(arguments, message, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "u.txt").write_text("u1\n")
    code, out, err = run(*arguments)
    assert code == 2 and out == "" and message in err


def test_the_program_says_what_there_is_of_a_model_without_beams(run):
    code, out, err = run("--user=u1", "--explain", name="SASRec")
    assert code == 2 and out == "" and "recommend without explain gives its items" in err
    code, out, _ = run("--user=u1", "--explain", "--k=2", name="RPG")
    assert code == 0 and "all 40 items are scored: no search" in out and "digit 2" in out


def test_a_long_sid_is_shown_by_its_lowest_digits():
    source = {
        "beam": None, "sid": list(range(32)), "log_share": 0.0, "log_prob": -9.0,
        "code_log_probs": [-0.25] * 7 + [-3.0] + [-0.125] * 24, "normaliser": 1.75,
    }  # fmt: skip
    item = {"rank": 1, "item": "a", "title": "A" * 200, "score": -9.0, "sources": [source],
            "added": None, "filled": False}  # fmt: skip
    settings = {"k": 1, "beam_size": 9, "renormalise": True, "exclude_history": True}
    text = explained(
        {"model": "RPG", "user": None, "history": [{"item": "b"}], "n_read": 1, "n_items": 9,
         "settings": settings, "levels": [], "items": [item], "removed": [], "next": [], "why": []}
    )  # fmt: skip
    lines = text.split("\n")
    (line,) = [line for line in lines if line.endswith("AAA...")]
    assert line.split()[:7] == ["1", "-9.0000", "-7.7500", "8:", "-3.00,", "1:", "-0.25"]
    assert line.split()[7:9] == ["1.7500", "a"] and lines[5].split()[-2:] == ["item", "title"]
    assert max(map(len, text.split("\n"))) <= WIDTH


def test_the_example_of_the_page_is_of_today_and_its_numbers_agree(recommender):
    """It is of a run that takes minutes; here: its form, and what follows from its numbers."""
    (text,) = [x.text for x in snippets("text") if x.page == "docs/serving.md"]
    today = explained(explain(recommender("TIGER", beam_size=10), "u1", k=3, why=["i30"]))

    def forms(text, start):
        """Lines that begin so, with every number as 0."""
        lines = [" ".join(re.sub(r"-?\d+(\.\d+)?", "0", line).split()) for line in text.split("\n")]
        return {line.replace("level 0 ", "") for line in lines if line.startswith(start)}

    for start in (
        "prefix ",
        "level 0 of 0:",
        "rank score",
        "score:",
        "scored without",
        "dropped 0",
    ):
        assert forms(text, start) and forms(text, start) <= forms(today, start)
    number, rows = r"(-?\d+\.\d+)", 0
    for block in text.split("answer\nrank")[0].split("\n\n"):
        threshold = re.search(rf"\(log p {number}\)", block)
        for row in re.findall(rf"^[ x] +[\d-]+ +{number}  {number}  {number} .*$", block, re.M):
            log_p, p, _ = map(float, row)
            assert math.exp(log_p) == pytest.approx(p, abs=6e-5)
            rows += 1
        for log_p, missed in re.findall(rf"^x +[\d-]+ +{number} .* by {number}", block, re.M):
            assert float(threshold[1]) - float(log_p) == pytest.approx(float(missed), abs=2e-4)
    for line in re.findall(rf"^ +\d+  {number}((?:  {number})+)  [\d-]+ ", text, re.M):
        assert float(line[0]) == pytest.approx(sum(map(float, line[1].split())), abs=3e-4)
        rows += 1
    assert rows == 17
