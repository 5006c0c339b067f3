"""The motion mask of pairs of frames equals Easi3R's, step by step, and so does what it gates."""

from itertools import combinations, pairwise

import numpy as np
import pytest
import torch

import mut3r_analysis as m3
from mut3r_analysis.attention import Site
from mut3r_analysis.backbones import DUSt3R, DUSt3RConfig, Frame
from mut3r_analysis.errors import InvalidArgument
from mut3r_analysis.motion import PairCue, PairGate, motion_of_pairs
from mut3r_analysis.motion.mask_motion import cells_of, clusters, smoothed, to_pixels
from mut3r_analysis.motion.otsu import best_threshold, multi_otsu
from mut3r_analysis.motion.pair_motion import (
    PairSiteGate,
    Received,
    as_batched,
)
from mut3r_analysis.motion.site_gates import static_to_dynamic

MAPS, LOGITS, POINTS, CONFIDENCE = 5e-5, 2e-5, 5e-5, 1e-5
AGGREGATES = {"mu1": ("view2", "mean"), "sd1": ("view2", "std"),
              "mu2": ("view1", "mean"), "sd2": ("view1", "std")}  # fmt: skip


def check(found, expected, atol, name=""):
    found = np.asarray(found)
    assert found.shape == expected.shape, name
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol, err_msg=name)


@pytest.fixture(scope="module")
def model(golden) -> DUSt3R:
    settings = golden.settings("dust3r")
    values = settings["tiny"]["dpt"] | settings["dpt_widths_overridden_for_size"]
    model = DUSt3R(DUSt3RConfig.from_dict(values))
    model.load_state_dict(golden.weights("dust3r/weights_dpt"))
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def expected(golden) -> dict[str, np.ndarray]:
    return golden.arrays("easi3r/cue")


@pytest.fixture(scope="module")
def frames(model, expected) -> list:
    return [model.encode(Frame(image[None])) for image in torch.from_numpy(expected["img"])]


def edges_of(arrays, name="edges") -> list[tuple[int, int]]:
    return [tuple(edge) for edge in arrays[name].tolist()]


def measured(model, frames, edges, gates=None):
    """What key patches of view 2 and of view 1 receive in every pair."""
    found = ([], [])
    for number, (a, b) in enumerate(edges):
        probe = Received((frames[a].grid, frames[b].grid))
        gate = gates[number] if gates else None
        model.decode_pair(frames[a], frames[b], gate=gate, probe=probe)
        for values, view in zip(found, ("view2", "view1"), strict=True):
            values.append(probe.of(view))
    return tuple(torch.stack(values) for values in found)


@pytest.fixture(scope="module")
def received(model, frames, expected):
    return measured(model, frames, edges_of(expected))


def features_of(frames) -> torch.Tensor:
    return torch.stack([each.features[0].unflatten(0, each.grid) for each in frames])


def counts_of(arrays) -> list[int]:
    """Numbers of clusters that the arrays have."""
    return [int(name.removeprefix("labels_")) for name in arrays if name.startswith("labels_")]


def size_of(arrays) -> tuple[int, int]:
    return arrays["images_uint8"].shape[1:3]


def test_what_key_patches_receive(received, expected):
    for values, name in zip(received, ("k1", "k2"), strict=True):
        check(values.flatten(3), expected[name], LOGITS, name)


def test_every_map_of_the_cue(expected, frames, received):
    edges, size = edges_of(expected), size_of(expected)
    check(features_of(frames), expected["features"], LOGITS, "features")
    for count in counts_of(expected):
        labels = torch.from_numpy(expected[f"labels_{count}"])
        found = motion_of_pairs(
            PairCue(clusters=count), received, edges, features_of(frames), size, labels
        )
        for name, (view, moment) in AGGREGATES.items():
            aggregate = getattr(found, view)
            check(getattr(aggregate, moment), expected[name], LOGITS, name)
            check(getattr(aggregate, f"fused_{moment}"), expected[f"{name}_fused"], MAPS, name)
        check(found.dynamic, expected["dynamic_map"], MAPS, "dynamic_map")
        check(found.smooth, expected[f"refined_map_{count}"], MAPS, "refined_map")
        check(to_pixels(found.smooth, size), expected[f"upsampled_{count}"], MAPS, "upsampled")


