"""Claims about the server of `recbole-gr serve-demo` and its answers."""

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
from demo_servers import running

from recbole_gr.serving.demo import main
from recbole_gr.serving.demo_data import LISTED, MOST_BEAMS, MOST_ITEMS, Demo
from recbole_gr.serving.demo_server import FILES, MOST_BYTES, PAGE
from recbole_gr.serving.explain import explain

ROOT = Path(__file__).parent.parent


@pytest.fixture
def serve(recommender):
    """A function from a name of RUNS to a running server and its recommender."""
    with contextlib.ExitStack() as stack:

        def serve(name="TIGER", **overrides):
            asked = recommender(name, **overrides)
            return stack.enter_context(running(asked)), asked

        yield serve


def request(server, path, body=None, method=None, **headers):
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    given = {"Content-Type": "application/json"} if body is not None else {}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    method = method or ("GET" if body is None else "POST")
    connection.request(method, path, body, given)
    response = connection.getresponse()
    found = response.status, response.headers, response.read()
    connection.close()
    return found


def data(server, path, asked=None, status=200):
    code, headers, body = request(server, path, None if asked is None else json.dumps(asked))
    assert code == status and headers["Content-Type"] == "application/json; charset=utf-8"
    assert int(headers["Content-Length"]) == len(body)
    return json.loads(body)


def test_a_history_and_a_user_are_answered_as_by_the_recommender(serve, sequences):
    server, asked = serve()
    history = sequences["u3"]
    found = data(server, "/api/recommend", {"history": history, "k": 7, "exclude_history": True})
    (given,) = asked.recommend(histories=[history], k=7, exclude_history=True)
    assert [item["item"] for item in found["items"]] == given.items
    assert [item["score"] for item in found["items"]] == given.scores
    asked_for = {"user": "u1", "k": 3, "beam_size": 4, "why": ["i2"]}
    found = data(server, "/api/recommend", asked_for)
    assert found == explain(asked, **asked_for)
    assert len(found["levels"][-1]["kept"]) == 4


@pytest.mark.parametrize("name", ["SASRec", "Pop", "RPG"])
def test_models_without_beams_answer_with_items_and_scores(name, serve):
    server, asked = serve(name)
    found = data(server, "/api/recommend", {"user": "u1", "k": 5})
    (given,) = asked.recommend(["u1"], k=5)
    assert [(item["item"], item["score"]) for item in found["items"]] == list(
        zip(given.items, given.scores)
    )
    assert found["levels"] == [] and found["decoding"] == ("exact" if name == "RPG" else "none")
    about = data(server, "/api/about")
    assert about["beam_size"] is None
    assert about["explains"] == (name == "RPG") and about["takes_histories"] == (name != "Pop")
    if name == "Pop":
        error = data(server, "/api/recommend", {"history": ["i1"]}, 400)["error"]
        assert "give users" in error


def test_users_are_the_first_ones_those_of_a_token_or_any(serve):
    server, asked = serve()
    tokens = [str(token) for token in asked.dataset.field2id_token["user_id"]][1:]
    lengths = asked.histories.lengths().tolist()[1:]
    found = data(server, "/api/users")
    assert found["total"] == 60 and len(found["users"]) == LISTED
    assert [(user["user"], user["n_items"]) for user in found["users"]] == list(
        zip(tokens, lengths)
    )[:LISTED]
    named = {user["user"] for user in data(server, "/api/users?like=u1")["users"]}
    assert named == {token for token in tokens if token.startswith("u1")}
    assert data(server, "/api/users?like=x") == {"total": 0, "users": []}
    drawn = [data(server, "/api/users?random")["users"] for _ in range(5)]
    assert all({user["user"] for user in users} <= set(tokens) for users in drawn)
    assert len({users[0]["user"] for users in drawn}) > 1


