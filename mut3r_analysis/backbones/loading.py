"""From a name, a file or a configuration to a backbone that is ready to run."""

import hashlib
from dataclasses import replace
from pathlib import Path

import torch

from mut3r_analysis.backbones.checkpoint import check_weights, expected_shapes, read_checkpoint
from mut3r_analysis.backbones.configuration import ModelConfig
from mut3r_analysis.backbones.families import family_of
from mut3r_analysis.backbones.in_memory import weights_digest
from mut3r_analysis.backbones.origin import Origin
from mut3r_analysis.backbones.precision import find_precision
from mut3r_analysis.backbones.preparation import Preparation
from mut3r_analysis.backbones.protocol import Backbone
from mut3r_analysis.backbones.random_weights import NAMED_CONFIGS, random_backbone
from mut3r_analysis.errors import InvalidArgument, MissingFile
from mut3r_analysis.foundation.bundled import data_path
from mut3r_analysis.foundation.fields import meant, one_of
from mut3r_analysis.foundation.paths import user_path

_SUFFIX = ".safetensors"

_SPECIMEN = "a specimen: trained on the rendered scenes of this package, and on nothing else"

RANDOM_CONFIGURATION = "random:configuration"
"""Name of a backbone that was made from a configuration; it cannot be loaded by it."""


def load_backbone(
    spec: str | Path | ModelConfig,
    *,
    update: str = "cut3r",
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    precision: str | None = None,
    preparation: Preparation | None = None,
    config: ModelConfig | None = None,
    seed: int = 0,
) -> Backbone:
    """Load a streaming backbone.

    Parameters
    ----------
    spec : str, Path or ModelConfig
        The name of a bundled checkpoint (``"tiny"``), a path to an official file of CUT3R, Point3R,
        DUSt3R, MonST3R, Spann3R, VGGT or StreamVGGT or to a ``.safetensors`` file of this package,
        ``"random:<name>"`` (``small``, ``512-dpt``, ``224-linear``, and ``point3r-small``,
        ``point3r-512-dpt``, ``dust3r-small``, ``dust3r-512-dpt``, ``dust3r-512-linear``,
        ``dust3r-224-linear``, ``spann3r-small``, ``spann3r``, ``vggt-small``, ``vggt``) or a
        configuration such as ``CUT3RConfig(...)``; the last two get random weights.
    update : str
        Write rule of the state; the weights are the same for all. ``"cut3r"`` replaces every token,
        as released models do; ``"ttt3r"``, ``"ttsa3r"`` and others are for a state of fixed size.
    device : str or torch.device, optional
        By default CUDA where there is one, otherwise the CPU.
    dtype : torch.dtype, optional
        Of the parameters: float32 or bfloat16. Follows from `precision`.
    precision : {"float32", "float32-throughout", "tf32", "bfloat16"}, optional
        Arithmetic, recorded with every run. The default is float32 with the official float16
        rounding of the encoder's queries and keys.
    preparation : Preparation, optional
        How frames are resized and cropped; by default the official demo's rule for the size the
        model was trained at.
    config : ModelConfig, optional
        Of the model in a checkpoint whose file does not say it.
    seed : int
        For random weights.

    Returns
    -------
    Backbone
        In evaluation mode, without gradients. ``origin`` says where the weights come from.

    Raises
    ------
    MissingFile
        When there is no such checkpoint; the message says what is bundled.
    CheckpointError
        When the file is unsafe, damaged, or its tensors do not fit the model it describes.
    InvalidArgument
        For an unknown write rule, precision or device.

    Examples
    --------
    >>> backbone = load_backbone("tiny")
    >>> backbone.family, backbone.patch_size, backbone.decoder_layers
    ('cut3r', 8, 6)
    """
    place = usable_device(device)
    chosen = find_precision(precision, dtype, place)
    random_config = _random_config(spec)
    if random_config is not None:
        if config is not None:
            raise InvalidArgument(
                f"config= says what a checkpoint holds, and {spec!r} has none; give the "
                "configuration itself for random weights: load_backbone(config)"
            )
        model = random_backbone(random_config, seed=seed, update=update)
        name = spec if isinstance(spec, str) else RANDOM_CONFIGURATION
        identity = f"random weights, seed {seed}, {random_config.to_json()}"
        model.origin = Origin(
            name=name,
            sha256=hashlib.sha256(identity.encode()).hexdigest(),
            report=(f"random weights, seed {seed}: numbers mean nothing beyond shapes and cost",),
        )
    else:
        model = _from_file(_checkpoint_path(str(spec)), update, config)
    model.precision = chosen
    model.rotate_encoder_in(chosen.rotation)
    model.preparation = preparation or model.preparation
    model = model.to(place, chosen.dtype).eval().requires_grad_(False)
    model.origin = replace(model.origin, weights=weights_digest(model))
    return model


def _from_file(path: Path, update: str, config: ModelConfig | None) -> Backbone:
    checkpoint = read_checkpoint(path, config=config)
    check_weights(checkpoint.weights, expected_shapes(checkpoint.config))
    with torch.device("meta"):
        model = family_of(checkpoint.config).model(checkpoint.config, update=update)
    model.load_state_dict(checkpoint.weights, assign=True)
    bundled = path.parent == _bundled_folder()
    model.origin = Origin(
        name=path.stem if bundled else str(path),
        sha256=checkpoint.sha256,
        report=(*checkpoint.report, *([_SPECIMEN] if bundled else [])),
        specimen=bundled,
    )
    return model


def usable_device(device: str | torch.device | None = None) -> torch.device:
    """Return a device once it is known to work; None is CUDA where there is one, else the CPU.

    Raises
    ------
    InvalidArgument
        When this machine does not have it.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise InvalidArgument(
            f"device {device!r} cannot be used here ({str(error).splitlines()[0]}); "
            "use 'cpu', or leave device out to use what is available"
        ) from error
    return place


def _random_config(spec: str | Path | ModelConfig) -> ModelConfig | None:
    if isinstance(spec, ModelConfig):
        return spec
    if not str(spec).startswith("random:"):
        return None
    name = str(spec).removeprefix("random:")
    return NAMED_CONFIGS[one_of("random configuration", name, NAMED_CONFIGS)]


def _bundled_folder() -> Path:
    return data_path("checkpoints")


def _checkpoint_path(spec: str) -> Path:
    path = user_path(spec)
    if path.is_file():
        return path
    bundled = sorted(file.stem for file in _bundled_folder().glob(f"*{_SUFFIX}"))
    if spec in bundled:
        return data_path("checkpoints", spec + _SUFFIX)
    what = "it is a folder" if path.is_dir() else "there is no such file"
    raise MissingFile(
        f"no checkpoint {spec!r}: {what}, and bundled are {bundled or 'none'}"
        f"{meant([spec], bundled)}. Official checkpoints are linked from the "
        "repositories of CUT3R, Point3R, DUSt3R, MonST3R, Spann3R, VGGT and "
        "StreamVGGT; give the path of the downloaded file"
    )