def test_every_step_that_jumps_from_its_own_input(expected):
    for count in counts_of(expected):
        labels = clusters(torch.from_numpy(expected["features"]), count, 42)
        np.testing.assert_array_equal(labels, expected[f"labels_{count}"])
        smooth = smoothed(torch.from_numpy(expected["dynamic_map"]), labels)
        check(smooth, expected[f"refined_map_{count}"], MAPS)
        pixels = expected[f"upsampled_{count}"]
        found = best_threshold(pixels, (2, 3, 4))
        assert found.threshold == pytest.approx(float(expected[f"threshold_{count}"]), abs=1e-7)
        for row, (classes, cuts) in enumerate(found.thresholds.items()):
            official = expected[f"otsu_thresholds_{count}"][row]
            np.testing.assert_allclose(cuts, official[: classes - 1], rtol=0, atol=1e-7)
            assert np.isnan(official[classes - 1 :]).all()
        scores = expected[f"otsu_scores_{count}"]
        np.testing.assert_allclose(list(found.scores.values()), scores, rtol=1e-6)
        mask = pixels > expected[f"threshold_{count}"]
        np.testing.assert_array_equal(mask, expected[f"mask_{count}"])


def gates_of(cells, edges, gate=None):
    gate = gate or PairGate.easi3r()
    return [PairSiteGate(gate, cells[a], cells[b]) for a, b in edges]


def keep(seen, name):
    return lambda module, args, out: seen.update({name: out})


def test_the_second_pass_under_a_given_mask(golden, model, frames):
    expected = golden.arrays("easi3r/second_pass")
    edges, mask = edges_of(expected, "given_edges"), torch.from_numpy(expected["given_mask"])
    cells = cells_of(mask, model.patch_size)
    np.testing.assert_array_equal(cells, expected["given_pooled"])
    for number, (edge, gate) in enumerate(zip(edges, gates_of(cells, edges), strict=True)):
        seen, hooks = {}, []
        for view, blocks in ((1, model.dec_blocks), (2, model.dec_blocks2)):
            for layer, block in enumerate(blocks):
                name = f"given_dec{view}_block{layer}"
                hooks.append(block.register_forward_hook(keep(seen, name)))
        pair = model.decode_pair(*(frames[frame] for frame in edge), gate=gate)
        for hook in hooks:
            hook.remove()
        if number == 0:
            for name, values in seen.items():
                check(values, expected[name], LOGITS, name)
        check(pair.points_view1[0], expected["given_pts3d"][number], POINTS)
        check(pair.confidence_view1[0], expected["given_conf"][number], CONFIDENCE)
        check(pair.points_view2[0], expected["given_pts3d_in_other_view"][number], POINTS)
        check(pair.confidence_view2[0], expected["given_conf_other"][number], CONFIDENCE)


def test_the_second_pass_under_the_masks_of_the_first(golden, model, frames, expected):
    second, (edge,) = golden.arrays("easi3r/second_pass"), [(0, 1)]
    plain = model.decode_pair(*(frames[frame] for frame in edge))
    check(plain.confidence_view1, second["unmasked_conf"], CONFIDENCE)
    check(plain.confidence_view2, second["unmasked_conf_other"], CONFIDENCE)
    assert edges_of(second, "otsu64_edges") == [edge]
    cells = cells_of(torch.from_numpy(expected["mask_64"]), model.patch_size)
    (gate,) = gates_of(cells, [edge])
    pair = model.decode_pair(*(frames[frame] for frame in edge), gate=gate)
    check(pair.confidence_view1, second["otsu64_conf"], CONFIDENCE)
    check(pair.confidence_view2, second["otsu64_conf_other"], CONFIDENCE)
    # Measured again in the second pass: official code keeps the masks of this one.
    edges = edges_of(expected)
    again = motion_of_pairs(
        PairCue.easi3r(),
        measured(model, frames, edges, gates_of(cells, edges)),
        edges,
        features_of(frames),
        size_of(expected),
        torch.from_numpy(second["otsu64_labels"]),
    )
    check(again.dynamic, second["otsu64_dynamic_map"], MAPS)
    check(again.smooth, second["otsu64_refined_map"], MAPS)
    near = (to_pixels(again.smooth, size_of(expected)) - again.otsu.threshold).abs() < MAPS
    assert (again.mask.numpy() == second["otsu64_mask"])[~near.numpy()].all()


# What holds for any numbers


