"""What everything else stands on: declared objects, checks of their fields, bundled files."""
