"""The report's HTML page: well formed, self-contained, escaped, honest, the same for the same runs, legible."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from run_folders import epoch_line, make_run, read_runs

from ffcv_imagenet.losses import LOSSES
from ffcv_imagenet.report import main
from ffcv_imagenet.report.charts import Row, Series, dot_chart, line_chart, ticks
from ffcv_imagenet.report.comparison import compare
from ffcv_imagenet.report.groups import LOSS_ORDER, group_runs, last_fifth
from ffcv_imagenet.report.measured import measured_tables
from ffcv_imagenet.report.page import TEMPLATE_FILE, render_page
from ffcv_imagenet.report.palette import DARK_COLOURS, DASHES, LIGHT_COLOURS, MARKERS, Style, style_of, styles
from ffcv_imagenet.report.paper import MEASURED_NOTE, beside_published, published_figures, published_measurements
from ffcv_imagenet.report.runs import load_runs
from ffcv_imagenet.report.template import STYLE_FILE

ROOT = Path(__file__).parents[2]

VOID = {"meta", "br", "hr", "img", "input", "link"}
NASTY = "<script>alert('x')</script><b>&amp;\"'"


class Page(HTMLParser):
    """Elements of a page; fails where a tag is not closed in the order of opening."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        assert len(dict(attributes)) == len(attributes), f"{tag}: an attribute twice"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert "svg" in self.open, f"{tag}: only SVG elements close themselves"
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def page_of(*folders, **options) -> Page:
    return Page(render_page(read_runs(*folders), **options))


@pytest.fixture
def runs(tmp_path) -> Path:
    """Three losses and three seeds, a failed run, runs with another learning rate and of other lengths, nasty names."""
    root = tmp_path / "runs"
    for loss, top_1 in (
        ("baseline", (0.70, 0.72, 0.75)),
        ("label_smoothing", (0.71, 0.74, 0.76)),
        ("maxsup", (0.7, 0.8, 0.77)),
    ):
        for seed, value in enumerate(top_1):
            make_run(root, f"{loss}{seed}", loss=loss, seed=seed, top_1=(0.1, 0.2, 0.4, value))
    make_run(root, "failed", loss="maxsup", seed=3, top_1=(0.1, 0.2), state="failed", error=f"diverged\n{NASTY}")
    make_run(root, "slow", loss="maxsup", arch="resnet18", lr__lr=0.5, training__epochs=6, top_1=(0.1,) * 6)
    make_run(root, "fast", loss="baseline", arch="resnet18", training__epochs=2, top_1=(None, 0.2))
    nasty = NASTY.replace("/", "|")
    make_run(root, nasty, loss=NASTY, arch=NASTY, recipe=NASTY, hardware=NASTY, top_1=(), state=NASTY, lr__lr=NASTY)
    make_run(root, "nasty2", loss=NASTY, arch=NASTY, recipe=NASTY, top_1=(0.1, 0.2, 0.3, 0.4))
    return root


def test_well_formed_self_contained_and_accessible(runs):
    page = page_of(runs, with_published=True)
    assert not {"script", "link", "img", "iframe", "object", "image", "use", "a", "form"} & {
        t for t, _ in page.elements
    }
    namespaces = [v for _, attributes in page.elements for v in attributes.values() if v and ("//" in v or "url(" in v)]
    assert namespaces == []
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert not re.search(r"url\(|@import|//", STYLE_FILE.read_text())
    policy = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]

    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {a["aria-labelledby"] for a in page.all("section")} <= set(ids)
    assert page.all("html") == [{"lang": "en"}]
    assert all(th.get("scope") in ("row", "col") for th in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    charts = [svg for svg in page.all("svg") if svg["class"] == "chart"]
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in charts)
    assert all(svg in charts or svg["aria-hidden"] == "true" for svg in page.all("svg"))
    assert len(page.all("figcaption")) == len(page.all("figure")) == 7 * 3
    assert len(page.all("details")) == 14


def test_everything_is_shown_and_nothing_of_it_is_markup(runs):
    page = page_of(runs)
    assert page.words.count("<script>alert('x')</script>") > 5
    assert page.all("b") == []
    names = {tag for tag, _ in page.elements}
    assert names <= {
        *("html", "head", "meta", "title", "style", "body", "header", "main", "section", "h1", "h2", "h3", "p", "div"),
        *("table", "caption", "thead", "tbody", "tr", "th", "td", "ul", "li", "small", "span", "code"),
        *("figure", "figcaption", "details", "summary", "svg", "g", "path", "text"),
    }