def test_the_statistic_is_received_logit(model, frames, received):
    names = []

    def look(site, q, k):
        if site == Site("view1_to_view2", 1):
            z = (q.double() @ k.double().mT / q.shape[-1] ** 0.5)[0]
            names.append(z.mean(dim=1))

    model.decode_pair(frames[0], frames[1], probe=look)
    (mean,) = names
    torch.testing.assert_close(
        received[0][0].flatten(0, 1)[:, 1].mT.double(), mean, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_multi_otsu_is_the_best_of_all_cuts(classes):
    generator = np.random.default_rng(classes)
    values = np.concatenate([generator.normal(centre, 0.4, 200) for centre in (0, 2, 5)])
    counts, edges = np.histogram(values, 256)
    centres, level = (edges[:-1] + edges[1:]) / 2, np.maximum(np.arange(256), 1)

    def between(cuts):
        ends = [-1, *cuts, 255]
        total = 0.0
        for start, stop in pairwise(ends):
            inside = slice(start + 1, stop + 1)
            if counts[inside].sum():
                total += (counts[inside] * level[inside]).sum() ** 2 / counts[inside].sum()
        return total

    step = 1 if classes == 2 else 3
    candidates = list(combinations(range(0, 255, step), classes - 1))
    found = multi_otsu(values, classes)
    own = between([int(np.abs(centres - cut).argmin()) for cut in found])
    assert own >= max(between(cuts) for cuts in candidates) * (1 - 1e-12)


def test_few_values_are_their_own_classes():
    values = np.array([0.0, 0.25, 1.0] * 5)
    cuts = multi_otsu(values, 3)
    assert np.digitize([0, 0.25, 1], cuts).tolist() == [0, 1, 2]
    with pytest.raises(InvalidArgument, match=r"4 classes need as many different values.*flat"):
        multi_otsu(values, 4)


def test_the_highest_score_decides_and_its_last_cut_is_the_threshold():
    generator = np.random.default_rng(5)
    values = np.concatenate([generator.normal(centre, 0.1, 300) for centre in (0, 1, 9)])
    found = best_threshold(values, (2, 3, 4))
    for classes, cuts in found.thresholds.items():
        means = [values[np.digitize(values, cuts) == n].mean() for n in range(classes)]
        assert found.scores[classes] == pytest.approx(np.var(means) / classes**0.5)
    best = max(found.scores, key=found.scores.get)
    assert found.threshold == found.thresholds[best][-1]
    assert np.isnan(best_threshold(np.array([0.0, np.nan]), (2, 3)).threshold)


def test_the_mask_of_pairs_leaves_dynamic_queries_and_static_keys_alone():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, n, 8, generator=generator) for n in (6, 12, 12))
    queries, keys = (torch.rand(1, n, generator=generator) < 0.4 for n in (6, 12))
    weights = (q @ k.mT / 8**0.5).softmax(dim=-1)
    kept = weights.masked_fill((~queries[:, None, :, None]) & keys[:, None, None], 0)
    assert 0 < (kept == 0).sum() < kept.numel()
    for dense in (True, False):
        found = static_to_dynamic(q, k, v, queries, keys, dense=dense)
        torch.testing.assert_close(found, kept @ v, atol=1e-6, rtol=1e-5)


def test_a_gate_acts_at_its_sites_and_layers_alone_and_else_changes_no_bit(model, frames):
    first, second = frames[:2]
    half = torch.zeros(first.grid)
    half[1:] = 1
    plain = model.decode_pair(first, second)
    for gate, cells in (
        (PairGate.easi3r(), torch.zeros(first.grid)),
        (PairGate.easi3r(), torch.ones(first.grid)),
        (PairGate(layers=(0, 0)), half),
        (PairGate(sites=()), half),
    ):
        found = model.decode_pair(first, second, gate=PairSiteGate(gate, cells, cells))
        assert torch.equal(found.points_view2, plain.points_view2)
    levels = {}
    for sites in (["view1_to_view2"], ["view2_self"]):
        gate = PairSiteGate(PairGate(sites=sites), half, half)
        levels[sites[0]] = model.decode_pair(first, second, gate=gate)
    assert not torch.equal(levels["view1_to_view2"].points_view1, plain.points_view1)
    assert not torch.equal(levels["view2_self"].points_view2, levels["view1_to_view2"].points_view2)


def test_a_frame_with_one_partner_is_named_or_makes_every_map_nan(received, frames, expected):
    size, features = size_of(expected), features_of(frames)
    every = edges_of(expected)
    last = max(frame for edge in every for frame in edge)
    partner = next(a for a, b in every if b == last)
    keep = [n for n, edge in enumerate(every)
            if last not in edge or edge in ((partner, last), (last, partner))]  # fmt: skip
    edges, part = [every[n] for n in keep], tuple(values[keep] for values in received)
    with pytest.raises(
        InvalidArgument, match=rf"frames at positions \[.*{last}\] are view 1 of fewer"
    ):
        motion_of_pairs(PairCue.easi3r(), part, edges, features, size)
    official = motion_of_pairs(PairCue(single="official"), part, edges, features, size)
    assert torch.isfinite(official.view2.mean).all()
    assert official.view2.fused_std.isnan().all()
    assert official.dynamic.isnan().all()
    assert np.isnan(official.otsu.threshold)
    assert not official.mask.any()
    one_way = [(0, frame) for frame in range(1, len(frames))]
    few = tuple(values[: len(one_way)] for values in received)
    with pytest.raises(InvalidArgument, match=r"fewer than 1 pairs.*both directions"):
        motion_of_pairs(PairCue(single="official"), few, one_way, features, size)


