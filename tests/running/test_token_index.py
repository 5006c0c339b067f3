"""Tokens are selected by what they are, and arrays of them are drawn, changed and stored as any."""

import warnings

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

import mut3r_analysis as m3


@pytest.fixture(scope="module")
def run() -> xr.DataTree:
    scene = m3.open_sequence("scenes/orbit-03", stop=3)
    capture = m3.Capture(statistics=["entropy", "received"])
    return m3.run("random:small", scene, capture=capture, progress=False)


def test_tokens_are_selected_by_some_or_all_of_what_they_are(run: xr.DataTree) -> None:
    entropy = run["attention/image_self/entropy"]
    columns = 8
    patches = entropy.sel(token="patch")
    assert patches.sizes["query"] == 6 * columns
    np.testing.assert_array_equal(patches, entropy.isel(query=slice(1, None)))
    one = entropy.sel(token="patch", patch_row=2, patch_col=3)
    np.testing.assert_array_equal(one, entropy.isel(query=1 + 2 * columns + 3))
    assert one["patch_row"] == 2
    np.testing.assert_array_equal(
        entropy.sel(token="patch", patch_row=2), entropy.isel(query=slice(17, 25))
    )
    grid = patches.unstack("query")
    np.testing.assert_array_equal(grid.sel(patch_row=2, patch_col=3), one)
    received = run["attention/state_to_image/received"]
    assert received.sel(key_token="pose").sizes["key"] == 1
    with pytest.raises(KeyError):
        entropy.sel(token="cloud")


def test_arithmetic_goes_by_tokens_not_by_places(run: xr.DataTree) -> None:
    entropy = run["attention/image_self/entropy"]
    first, second = entropy.isel(query=slice(0, 6)), entropy.isel(query=slice(4, 9))
    both = first + second
    np.testing.assert_array_equal(both, 2 * entropy.isel(query=slice(4, 6)))
    assert both["patch_col"].values.tolist() == [3, 4]
    joined = xr.concat([first, second.isel(query=slice(2, None))], "query")
    xr.testing.assert_identical(joined.load(), entropy.isel(query=slice(0, 9)).load())
    assert not first.indexes["token"].equals(second.indexes["token"])


def test_xarray_draws_statistics_over_tokens(run: xr.DataTree) -> None:
    entropy = run["attention/image_self/entropy"]
    axis = Figure().subplots()
    (line,) = entropy.mean(["frame", "layer", "head"]).plot(ax=axis)
    np.testing.assert_allclose(line.get_ydata(), entropy.mean(["frame", "layer", "head"]))
    run["state/update_size"].plot(ax=axis)
    run["attention/image_self"].to_dataset()["entropy"].mean(["frame", "head"]).plot(ax=axis)


def test_a_tree_with_derived_variables_is_saved_again(run: xr.DataTree, tmp_path) -> None:
    run = run.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run["attention/image_self/doubled"] = 2 * run["attention/image_self/entropy"]
        run.to_zarr(tmp_path / "derived.zarr", consolidated=False)
    with xr.open_datatree(tmp_path / "derived.zarr", engine="zarr", consolidated=False) as again:
        np.testing.assert_array_equal(
            again["attention/image_self/doubled"], 2 * run["attention/image_self/entropy"]
        )
        assert again.attrs["backbone"] == run.attrs["backbone"]
        assert again["attention/image_self/token"].values.tolist()[:2] == ["pose", "patch"]
    again = m3.open_run(tmp_path / "derived.zarr")
    for path in ("prediction/pose", "attention/image_self/doubled", "attention/image_self/entropy"):
        xr.testing.assert_equal(again[path].load(), run[path].load())
    assert again.attrs == run.attrs
    patch = {"token": "patch", "patch_row": 2, "patch_col": 3}
    np.testing.assert_array_equal(
        again["attention/image_self/doubled"].sel(patch),
        run["attention/image_self/doubled"].sel(patch),
    )
    # NetCDF has no nested attributes, so that groups are written one by one.
    site = run["attention/image_self"].to_dataset()
    site.to_netcdf(tmp_path / "site.nc")
    with xr.open_dataset(tmp_path / "site.nc") as again:
        np.testing.assert_allclose(again["doubled"], site["doubled"])