def test_items_are_found_by_token_and_by_words_of_their_title(serve, tiny_folder):
    server, _ = serve()
    with open(tiny_folder / "tiny" / "tiny.item") as file:
        titles = dict(line.rstrip("\n").split("\t")[:2] for line in list(file)[1:])

    def found(like):
        return data(server, f"/api/items?like={quote(like)}")

    assert found("i7")["items"][0] == {"item": "i7", "title": titles["i7"]}
    assert found("I7")["items"][0]["item"] == "i7"
    for like in ("river", "Night RIVER", "ver ni", "voice  island "):
        wanted = {
            item for item, title in titles.items()
            if all(word in title for word in like.casefold().split())
        }  # fmt: skip
        listed = found(like)
        assert listed["total"] == len(wanted) and {x["item"] for x in listed["items"]} <= wanted
        assert all(titles[x["item"]] == x["title"] for x in listed["items"])
    begin = [x["title"].startswith("river") for x in found("river")["items"]]
    assert any(begin) and begin == sorted(begin, reverse=True)
    assert found("")["total"] == 40 and len(found("")["items"]) == LISTED


@pytest.mark.parametrize(
    "asked, message",
    [
        ({}, "give one user or one history"),
        ({"user": "u1", "history": ["i1"]}, "give one user or one history"),
        ([], "give an object"),
        ("u1", "give an object"),
        ({"user": "nobody"}, "users: not in the data: 'nobody'"),
        ({"history": ["i1", "nothing"]}, "'nothing'"),
        ({"history": []}, "histories: number 1"),
        ({"history": "i1"}, "history: 'i1' must be a JSON array"),
        ({"history": [1]}, "every item must be a JSON string"),
        ({"user": 1}, "user: 1 must be a JSON string"),
        ({"user": "u1", "k": 0}, f"k: 0 must be an integer from 1 to {MOST_ITEMS}"),
        ({"user": "u1", "k": "3"}, "k: '3' must be"),
        ({"user": "u1", "k": 41}, "k: 41 must be an integer from 1 to 40"),
        ({"user": "u1", "beam_size": 10**9}, f"from 1 to {MOST_BEAMS}"),
        ({"user": "u1", "exclude_history": "no"}, "must be a JSON true or false"),
        ({"user": "u1", "why": ["nothing"]}, "why: not in the data"),
        ({"user": "u1", "checkpoint": "/etc/passwd"}, "'checkpoint' is not one of"),
    ],
)
def test_bad_input_is_answered_by_400_and_says_why(asked, message, serve):
    server, _ = serve()
    assert message in data(server, "/api/recommend", asked, 400)["error"]
    assert data(server, "/api/about")["model"] == "TIGER"  # and it goes on


def test_a_body_is_json_of_a_known_and_bounded_length(serve):
    server, _ = serve()
    assert request(server, "/api/recommend", b"{")[0] == 400
    assert request(server, "/api/recommend", b"[" * 60_000)[0] == 400
    assert request(server, "/api/recommend", b"\xff\xfe")[0] == 400
    assert request(server, "/api/recommend", b"{}", Content_Type="text/plain")[0] == 415
    for length, status in (("", 411), ("-1", 411), ("x", 411), (str(MOST_BYTES + 1), 413)):
        # Without a body: the answer comes before it is read.
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=60) as raw:
            raw.sendall(
                f"POST /api/recommend HTTP/1.0\r\nHost: 127.0.0.1:{server.server_port}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n".encode()
            )
            assert raw.makefile("rb").readline().split()[1] == str(status).encode()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "evil.example:{}", "localhost:1"])
def test_another_host_is_refused(host, serve):
    server, _ = serve()
    for path, body in (("/", None), ("/api/about", None), ("/api/recommend", '{"user": "u1"}')):
        assert request(server, path, body, Host=host.format(server.server_port))[0] == 403
    own = f"localhost:{server.server_port}"
    assert request(server, "/api/about", Host=own)[0] == 200
    assert request(server, "/api/about", Origin=f"http://{own}")[0] == 200
    for origin in ("http://evil.example", "null", f"https://{own}"):
        assert request(server, "/api/about", Origin=origin)[0] == 403
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=60) as raw:
        raw.sendall(b"GET / HTTP/1.0\r\n\r\n")  # none at all
        assert raw.makefile("rb").readline().split()[1] == b"403"


