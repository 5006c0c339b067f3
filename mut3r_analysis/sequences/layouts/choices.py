"""Names a caller chooses among, where a command can list them without importing any loader."""

LAYOUT_NAMES = ("sintel", "bonn", "tum", "kitti", "scannet", "dycheck", "davis")
"""Data sets whose layout is known; each is the prefix of its sequences' names."""