def test_batches_of_official_code_mix_layers_pairs_and_places(received):
    values = received[0]
    pairs, rows, columns, layers, heads = values.shape
    assert torch.equal(as_batched(values, 1), values)
    mixed = as_batched(values, 2)
    flat = mixed[:2].flatten()
    index = 0
    for row in range(rows):
        for column in range(columns):
            for layer in range(layers):
                for pair in range(2):
                    for head in range(heads):
                        assert flat[index] == values[pair, row, column, layer, head]
                        index += 1
    assert not torch.equal(mixed, values)
    assert as_batched(values[:3], 2).shape == (3, rows, columns, layers, heads)
    assert torch.equal(as_batched(values[:3], 2)[2], values[2])
    assert pairs > 3


def test_the_first_patch_is_that_of_its_neighbours_unless_told(received, frames, expected):
    edges, size, features = edges_of(expected), size_of(expected), features_of(frames)
    bare, own = (
        motion_of_pairs(PairCue(corner=corner, clusters=None), received, edges, features, size)
        for corner in (False, True)
    )
    mean = received[0].flatten(3)[[n for n, (_, b) in enumerate(edges) if b == 0]].mean(dim=0)
    torch.testing.assert_close(bare.view2.mean[0, 0, 0], mean[0, 0])
    torch.testing.assert_close(own.view2.mean[0, 0, 0], (mean[0, 1] + mean[1, 0]) / 2)
    assert torch.equal(own.view2.mean[:, 1:], bare.view2.mean[:, 1:])
    assert bare.labels is None
    assert torch.equal(bare.smooth, bare.dynamic)
    row, patch = tuple(each[:, :1] for each in received), size[0] // features.shape[1]
    with pytest.raises(InvalidArgument, match=r"a grid of 1 x \d+ patches has no patch beside"):
        motion_of_pairs(PairCue(), row, edges, features[:, :1], (patch, size[1]))


def test_pixels_are_bilinear_between_the_centres_of_patches():
    values = torch.arange(4.0).expand(1, 3, 4)
    found = to_pixels(values, (48, 64))
    # The centre of pixel x is at (x + 0.5) / 16 patches, that of patch c at c + 0.5.
    place = ((torch.arange(64) + 0.5) / 16 - 0.5).clamp(0, 3)
    torch.testing.assert_close(found, place.expand(1, 48, 64))


def test_too_few_patches_for_the_clusters_are_refused(frames):
    features = features_of(frames)
    count = features[..., 0].numel()
    with pytest.raises(InvalidArgument, match=rf"{count + 1} clusters need.*have {count}"):
        clusters(features, count + 1, 42)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PairCue(classes=[1, 2]), "classes must be a whole number from 2 to 8"),
        (lambda: PairCue(classes=3), r"classes must be numbers of classes such as \(2, 3\), got 3"),
        (lambda: PairCue(classes=()), "classes must be numbers of classes"),
        (lambda: PairCue(clusters=0), "clusters must be a whole number from 1"),
        (lambda: PairCue(single="zero"), "single must be one of refuse, official"),
        (lambda: PairCue(batch=0), "batch must be"),
        (lambda: PairGate(sites=["image_self"]), "unknown sites.*view1_self"),
        (lambda: PairGate(threshold=0), "threshold must be a number in"),
        (lambda: PairGate(layers=(3, 1)), "layers must be None"),
        (
            lambda: PairCue.from_dict({"cluster": 3}),
            r"pair cue: unknown \['cluster'\] \(did you mean 'clusters'",
        ),
    ],
)
def test_what_cannot_mean_anything_is_refused(make, message):
    with pytest.raises(InvalidArgument, match=message):
        make()


@pytest.mark.parametrize(
    "given",
    [
        PairCue.easi3r(),
        PairCue(clusters=None, classes={3, 2}, single="official", batch=8),
        PairGate.easi3r(),
        PairGate(sites="all", layers=range(2), threshold=0.3),
    ],
)
def test_they_round_trip_through_json(given):
    assert type(given).from_json(given.to_json()) == given
    assert m3.PairCue is PairCue