@pytest.mark.parametrize(
    "path", ["/nothing", "/api", "/api/recommend", "/demo.html", "/../demo.py", "/%2e%2e/demo.py",
             "//etc/passwd", "/page/demo.css", "/etc/passwd"],
)  # fmt: skip
def test_an_unknown_path_is_not_found(path, serve):
    server, _ = serve()
    assert request(server, path)[0] == 404
    assert request(server, path + "/x", "{}")[0] == 404


def test_only_get_and_post_are_answered(serve):
    server, _ = serve()
    for method in ("PUT", "DELETE", "OPTIONS", "HEAD"):
        assert request(server, "/", method=method)[0] == 501
    assert request(server, "/", "{}")[0] == 404


def test_the_files_of_the_page_come_with_their_type_and_a_strict_policy(serve):
    server, _ = serve()
    for path, (name, kind) in FILES.items():
        status, headers, body = request(server, path)
        assert status == 200 and headers["Content-Type"] == f"{kind}; charset=utf-8"
        assert body == (PAGE / name).read_bytes()
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'") and "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert {name for name, _ in FILES.values()} == {file.name for file in PAGE.iterdir()}


def test_the_page_names_no_other_machine_and_makes_no_html_of_data():
    for file in PAGE.iterdir():
        text = file.read_text(encoding="utf-8")
        assert text.count("\n") <= 320
        assert set(re.findall(r"https?://[^\s\"'`)]+", text)) <= {"http://www.w3.org/2000/svg"}
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
                    "Function(", " style=", " onclick=", "<script>"):  # fmt: skip
            assert way not in text


def test_the_server_listens_on_this_machine_alone(serve):
    server, _ = serve()
    assert server.socket.getsockname() == ("127.0.0.1", server.server_port)
    assert server.address == f"http://127.0.0.1:{server.server_port}"


def test_requests_at_the_same_time_get_their_own_answers(serve):
    server, asked = serve()
    users, found = [f"u{n}" for n in range(12)], {}

    def ask(user):
        found[user] = data(server, "/api/recommend", {"user": user, "k": 5})

    threads = [threading.Thread(target=ask, args=(user,)) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for given in asked.recommend(users, k=5):
        assert [item["item"] for item in found[given.user]["items"]] == given.items


def test_a_fault_of_the_program_is_an_answer_and_the_server_goes_on(serve, monkeypatch, caplog):
    server, _ = serve()
    monkeypatch.setattr(Demo, "answer", lambda demo, asked: 1 / 0)
    assert "ZeroDivisionError" in data(server, "/api/recommend", {"user": "u1"}, 500)["error"]
    assert data(server, "/api/users")["total"] == 60 and "ZeroDivisionError" in caplog.text


@pytest.mark.slow
def test_the_program_prints_its_address_and_ctrl_c_ends_it(trained):
    command = [sys.executable, "-m", "recbole_gr", "serve-demo", trained("TIGER")["checkpoint"]]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)  # fmt: skip
    with running:
        line = running.stdout.readline()
        (port,) = re.findall(r"^TIGER on tiny: http://127\.0\.0\.1:(\d+) \(Ctrl-C ends it\)$", line)
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
        connection.request("GET", "/api/about")
        assert json.load(connection.getresponse())["dataset"] == "tiny"
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=120)
    assert (running.returncode, out, err) == (0, "Ended.\n", "")


def test_bad_arguments_end_without_a_traceback(trained, capsys):
    file = trained("TIGER")["checkpoint"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for arguments, message in (
            ([file, f"--port={port}"], f"--port={port}: 127.0.0.1 cannot be listened to"),
            ([file, "--port=70000"], "--port: 70000 must be an integer in [0, 65535]"),
            (["none.pth"], "There is no checkpoint 'none.pth'"),
            (["--port=1"], "No checkpoint is given: add CHECKPOINT"),
            ([file, "--prot=1"], "Unknown key 'prot'"),
        ):
            assert main(arguments) == 2
            out, err = capsys.readouterr()
            assert out == "" and err.startswith("error: ") and message in err
