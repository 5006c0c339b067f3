"""Small inputs on which something once went wrong silently do what is written beside them."""

import re
import runpy
import warnings

import pytest

EXPECTED = {
    "01_bom_text": ["BOM -> 4", "tum, .* -> 4", "scannet, .* -> 4", "kitti, .* -> 4"],
    "02_appledouble": ["sintel -> 3", "bonn -> 3", "tum -> 3", "kitti -> 3", "davis -> 3"],
    "03_video_starts_mid_gop": [r"cut\.ts -> 45", r"nokey\.mkv -> 30"],
    "06_anamorphic_video": [r"sar\.mp4 .* aspect: True", r"sar\.mkv .* aspect: True"],
    "08_yaml_1e-1": [r"labels \[0\.1, 0\.5\]", r"sel\(gate_beta=0\.1\) -> \d", "more than once"],
    "09_compiled_checkpoint": [r"module\. -> ", r"\n_orig_mod\. -> ", r"module\._orig_mod\. -> "],
    "11_names_not_utf8": ["RAISED mut3r_analysis.*not UTF-8", "traceback shown: False"],
    "12_script_without_guard": [r"script rc [1-9]", r"stdin rc [1-9]"],
    "14_frames_dropped_silently": [
        "dangling .*RAISED mut3r_analysis.*link to nothing",
        "HEIC .*RAISED mut3r_analysis.*cannot be read",
        "EXR .*RAISED mut3r_analysis.*cannot be read",
    ],
    "16_store_with_clutter": [r"open_run -> \(2, 4, 4\)", "warnings 0"],
    "18_two_readers_of_tum_files": ["commas through tum: -> 6", "commas through read.* -> 6"],
    "19_stamps_in_nanoseconds": ["RAISED mut3r_analysis.*1e9", "RAISED mut3r_analysis.*1e6"],
    "20_yaml_other_locale": ["rc 0 "],
    "21_negative_scale": [
        r"right \{'abs_rel': 0\.",
        "only a negative scale fits",
    ],
    "22_interrupted_run": ["interruption equal: True", "threads equal: True"],
}
"""What a script prints, as patterns."""

NEVER = {
    "12_script_without_guard": "in a worker",
    **dict.fromkeys(
        ("01_bom_text", "02_appledouble", "09_compiled_checkpoint", "16_store_with_clutter",
         "18_two_readers_of_tum_files"),
        "RAISED",
    ),
}  # fmt: skip
"""What it must not print."""


def test_every_case_has_its_expectation(shared):
    assert sorted(path.name for path in (shared / "cases").iterdir()) == sorted(EXPECTED)


@pytest.mark.slow
@pytest.mark.parametrize("case", EXPECTED)
def test_a_case_does_what_is_written_beside_it(shared, case, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    script = shared / "cases" / case / "repro.py"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            runpy.run_path(str(script))
        except Exception as error:  # what a script does not catch, it lets its reader see
            print("ended with", type(error).__name__, error)
    said = "\n" + capsys.readouterr().out
    for pattern in EXPECTED[case]:
        assert re.search(pattern, said), (pattern, said)
    if case in NEVER:
        assert NEVER[case] not in said
