"""What the attention explorer shows is what the run holds, by name."""

import base64
import json
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mut3r_analysis as m3
from mut3r_analysis.attention.statistics import STATISTICS
from mut3r_analysis.errors import AlreadyExists, InvalidArgument
from mut3r_analysis.widgets import AttentionExplorer

SITES = ("image_self", "image_to_state", "state_self", "state_to_image")
many = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def told(explorer, **request):
    """Ask as the page does; the reply as the page receives it."""
    sent = []
    explorer.send = lambda content, buffers=None: sent.append((content, buffers))
    explorer._handle_custom_msg({**request, "id": "7"}, [])
    ((content, buffers),) = sent
    assert content.pop("id") == "7"
    return content, [np.frombuffer(buffer, "<f4") for buffer in buffers]


def selected(run, site, side, token, **labels):
    """The same numbers, by the names that a reader of the run would use.

    Maps are computed whole before a token is selected: a product of other shapes may round the last
    bit otherwise.
    """
    prefix = "key_" if side == "key" else ""
    names = {f"{prefix}{name}": value for name, value in token.items()}
    maps = run["attention"][site].to_dataset()[["weights", "logits"]]
    return maps.sel(labels).load().sel(names)


@st.composite
def tokens(draw, stream):
    if stream == "state":
        place = draw(st.integers(0, 47))
        return place, {"token": "state", "patch_row": place // 6, "patch_col": place % 6}
    place = draw(st.integers(0, 48))
    if place == 0:
        return place, {"token": "pose", "patch_row": -1, "patch_col": -1}
    row, column = divmod(place - 1, 8)
    return place, {"token": "patch", "patch_row": row, "patch_col": column}


@many
@given(data=st.data())
@pytest.mark.parametrize("kind", ["archived", "mapped"])
def test_every_row_equals_the_run_selected_by_name(kind, data, request):
    run = request.getfixturevalue(kind)
    site = data.draw(st.sampled_from(SITES if kind == "archived" else ("image_self", SITES[3])))
    side = data.draw(st.sampled_from(["query", "key"]))
    queries, keys = {
        "image_to_state": ("image", "state"),
        "state_to_image": ("state", "image"),
    }.get(site, (site.removesuffix("_self"),) * 2)
    index, token = data.draw(tokens(queries if side == "query" else keys))
    frame, layer = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 3))
    head = data.draw(st.sampled_from(["mean", 0, 2]))
    show = data.draw(st.sampled_from(["weights", "logits"]))
    explorer = AttentionExplorer(run, site=site)
    content, (rows,) = told(
        explorer, ask="row", site=site, frame=frame, layer=layer, heads=[head, 1], side=side,
        token=index, show=show,
    )  # fmt: skip
    assert content == {}
    row, of_head_1 = rows.reshape(2, -1)
    expected = selected(run, site, side, token, frame=frame, layer=layer)[show]
    np.testing.assert_array_equal(of_head_1, expected.sel(head=1).values)
    if head == "mean":
        np.testing.assert_allclose(row, expected.mean("head").values, rtol=2e-6, atol=1e-9)
    else:
        np.testing.assert_array_equal(row, expected.sel(head=head).values)
    explorer.frame, explorer.layer, explorer.head, explorer.show = frame, layer, head, show
    explorer.select(**token)
    labelled = explorer.attention(side)
    np.testing.assert_array_equal(labelled.values, row)
    other = "key_patch_col" if side == "query" else "patch_col"
    np.testing.assert_array_equal(labelled[other].values, expected[other].values)


@pytest.mark.parametrize("site", SITES)
def test_every_statistic_equals_the_run(archived, site):
    explorer = AttentionExplorer(archived, site=site, layer=3, frame=1)
    offered = [item["name"] for item in explorer.held_site()["statistics"]]
    pose = [] if site.endswith("image") or site == "image_self" else ["pose_weight"]
    assert offered == [name for name in STATISTICS if name not in pose]
    for name in offered:
        where = {"site": site, "frame": 1, "layer": 3}
        content, (values,) = told(explorer, ask="statistic", **where, heads=[1, 0], show=name)
        expected = archived["attention"][site][name].sel(frame=1, layer=3, head=[1, 0])
        assert content == {"side": STATISTICS[name].side}
        np.testing.assert_array_equal(values, expected.values.ravel())


def test_the_widget_says_where_its_rows_come_from(archived, mapped, model, scene):
    assert "recomputed from kept queries and keys (float16)" in _origin(archived, "image_self")
    assert "stored maps of logits (float32)" in _origin(mapped, "image_self")
    advice = r"m3\.Capture\(archive=True\).*maps=\['image_to_state'\]"
    assert re.search(advice, _origin(mapped, "image_to_state"))


