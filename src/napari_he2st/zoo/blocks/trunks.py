"""Image networks with the state-dict keys of torchvision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from napari_he2st.core.errors import ModelError, WeightsError
from napari_he2st.core.registry import unknown_name
from napari_he2st.zoo.guard import safe_import
from napari_he2st.zoo.weights import find_weights, load_checkpoint, overrides

_SMALL = ("densenet8", "resnet10")
_DEIT = {"deit_base_patch16_224": "https://dl.fbaipublicfiles.com/deit/deit_base_patch16_224-b5f2ef4d.pth"}


def torchvision_network(name: str, n_out: int) -> nn.Module:
    """A torchvision classifier with ``n_out`` outputs and random weights.

    Parameters
    ----------
    name
        As torchvision calls it, or one of two small ones: ``"densenet8"`` (one layer per block, growth 16)
        and ``"resnet10"`` (one block per stage).

    Raises
    ------
    UnknownNameError
        There is no such network.
    """
    models = safe_import("torchvision.models")
    if name == "densenet8":
        return models.DenseNet(16, (1, 1, 1, 1), num_init_features=16, num_classes=n_out)
    if name == "resnet10":
        return models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=n_out)
    if name not in models.list_models(module=models):
        raise unknown_name("torchvision network", name, [*_SMALL, *models.list_models(module=models)])
    extra = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
    return models.get_model(name, weights=None, num_classes=n_out, **extra)


def feature_network(name: str) -> tuple[nn.Module, int]:
    """A network without its classifier, images to pooled features (n, width), and that width.

    Parameters
    ----------
    name
        As timm calls it, or one of the small ones of :func:`torchvision_network`.

    Raises
    ------
    UnknownNameError
        There is no such network.
    """
    if name in _SMALL:
        network = torchvision_network(name, 1)
        last = "fc" if name.startswith("resnet") else "classifier"
        width = getattr(network, last).in_features
        setattr(network, last, nn.Identity())
        return network, width
    timm = safe_import("timm")
    if not timm.is_model(name):
        raise unknown_name("network", name, [*_SMALL, *timm.list_models()])
    network = timm.create_model(name, pretrained=False, num_classes=0, global_pool="avg")
    return network, network.num_features


def layers_before_pooling(name: str, *, imagenet: bool = False) -> tuple[nn.Module, int]:
    """A torchvision ResNet or DenseNet without what follows its last map, and the channels of that map.

    Other networks as :func:`feature_network` makes them. With ``imagenet``, weights come from there, see
    :func:`load_imagenet`.
    """
    kind = next((kind for kind in ("densenet", "resnet") if name.startswith(kind)), None)
    network, width = feature_network(name) if kind is None else (torchvision_network(name, 1), 0)
    if imagenet:
        load_imagenet(network, name)
    if kind == "densenet":
        return nn.Sequential(network.features), network.classifier.in_features
    if kind == "resnet":
        return nn.Sequential(*list(network.children())[:-2]), network.fc.in_features
    return network, width


def adopt(owner: nn.Module, network: nn.Module) -> Callable[[Tensor], Tensor]:
    """Make a network's layers those of ``owner``, so that its keys carry no prefix; return its forward."""
    if next(network.parameters(recurse=False), None) is not None:
        raise ModelError(f"{type(network).__name__} has weights outside its layers", where="trunk")
    network.eval()  # an auxiliary head for training is never asked for
    for name, layer in network.named_children():
        owner.add_module(name, layer)
    owner.train()
    return network.forward


def resnet_features(network: nn.Module, images: Tensor) -> Tensor:
    """What a torchvision ResNet passes to its last layer, float32 (n, features)."""
    x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    x = network.layer4(network.layer3(network.layer2(network.layer1(x))))
    return network.avgpool(x).flatten(1)


def load_imagenet(trunk: nn.Module, name: str) -> None:
    """Start a trunk from ImageNet weights; entries of another shape, such as the last layer, stay as they are.

    The file is the user's own, named ``torchvision:NAME`` in the list of weight files, or else torchvision's
    (first version; for DeiT its authors', ``deit:NAME``), downloaded once and checked against the checksum in
    its name. Networks that only timm has are the user's own in any case, ``timm:NAME``.

    Raises
    ------
    WeightsError
        There is none, or it cannot be reached.
    """
    label, entries = _label(name), imagenet_entries(name)
    own = trunk.state_dict()
    fitting = {key: value for key, value in entries.items() if key in own and own[key].shape == value.shape}
    if not fitting:
        raise WeightsError(f"Nothing in the weights of {label} fits this network", where=label)
    trunk.load_state_dict(fitting, strict=False)


def imagenet_entries(name: str) -> dict[str, Any]:
    """The state dict that :func:`load_imagenet` starts from.

    Raises
    ------
    WeightsError
        There is none, or it cannot be reached.
    """
    label = _label(name)
    entries = load_checkpoint(find_weights(label, None)) if label in overrides() else _download(label, name)
    return entries.get("model", entries)


def _label(name: str) -> str:
    """How the list of weight files names an ImageNet network."""
    models = safe_import("torchvision.models")
    if name in _DEIT:
        return f"deit:{name}"
    return f"torchvision:{name}" if name in (*_SMALL, *models.list_models(module=models)) else f"timm:{name}"


def _download(label: str, name: str) -> dict[str, Any]:
    models = safe_import("torchvision.models")
    todo = f'Go online, write "{label}" = "/path/to/file" into the list of weight files, or train with imagenet=false'
    if name in _SMALL:
        raise WeightsError(f"Nobody trained {name} on ImageNet", where=label, todo="Train with imagenet=false")
    if label.startswith("timm:"):
        raise WeightsError(f"The ImageNet weights of {name} are not ours to download", where=label, todo=todo)
    url = _DEIT.get(name) or models.get_model_weights(name)["IMAGENET1K_V1"].url
    try:
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"The ImageNet weights of {name} cannot be reached ({error})", where=url, todo=todo
        ) from error
