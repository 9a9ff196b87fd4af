"""The gated MLPs of a model, found by what they hold."""

from typing import Any

from torch import nn

from regrow.support.errors import UserError

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def find_layers(model: Any) -> list[Any]:
    """Every decoder layer, first layer first."""
    return list(next(m for m in model.base_model.modules() if isinstance(m, nn.ModuleList)))


def find_mlps(model: Any) -> list[Any]:
    """The gated MLP of every decoder layer, first layer first; `UserError` where one has none."""
    mlps = []
    for number, layer in enumerate(find_layers(model)):
        found = [
            module
            for module in layer.modules()
            if all(isinstance(getattr(module, name, None), nn.Linear) for name in PROJECTIONS)
        ]
        if len(found) != 1:
            held = ", ".join(name for name, _ in layer.named_children())
            raise UserError(
                f"layer {number} of this {model.config.model_type} model has no single gated MLP "
                f"with {', '.join(PROJECTIONS)} (it holds {held}); models built like Llama, Qwen, "
                "Mistral, Gemma or OLMo 2 can be pruned"
            )
        mlps.append(found[0])
    return mlps


def count_mlp_parameters(model: Any) -> int:
    """Parameters of all gated MLPs."""
    return sum(parameter.numel() for mlp in find_mlps(model) for parameter in mlp.parameters())