def test_figures_tests_and_unfinished_runs_are_told(runs):
    words = page_of(runs).words
    assert "72.33 ± 2.52" in words
    assert "+1.33" in words
    assert "p two-sided adjusted for 2 tests" in words
    assert re.search(r"adjusted [\d.]+ paired t-test 3 pairs", words)
    assert "Each 95 % interval stands alone: none is adjusted" in words
    assert "Seeds of each loss that a difference of the size seen would take (power 0.8, 5 % / 2 tests): " in words
    assert "failed (failed at 2/4): diverged" in words
    assert "lr.lr 0.5 slow 1.7 fast kept apart" in words
    assert "training.epochs 2 fast 6 slow kept apart" in words
    assert "significant" not in words
    parameters = words[words.index("How to read this") :]
    assert "data.num_workers 8" in parameters
    assert "hardware.gpu H200" in parameters


def test_one_seed_gives_no_spread_and_no_test(tmp_path):
    make_run(tmp_path, "a", loss="baseline")
    make_run(tmp_path, "b", loss="maxsup", top_1=(0.1, 0.2, 0.3, 0.35))
    words = page_of(tmp_path).words
    assert "No interval of the mean (one seed: no spread can be given): baseline, maxsup." in words
    assert "No test of the difference (one seed: no test can be made): maxsup." in words
    assert "+5.00" in words
    assert "±" not in words[: words.index("No interval")].replace("mean ± sd", "")
    assert "differ in nothing but the loss, its options and the seed" in words
    assert "t-test 1" not in words


@pytest.mark.parametrize("top_1", [(), (None, None), (0.1, 0.2)])
def test_no_finished_run(tmp_path, top_1):
    make_run(tmp_path, "a", loss="baseline", top_1=top_1, state="running")
    words = page_of(tmp_path, with_published=True).words
    assert "1 run of 1 loss, 0 finished" in words
    assert f"a (running at {len(top_1)}/4)" in words
    assert "No figures (no finished run): baseline." in words
    assert "nan" not in words


def test_no_runs_are_an_error():
    with pytest.raises(ValueError, match="no runs"):
        render_page([])


def test_the_same_runs_give_the_same_page_wherever_they_lie(runs, tmp_path):
    elsewhere = tmp_path / "elsewhere" / "copy"
    shutil.copytree(runs, elsewhere)
    assert render_page(read_runs(runs)) == render_page(read_runs(elsewhere))
    assert str(tmp_path) not in render_page(read_runs(runs))


def test_published_figures_stand_next_to_ours(tmp_path):
    make_run(tmp_path, "a", loss="maxsup", top_1=(0.1, 0.2, 0.3, 0.765))
    make_run(tmp_path, "b", loss="own", recipe="other")
    assert "Published" not in page_of(tmp_path).words
    words = page_of(tmp_path, with_published=True).words.replace("\N{EN DASH}", "-")
    assert "resnet50, maxsup rn50_16_epochs 4 1 76.50 77.69 ± 0.07" in words
    assert "resnet50, online_label_smoothing - - 0 - 77.23 ± 0.21" in words
    assert "resnet50, own other 4 1 30.00 -" in words
    assert "They were not measured with this program" in words
    assert "resnet18" not in words


def test_published_figures_are_whole_and_plausible():
    rows = published_figures()
    assert len({(row.architecture, row.loss) for row in rows}) == len(rows) == 24
    assert {row.architecture for row in rows} == {"resnet18", "resnet50", "resnet101", "mobilenet_v2"}
    columns = [
        "baseline",
        "label_smoothing",
        "maxsup",
        "logit_penalty",
        "online_label_smoothing",
        "zipf_label_smoothing",
    ]
    assert all([r.loss for r in rows if r.architecture == a] == columns for a in {r.architecture for r in rows})
    assert set(columns) <= set(LOSSES.kinds)
    assert all(68 < row.top_1 < 79 and 0 < row.sd < 0.3 for row in rows)


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "resnet101", "mobilenet_v2"])
def test_every_column_of_the_papers_table_finds_its_runs(tmp_path, arch):
    for row in (figures := [row for row in published_figures() if row.architecture == arch]):
        make_run(tmp_path, row.loss, loss=row.loss, arch=arch)
    assert len(figures) == 6
    pairs = beside_published(compare(group_runs(read_runs(tmp_path))))
    assert [(pair.loss, pair.published) for pair in pairs] == [(row.loss, row) for row in figures]
    assert all(pair.ours is not None for pair in pairs)