def _origin(run, site):
    (origin,) = AttentionExplorer(run, site=site).held_site()["origins"]
    return origin


def test_without_rows_only_statistics_are_offered(mapped):
    explorer = AttentionExplorer(mapped, site="state_self")
    assert explorer.show == "logit_mean"
    assert not explorer.held_site()["rows"]
    with pytest.raises(InvalidArgument, match="show must be one of"):
        explorer.show = "weights"
    content, rows = told(
        explorer, ask="row", site="state_self", frame=0, layer=0, heads=[0], side="query", token=0,
        show="weights",
    )  # fmt: skip
    assert "Capture(archive=True)" in content["error"]
    assert not rows
    assert explorer.figure() is not None


def test_a_frame_comes_as_the_backbone_saw_it_with_cue_and_truth(cued, scene):
    explorer = AttentionExplorer({"plain": cued, "again": cued}, scene)
    content, arrays = explorer.answer({"ask": "frame", "frame": 2})
    assert (content["height"], content["width"]) == (48, 64)
    assert arrays[content["image"]].shape == (48, 64, 3)
    np.testing.assert_array_equal(
        arrays[content["truth"]], cued["truth/motion_mask"].sel(frame=2).values
    )
    for place in content["cues"]:
        expected = cued["cue/motion"].sel(frame=2).values.astype(np.float32)
        np.testing.assert_array_equal(arrays[place], expected)


def test_two_runs_answer_together(archived, cued):
    explorer = AttentionExplorer({"plain": archived, "gated": cued})
    _, both = told(
        explorer, ask="row", site="image_self", frame=1, layer=2, heads=[0], side="key", token=9,
        show="weights",
    )  # fmt: skip
    np.testing.assert_array_equal(*both)
    with pytest.raises(InvalidArgument, match="run must be one of plain, gated; got 'other'"):
        explorer.attention(run="other")


def test_changing_the_site_keeps_the_view_valid(archived):
    explorer = AttentionExplorer(archived, site="image_self", head=3, show="pose_weight")
    explorer.select(token="pose")
    explorer.site = "state_self"
    assert explorer.head == "mean"
    assert explorer.show == "weights"
    assert explorer.token["token"] == "state"
    explorer.site = "image_to_state"
    assert explorer.token["token"] == "state"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("frame", 9, "frame must be one of 0, 1, 2"),
        ("layer", 4, "layer must be one of 0, 1, 2, 3"),
        ("head", "median", "head must be one of"),
        ("site", "memory_read", "site must be one of"),
        ("show", "beauty", "show must be one of"),
        ("token", {"token": "patch"}, "named by token, patch_row, patch_col"),
        ("token", {"token": "patch", "patch_row": 6, "patch_col": 0}, r"patch \(6, 0\) is no"),
        ("token", {"token": "state", "patch_row": 0, "patch_col": 0}, "image queries"),
    ],
)
def test_what_does_not_exist_is_refused_in_words(archived, name, value, words):
    explorer = AttentionExplorer(archived, site="image_self")
    with pytest.raises(InvalidArgument, match=words):
        setattr(explorer, name, value)


def test_runs_that_cannot_be_compared_are_refused(archived, model):
    other = m3.open_sequence("scenes/orbit-02", stop=1)
    strange = m3.run(model, other, capture=m3.Capture(), outputs=("pose",), progress=False)
    with pytest.raises(InvalidArgument, match="different sequences"):
        AttentionExplorer({"one": archived, "two": strange})
    with pytest.raises(InvalidArgument, match="at most 2"):
        AttentionExplorer({"one": archived, "two": archived, "three": archived})
    with pytest.raises(InvalidArgument, match="this run is of sequence"):
        AttentionExplorer(archived, other)
    plain = m3.run(model, other, outputs=("pose",), progress=False)
    with pytest.raises(InvalidArgument, match=r"capture=m3\.Capture\(archive=True\)"):
        AttentionExplorer(plain)
    with pytest.raises(InvalidArgument, match=r"give a run, which is .* or a mapping"):
        AttentionExplorer("runs/one.zarr")


def test_an_error_reaches_the_page_in_words(archived):
    content, _ = told(AttentionExplorer(archived), ask="weather")
    assert content == {"error": "this explorer does not know 'weather'"}


