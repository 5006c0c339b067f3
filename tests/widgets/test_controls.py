"""Controls of ipywidgets stand for attributes of an explorer, and compose with one's own."""

import doctest
import inspect

import ipywidgets
import pytest

import mut3r_analysis as m3
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.widgets import AttentionExplorer, FailureExplorer, GatePlayground, SceneView
from mut3r_analysis.widgets.explorer import Explorer


def by_name(box: ipywidgets.VBox) -> dict[str, ipywidgets.ValueWidget]:
    return {control.description.replace(" ", "_"): control for control in box.children}


def test_a_control_and_its_attribute_follow_each_other(model, scene):
    playground = GatePlayground(model, scene)
    controls = by_name(playground.controls("beta", "frame", "image_self"))
    assert list(controls) == ["beta", "frame", "image_self"]
    controls["beta"].value = 2.5
    assert playground.beta == 2.5
    playground.frame = 1
    assert controls["frame"].value == 1
    playground.image_self = "off"
    assert controls["image_self"].value == "off"
    assert controls["image_self"].options[0] == "off"


def test_what_can_be_chosen_follows_the_site(mapped, scene):
    explorer = AttentionExplorer(mapped, scene, site="image_self", layer=2, head=1)
    controls = by_name(explorer.controls())
    assert {"site", "layer", "head", "show", "frame", "outlines", "pinned"} <= set(controls)
    assert "weights" in controls["show"].options
    controls["site"].value = "state_self"
    # Only statistics were captured there; layer and head are still what they were.
    assert "weights" not in controls["show"].options
    assert controls["show"].value == explorer.show
    assert (explorer.layer, explorer.head) == (2, 1)
    controls["outlines"].value = ("truth",)
    assert explorer.outlines == ["truth"]


def test_an_explorer_composes_with_sliders_and_other_explorers(mapped, scene):
    attention, view = AttentionExplorer(mapped, scene), SceneView(mapped, scene)
    slider = ipywidgets.IntSlider(max=2)
    ipywidgets.link((slider, "value"), (attention, "frame"))
    ipywidgets.link((attention, "frame"), (view, "frame"))
    side_by_side = ipywidgets.HBox([attention, view, attention.controls("layer")])
    assert side_by_side.children[0] is attention
    slider.value = 2
    assert (attention.frame, view.frame) == (2, 2)


def test_the_example_of_controls_does_what_it_says(mapped):
    names = {"m3": m3, "ipywidgets": ipywidgets, "run": mapped}
    parsed = doctest.DocTestParser().get_doctest(
        inspect.getdoc(Explorer.controls), names, "controls", None, None
    )
    result = doctest.DocTestRunner().run(parsed)
    assert result.attempted > 4
    assert not result.failed


def test_a_page_without_a_kernel_keeps_controls_of_its_own(mapped, scene):
    explorer = FailureExplorer(mapped, scene)
    explorer.own_controls = False
    assert "own_controls" not in by_name(explorer.controls())
    assert explorer.page_state()["own_controls"] is True


def test_what_is_no_attribute_is_refused_with_those_there_are(model, scene):
    with pytest.raises(
        InvalidArgument, match=r"among .*beta.*got \['betta'\].*did you mean 'beta'"
    ):
        GatePlayground(model, scene).controls("betta")