def test_command_line_writes_the_page_and_the_published_table(tmp_path, capsys):
    make_run(tmp_path / "runs", "a", loss="maxsup")
    arguments = [str(tmp_path / "runs"), "--html", str(tmp_path / "r.html"), "--markdown", str(tmp_path / "t.md")]
    main([*arguments, "--compare=paper"])
    expected = render_page(read_runs(tmp_path / "runs"), with_published=True)
    assert (tmp_path / "r.html").read_text(encoding="utf-8") == expected
    printed, markdown = capsys.readouterr().out, (tmp_path / "t.md").read_text(encoding="utf-8")
    for text in (printed, markdown):
        assert "77.69 ± 0.07" in text
        assert "They were not measured with this program" in text
    with pytest.raises(ValueError, match="invalid choice: 'other'"):
        main([*arguments, "--compare=other"])


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(("mode", "colours"), [(0, LIGHT_COLOURS), (1, DARK_COLOURS)])
def test_text_and_lines_have_enough_contrast(mode, colours):
    schemes = re.findall(r":root \{([^}]*--back[^}]*)\}", STYLE_FILE.read_text())
    scheme = dict(re.findall(r"--(\w+): (#\w{6})", schemes[mode]))
    for text in ("text", "muted"):
        assert contrast(scheme[text], scheme["back"]) >= 4.5
        assert contrast(scheme[text], scheme["panel"]) >= 4.5
    assert len(colours) == len(set(colours)) == len(LIGHT_COLOURS)
    assert all(contrast(colour, scheme["back"]) >= 3 for colour in colours)