def test_a_page_holds_its_rows_and_fetches_nothing(archived, scene, tmp_path):
    explorer = AttentionExplorer(archived, scene, site="image_self", frame=1)
    path = explorer.save_html(tmp_path / "page.html", layers=[2], heads=[0])
    text = path.read_text()
    assert not re.search(r"https?://", text)
    block = re.search(r'<script id="answers" type="application/json">(.*?)</script>', text)[1]
    answers = json.loads(block)
    request = {
        "ask": "row", "frame": 1, "heads": [0], "layer": 2, "show": "weights", "side": "query",
        "site": "image_self", "token": 10,
    }  # fmt: skip
    _, (encoded,) = answers[json.dumps(request, separators=(",", ":"))]
    row = np.frombuffer(base64.b64decode(encoded), "<f4")
    token = {"token": "patch", "patch_row": 1, "patch_col": 1}
    expected = selected(archived, "image_self", "query", token, frame=1, layer=2).sel(head=0)
    np.testing.assert_array_equal(row, expected["weights"].values)
    explorer.save_html(path, layers=[2], heads=[0])


@pytest.mark.parametrize(
    ("most_bytes", "layers", "heads"),
    [(2**23, [0, 1, 2, 3], ["mean", 0, 1, 2, 3]), (400_000, [0, 1, 2, 3], [1]), (10**5, [2], [1])],
)
def test_a_page_has_every_layer_and_head_that_it_can_hold(
    archived, tmp_path, most_bytes, layers, heads
):
    explorer = AttentionExplorer(archived, site="image_self", layer=2, head=1)
    path = explorer.save_html(tmp_path / "page.html", most_bytes=most_bytes)
    state = re.search(
        r'<script id="state" type="application/json">(.*?)</script>', path.read_text()
    )
    (site,) = json.loads(state[1])["held"]["sites"]
    assert (site["layers"], site["heads"]) == (layers, heads)


def test_a_page_is_bounded_and_replaces_nothing_else(archived, tmp_path):
    explorer = AttentionExplorer(archived, site="image_self")
    with pytest.raises(InvalidArgument, match="choose fewer frames, layers or heads"):
        explorer.save_html(tmp_path / "large.html", most_bytes=1000)
    assert not (tmp_path / "large.html").exists()
    (tmp_path / "notes.html").write_text("<p>mine</p>")
    with pytest.raises(AlreadyExists, match="no explorer's page"):
        explorer.save_html(tmp_path / "notes.html")
    with pytest.raises(InvalidArgument, match=r"ends in \.html"):
        explorer.save_html(tmp_path / "page.txt")
    with pytest.raises(InvalidArgument, match="layer must be one of"):
        explorer.save_html(tmp_path / "page.html", layers=[17])


def test_the_figure_shows_both_runs_and_the_token(cued, scene):
    explorer = AttentionExplorer({"plain": cued, "gated": cued}, scene, site="image_self", layer=1)
    explorer.select(token="patch", patch_row=2, patch_col=5)
    figure = explorer.figure(size="column")
    pictures = [axis for axis in figure.axes if axis.get_title(loc="left")]
    titles = [axis.get_title(loc="left") for axis in pictures]
    assert titles == ["Patch (2, 5) looks at", "Patch (2, 5) is looked at by"] * 2
    drawn = np.asarray(pictures[0].images[-1].get_array())
    np.testing.assert_array_equal(drawn.ravel(), explorer.attention("query").values[1:])


def test_colour_bars_are_as_wide_as_their_pictures(scene):
    capture = m3.Capture(statistics=["entropy"], sites=["image_self"])
    one = m3.run("random:small", scene.isel(frame=slice(1)), capture=capture, progress=False)
    for runs in (one, {"first": one, "second": one}):
        figure = AttentionExplorer(runs, scene).figure()
        pictures = [axis for axis in figure.axes if axis.get_title(loc="left")]
        bars = [axis for axis in figure.axes if "pose token" in axis.get_xlabel()]
        assert len(pictures) == len(bars) == (1 if runs is one else 2)
        for picture, bar in zip(pictures, bars, strict=True):
            share = bar.get_window_extent().width / picture.get_window_extent().width
            assert 0.8 < share < 1.05


def test_the_figure_shows_all_heads_in_one_scale(archived, scene):
    explorer = AttentionExplorer(archived, scene, site="image_self", layer=1, head=2)
    explorer.select(token="patch", patch_row=2, patch_col=5)
    heads = [axis for axis in explorer.figure().axes if axis.get_title(loc="center")]
    assert [axis.get_title(loc="center") for axis in heads] == [f"head {n}" for n in range(4)] * 2
    expected = selected(archived, "image_self", "query", explorer.token, frame=0, layer=1)[
        "weights"
    ]
    for head, axis in enumerate(heads[:4]):
        drawn = np.asarray(axis.images[-1].get_array()).ravel()
        np.testing.assert_array_equal(drawn, expected.sel(head=head).values[1:])
        assert axis.images[-1].get_clim() == (0, float(expected[:, 1:].max()))
    explorer.all_heads = False
    assert not any(axis.get_title(loc="center") for axis in explorer.figure().axes)
