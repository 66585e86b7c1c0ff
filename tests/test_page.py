"""Pages of one file: nothing of a text becomes markup, nothing is fetched, figures are Plotly's."""

import base64
import gzip
import json
import re
from html.parser import HTMLParser

import pytest

from recbole_gr.report import charts
from recbole_gr.report.page import (
    Section,
    chart,
    command,
    data_script,
    details,
    paragraph,
    table,
    write_page,
)
from recbole_gr.report.table import Column

pytestmark = pytest.mark.whole_pages
EVIL = "</script><img src=x onerror=alert(1)>&\"'"
FIGURES = {
    "intervals": charts.intervals(
        [EVIL, "b"], {EVIL: ([0.1, None], [(0.05, 0.2), None])}, "R", line=0.12
    ),
    "points": charts.points({EVIL: ([1, 2], [0.1, None])}, "R", "k", log=True, names=["a", "b"]),
    "curves": charts.curves({EVIL: ([0, 1], [0.1, None]), "b": ([0], [0.2])}, "N", marks=[0.5]),
    "bars": charts.bars({"x": (["a"], [1.0]), "y": (["a"], [None])}, "t"),
    "heat_map": charts.heat_map([[0.0, None], [1, 2]], ["L1", "L2"], "i", (0, 2), [1, 0], "SID"),
}


class Parsed(HTMLParser):
    """Elements of a page with their attributes, and the data of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] == "script":
            self.scripts.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    columns = [Column("model"), Column("Recall", "{:.4f}", False)]
    parts = [
        paragraph(EVIL),
        table(columns, [[EVIL, 0.25], ["b", 0.125], ["c", float("nan")]]),
        command(f"python x --a={EVIL}", EVIL),
        details(EVIL, *(chart(figure, note=EVIL) for figure in FIGURES.values())),
        data_script({"evil": EVIL, "nan": float("nan")}, "data"),
    ]
    path = tmp_path_factory.mktemp("page") / "page.html"
    return write_page(path, EVIL, [Section(EVIL, parts), Section("empty", [""])], EVIL).read_text()


def test_texts_of_users_and_files_stay_texts(page):
    parsed = Parsed(page)
    assert not [tag for tag, _ in parsed.elements if tag in ("img", "iframe", "object")]
    assert not [name for _, attrs in parsed.elements for name in attrs if name.startswith("on")]
    found = [json.loads(data) for data in parsed.scripts if data.startswith('{"evil')]
    assert found == [{"evil": EVIL, "nan": None}]


def test_a_page_names_no_file_and_no_address_and_its_policy_forbids_them(page):
    for tag, attrs in Parsed(page).elements:
        assert not attrs.get("src") and not attrs.get("srcset"), tag
        assert attrs.get("href", "#").startswith(("#", "data:"))
    own = re.sub(r'<script type="text/plain".*?</script>', "", page, flags=re.S)
    assert not re.search(r"https?://|@import|url\(", own)
    assert "default-src 'none'" in page


def test_plotly_is_that_of_the_package_and_is_there_where_a_figure_is(page, tmp_path):
    packed = re.search(r'<script type="text/plain" id="plotly">(.*?)</script>', page)[1]
    assert gzip.decompress(base64.b64decode(packed)).lstrip().startswith(b"/**")
    plain = write_page(tmp_path / "p.html", "t", [Section("s", [paragraph("x")])]).read_text()
    assert 'id="plotly"' not in plain and len(plain) < 20_000


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_in_the_form_of_plotly(name):
    from plotly.graph_objects import Figure

    plain = json.loads(json.dumps(FIGURES[name]))
    assert plain.pop("title")
    Figure(plain)  # which raises for a key that it does not know


def test_a_table_marks_the_best_and_sorts_by_the_values_themselves():
    columns = [Column("model"), Column("loss", "{:.1f}", True), Column("seconds", "{:.0f}")]
    text = table(columns, [["a", 1.04, 7], ["b", 1.02, 5], ["c", None, 6]])
    assert re.findall(r'data-v="(.*?)"', text) == ["1.04", "7", "1.02", "5", "6"]
    assert re.findall(r"<b>(.*?)</b>", text) == ["1.0"] and text.count("<td>-</td>") == 1


def test_sections_without_parts_are_left_out(page):
    assert page.count("<section") == 1 and page.count("<nav><a ") == 1


def test_intervals_are_lengths_from_the_value_and_unknown_ones_have_none():
    bars = FIGURES["intervals"]["data"][0]["error_x"]
    assert bars["array"] == [pytest.approx(0.1), None]
    assert bars["arrayminus"] == [pytest.approx(0.05), None]
    two = charts.intervals(["a"], {"x": ([0.5], [None]), "y": ([0.5], [None])}, "R")["data"]
    assert two[0]["error_x"]["array"] == two[0]["error_x"]["arrayminus"] == [0.0]
    assert two[0]["y"] != two[1]["y"] and two[0]["marker"] != two[1]["marker"]


def test_names_in_figures_are_texts_of_two_lines_at_most():
    long = "the first of " + "many words of " * 9 + "a name"
    names = ["<b>A</b> & co", "IntRR, loss over the codebook", long, "x" * 200]
    figure = charts.intervals(names, {"<i>": ([0.1] * 4, [None] * 4)}, "R")
    shown = figure["layout"]["yaxis"]["ticktext"]
    assert shown[:2] == ["&lt;b&gt;A&lt;/b&gt; &amp; co", "IntRR, loss over the<br>codebook"]
    for text, name in zip(shown[2:], names[2:]):
        begin, end = text.split(" \u2026<br>")
        assert name.startswith(begin) and name.endswith(end) and max(len(begin), len(end)) <= 26
    (trace,) = figure["data"]
    assert trace["name"] == "&lt;i&gt;" and trace["text"][0] == shown[0]
    assert "<i>" not in trace["hovertemplate"]