def lab(colour: str) -> tuple[float, float, float]:
    """CIE L*a*b* of an sRGB colour (D65)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = np.array([p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts])
    matrix = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = np.array(matrix) @ linear / [0.95047, 1.0, 1.08883]
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("colours", [LIGHT_COLOURS, DARK_COLOURS])
def test_twelve_losses_differ_in_marker_or_dash_and_mostly_in_colour(colours):
    """Without colours, as in print, marker and dash tell them apart; colours are either the same or plainly others."""
    assert lab("#FFFFFF") == pytest.approx((100, 0, 0), abs=0.05)
    assert lab("#0000FF") == pytest.approx((32.30, 79.19, -107.86), abs=0.1)
    for one, other in itertools.combinations(map(style_of, range(12)), 2):
        assert (one.marker, one.dash) != (other.marker, other.dash)
        assert (one.colour, one.marker) != (other.colour, other.marker)
        difference = math.dist(lab(colours[one.colour]), lab(colours[other.colour]))
        assert difference >= 20 or (one.colour == other.colour and one.marker != other.marker)


def test_markers_and_dashes_are_all_different():
    assert len({marker.svg for marker in MARKERS}) == len({marker.matplotlib for marker in MARKERS}) == len(MARKERS)
    assert len(set(DASHES)) == len(DASHES)


def test_the_groups_of_a_loss_share_its_colour_and_marker_and_differ_in_the_dash(tmp_path):
    losses = [*LOSS_ORDER, *(f"loss{i}" for i in range(12 - len(LOSS_ORDER)))]
    for loss in losses:
        for lr in (0.1, 0.2):
            make_run(tmp_path, f"{loss}{lr}", loss=loss, lr__lr=lr)
    groups = group_runs(read_runs(tmp_path))
    found = styles(groups)
    assert len(set(found)) == len(found) == 2 * len(losses)
    for loss in losses:
        one, other = (style for group, style in zip(groups, found, strict=True) if group.loss == loss)
        assert (one.colour, one.marker) == (other.colour, other.marker)
        assert one.dash != other.dash
    page = render_page(read_runs(tmp_path))
    legend = re.search(r'<ul class="legend".*?</ul>', page, re.DOTALL).group()
    keys = re.findall(r'<svg class="key (c\d+)".*?<path class="line"(.*?) d=.*?d="([^"]*)"/></svg>', legend)
    assert len(set(keys)) == len(keys) == 2 * len(losses)


def test_the_last_fifth_of_the_epochs_has_a_chart_with_its_own_scale(tmp_path):
    for loss, offset in (("baseline", 0.0), ("maxsup", 0.001)):
        values = [epoch / 30 for epoch in range(1, 16)] + [0.7 + offset + epoch / 1000 for epoch in range(16, 21)]
        make_run(tmp_path, loss, loss=loss, top_1=tuple(values), training__epochs=20)
    assert last_fifth(group_runs(read_runs(tmp_path))) == 16
    page = render_page(read_runs(tmp_path))
    chart = re.search(r"over the last fifth of the epochs</h3>\s*(<svg.*?</svg>)", page, re.DOTALL).group(1)
    lines = [path.split("L") for path in re.findall(r'class="line"[^>]*d="M([^"]*)"', chart)]
    assert [len(line) for line in lines] == [5, 5]
    marks = [float(text) for text in re.findall(r'<text class="end"[^>]*>([^<]*)<', chart)]
    assert min(marks) > 50
    assert re.findall(r'<text class="middle"[^>]*>(\d+)<', chart) == ["16", "17", "18", "19", "20"]


@pytest.mark.parametrize(("epochs", "first"), [(1, 0), (2, 1), (4, 3), (5, 4), (6, 5), (16, 13), (90, 72)])
def test_the_last_fifth_holds_two_epochs_at_least(tmp_path, epochs, first):
    make_run(tmp_path, "a", training__epochs=epochs, top_1=(0.1,) * epochs)
    assert last_fifth(group_runs(read_runs(tmp_path))) == first


def test_a_damaged_run_is_named_on_the_page(tmp_path):
    make_run(tmp_path / "runs", "sound")
    make_run(tmp_path / "runs", "broken", log=epoch_line(1, math.nan))
    words = Page(render_page(*load_runs([tmp_path]))).words
    assert "Left out, since they cannot be understood: broken : broken/log.jsonl, line 1: top_1: got nan" in words
    assert str(tmp_path) not in words


def test_the_template_escapes_by_itself():
    """Only charts and styles, which this program makes, go in unescaped: as Markup, from page.py."""
    text = TEMPLATE_FILE.read_text()
    assert not re.search(r"\|\s*safe|autoescape", text)


def test_a_narrow_page_says_that_the_table_goes_on(runs):
    style = STYLE_FILE.read_text()
    assert re.search(r"@media screen and \(max-width: \d+rem\) \{\s*\.more \{ display: inline; \}", style)
    assert page_of(runs).words.count("More columns: scroll to the right.") == 3


def test_the_example_is_what_the_code_makes():
    """After a change: python -m ffcv_imagenet.report docs/example_runs --html docs/example_report.html."""
    expected = (ROOT / "docs/example_report.html").read_text(encoding="utf-8")
    assert render_page(read_runs(ROOT / "docs/example_runs")) == expected


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 16), (69.1, 78.2), (99.4, 99.6), (-3.2, 4), (0, 0), (50, 50), (0, 12345), (0, 1e-3)]
)
def test_ticks_are_round_even_and_span_the_values(low, high):
    marks = ticks(low, high)
    steps = {round(b - a, 9) for a, b in itertools.pairwise(marks)}
    assert marks[0] <= low
    assert marks[-1] >= high
    assert len(steps) == 1
    assert 2 <= len(marks) <= 8


def test_a_line_goes_through_its_points():
    series = Series("maxsup", Style(2), [1, 2, 4], [10, 30, 20], [10, 20, 20], [10, 40, 20])
    chart = line_chart([series], title="t", x_title="epochs")
    (line,) = re.findall(r'class="line" d="M([^"]*)"', chart)
    points = [tuple(map(float, point.split())) for point in line.split("L")]
    (x1, y1), (x2, y2), (x3, y3) = points
    assert (x3 - x2) == pytest.approx(2 * (x2 - x1), abs=0.2)
    assert (y1 - y2) == pytest.approx(2 * (y1 - y3), abs=0.2)
    assert y2 < y3 < y1
    assert chart.count('class="band c2"') == 1
    assert "maxsup: 30 at 2 epochs (mean; runs from 20 to 40)" in chart
    alone = Series("maxsup", Style(2), [1, 2], [10, 30], [10, 30], [10, 30])
    assert "band" not in line_chart([alone], title="t", x_title="epochs")
    assert "Nothing logged" in line_chart([], title="t", x_title="epochs")


@pytest.mark.parametrize(("interval", "arrows"), [((-50.0, 190.0), 2), ((69.9, 70.3), 0), (None, 0)])
def test_intervals_that_leave_the_chart_end_in_arrows(interval, arrows):
    chart = dot_chart([Row("maxsup", Style(2), (70.0, 70.2), 70.1, interval)], title="t", x_title="top-1 (%)")
    assert len(re.findall(r'class="interval" d="M[^"]*L[^"]*l', chart)) == arrows
    assert chart.count('class="marker"') == 2
    xs = [float(x) for x in re.findall(r'[M ](-?[\d.]+) [\d.]+[VHL"v]', chart)]
    assert all(0 <= x <= 460 for x in xs)


def test_waiting_is_weighted_by_the_time_of_the_epochs(tmp_path):
    lines = [
        epoch_line(e, 0.5, speed=s).replace('"wait_share": 0.0', f'"wait_share": {w}')
        for e, s, w in ((1, 50.0, 0.9), (2, 100.0, 0.5), (3, None, 0.9), (4, 300.0, 0.1))
    ]
    make_run(tmp_path, "a", log="".join(lines))
    seconds = [1 / 100, 1 / 300]
    expected = 100 * (0.5 * seconds[0] + 0.1 * seconds[1]) / sum(seconds)
    assert f" {expected:.1f} " in page_of(tmp_path).words


def write_measured(folder, within, weights, resolution=224, **more):
    """Results of the measurement ``features``, as the analysis writes them."""
    (folder / "analysis").mkdir()
    inputs = {"measurement": "features", "weights": weights, "data": {"val": "c" * 64}, "resolution": resolution}
    content = {"format": 1, "inputs": inputs, "results": {"summary": {"d_within val": within, **more}}}
    (folder / "analysis" / "features.json").write_text(json.dumps(content))


def test_what_runs_were_measured_for_stands_next_to_each_other(tmp_path):
    for loss, seed, within in (("baseline", 0, 0.2), ("baseline", 1, 0.4), ("maxsup", 0, 0.1)):
        write_measured(make_run(tmp_path, f"{loss}{seed}", loss, seed), within, f"{loss}{seed}", nothing=None)
    make_run(tmp_path, "maxsup1", "maxsup", 1)
    (table,) = measured_tables(group_runs(read_runs(tmp_path)))
    assert (table.title, table.seeds) == ("features", [2, 1])
    assert table.rows == [("d_within val", ["0.3 ± 0.14", "0.1"], False)]
    page = Page(render_page(read_runs(tmp_path)))
    assert "Measured: features" in page.words


def test_published_measurements_stand_below_ours_and_are_marked(tmp_path):
    for loss in ("baseline", "maxsup", "focal"):
        write_measured(make_run(tmp_path / "runs", loss, loss, arch="resnet10"), 0.25, loss)
    groups = group_runs(read_runs(tmp_path / "runs"))
    assert [row.published for row in measured_tables(groups)[0].rows] == [False]
    ours, theirs = measured_tables(groups, with_published=True)[0].rows
    assert ours.texts == ["0.25", "0.25", "0.25"]
    assert theirs == ("d_within val, published: ResNet-50, ImageNet-1K", ["0.3313", "0.2998", "–"], True)  # noqa: RUF001
    page = render_page(read_runs(tmp_path / "runs"), with_published=True)
    assert '<td class="published">0.2998</td>' in page
    assert MEASURED_NOTE.replace("'", "&#39;") in page
    assert "0.2998" not in render_page(read_runs(tmp_path / "runs"))
    main([str(tmp_path / "runs"), "--markdown", str(tmp_path / "t.md"), "--compare=paper"])
    markdown = (tmp_path / "t.md").read_text(encoding="utf-8")
    assert "## features (resnet10, recipe rn50_16_epochs)" in markdown
    assert re.search(r"\| d_within val, published: ResNet-50, ImageNet-1K +\| +0.3313 \| +0.2998 \|", markdown)
    assert MEASURED_NOTE in markdown


def test_published_measurements_are_figures_that_the_measurements_have():
    figures = {"features": ("d_within train", "d_within val", "r2 train", "r2 val"), "transfer": ("top-1",)}
    figures["corruptions"] = ("mean error", "mean ece")
    for measurement, names in figures.items():
        for name in names:
            ((_, values),) = published_measurements(measurement, name).items()
            assert set(values) <= set(LOSSES.kinds)
            assert {"label_smoothing", "maxsup"} <= set(values)
            assert all(0 < value < 1 for value in values.values())


def test_measurements_of_other_data_or_images_are_not_averaged_and_damaged_files_are_left_out(tmp_path):
    for seed, resolution in ((0, 224), (1, 256)):
        write_measured(make_run(tmp_path, f"a{seed}", "maxsup", seed), 0.1, str(seed), resolution)
    (tmp_path / "a0" / "analysis" / "plane.json").write_text("{")
    (tmp_path / "a1" / "analysis" / "plane.json").write_text('{"format": 1, "inputs": {}}')
    tables = measured_tables(group_runs(read_runs(tmp_path)))
    assert [(table.title, table.seeds) for table in tables] == [("features", [1])] * 2
    assert "256" in tables[1].caption
