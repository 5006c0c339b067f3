"""Sliders and menus of ipywidgets that stand for the attributes of an explorer."""

from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets
import traitlets

Choices = Mapping[str, list[Any] | tuple[float, float, float]]
"""Attribute -> its values, or its least and greatest one with the step between."""


def linked_controls(
    explorer: traitlets.HasTraits, names: tuple[str, ...], choices: Callable[[], Choices]
) -> list[ipywidgets.ValueWidget]:
    """Make a control for each attribute, so that either follows the other.

    Parameters
    ----------
    explorer : traitlets.HasTraits
    names : tuple of str
    choices : callable
        Gives what can be chosen now: one attribute may decide what another can be.
    """
    now = choices()
    made = {name: _control(name, now[name], getattr(explorer, name)) for name in names}
    shown: list[str] = []

    def show(_: Any = None) -> None:
        # New options make a menu choose its first one, which is nobody's choice.
        shown.append("now")
        for name, control in made.items():
            offered = choices()[name]
            if isinstance(offered, list) and not isinstance(control, ipywidgets.Checkbox):
                control.options = offered
            value = getattr(explorer, name)
            control.value = tuple(value) if isinstance(value, list) else value
        shown.pop()

    def take(change: Any) -> None:
        if not shown:
            name = next(name for name, control in made.items() if control is change.owner)
            value = change.new
            setattr(explorer, name, list(value) if isinstance(value, tuple) else value)

    for control in made.values():
        control.observe(take, "value")
    explorer.observe(show, list(now))
    return list(made.values())


def _control(name: str, offered: Any, value: Any) -> ipywidgets.ValueWidget:
    how: dict[str, Any] = {"description": name.replace("_", " ")}
    if isinstance(offered, tuple):
        low, high, step = offered
        how |= {"min": low, "max": high, "step": step, "continuous_update": False}
        return ipywidgets.FloatSlider(value=value, **how)
    if isinstance(value, bool):
        return ipywidgets.Checkbox(value=value, **how)
    if isinstance(value, list):
        return ipywidgets.SelectMultiple(options=offered, value=tuple(value), **how)
    if all(isinstance(each, int) for each in offered):
        return ipywidgets.SelectionSlider(options=offered, value=value, **how)
    return ipywidgets.Dropdown(options=offered, value=value, **how)
