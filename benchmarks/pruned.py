"""Whether a pruned model is as much faster than the dense one as it has fewer operations."""

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import ceilings
from benchmarks.common import Bench
from benchmarks.contest import Entry
from benchmarks.results import Measure, Row, Target
from benchmarks.worker import Prepared

GROUP = "pruned"
SPARSITIES = (0.25, 0.5, 0.75)
PROMPTS, LENGTH = 4, 512  # a prefill of 2,048 tokens


def rows(bench: Bench) -> Iterator[Row]:
    """Prefill tokens a second of models without 25, 50 and 75 % of their neurons."""
    settings = bench.settings(model=bench.teacher, tiny=bench.tiny)
    outcomes = bench.contest(
        {"ours": Entry("benchmarks.pruned:prefill", settings), "ceiling": ceilings.entry(bench)}
    )
    facts, top = outcomes["ours"].facts, ceilings.ceiling(outcomes["ceiling"]).median
    dense = outcomes["ours"].series("0")
    for sparsity in SPARSITIES:
        name = str(sparsity)
        seconds = outcomes["ours"].series(name)
        speedup = Measure(
            what="regrow",
            unit="x dense",
            values=[whole / less for whole, less in zip(dense, seconds, strict=True)],
        )
        fewer = facts["operations"]["0"] / facts["operations"][name]
        rates = [facts["tokens"] / value for value in seconds]
        measure = Measure(what="regrow", unit="tokens/s", values=rates)
        share = measure.median * facts["operations"][name] / facts["tokens"] / 1e9 / top
        yield Row(
            group=GROUP,
            name=f"prefill without {sparsity:.0%} of the neurons: speed over the dense model's",
            ours=speedup.model_copy(update={"of_ceiling": share}),
            against=Measure(what="operations, dense over pruned", unit="x", values=[fewer]),
            ratio="ours / against",
            percent=True,
            target=Target.least(0.85, ">= 85 %"),
            notes={
                "tokens_a_second": measure.median,
                "tokens_a_second_dense": facts["tokens"]
                / Measure(what="", unit="", values=dense).median,
                "neurons_a_layer": facts["neurons"][name],
            },
        )


def prefill(settings: dict[str, Any]) -> Prepared:
    """The dense model and three pruned ones, by turns: all of a run see the same machine."""
    import torch

    from regrow.model.folders import empty_model, load_model
    from regrow.model.mlps import find_mlps
    from regrow.model.runtime import fix_runtime
    from regrow.plan.shapes import chain_pairs, costs, forward
    from regrow.prune.removal import kept_count, kept_neurons, write_pruned
    from regrow.prune.scores import importances
    from regrow.support.schema import Params

    params = Params.model_validate(settings["params"])
    fix_runtime(params.compute, 0)
    prompts, length = (1, 16) if settings["tiny"] else (PROMPTS, LENGTH)
    models, operations, neurons = {}, {}, {}
    for sparsity in (0, *SPARSITIES):
        folder, dtype = Path(settings["model"]), params.compute.dtype
        dense = find_mlps(empty_model(folder, dtype))[0].gate_proj.out_features
        count = kept_count(dense, sparsity, params.prune.multiple_of)
        with TemporaryDirectory() as smaller:
            found = importances(folder, dtype, "l2", 0, lambda _: torch.zeros(0))
            kept = [kept_neurons(importance, count) for importance in found]
            write_pruned(folder, kept, Path(smaller), dtype)
            model = load_model(Path(smaller), dtype, params.compute.device)
        name = str(sparsity)
        models[name], neurons[name] = model, count
        operations[name] = forward(
            costs(model), prompts * length, prompts * chain_pairs(length), prompts
        )
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.config.vocab_size, (prompts, length), generator=generator)
    tokens = tokens.to(model.device)

    @torch.inference_mode()
    def run() -> dict[str, Any]:
        found = {}
        for name, model in models.items():
            started = time.perf_counter()
            model(input_ids=tokens, use_cache=True, logits_to_keep=1).logits[0, 0, 0].item()
            found[name] = time.perf_counter() - started
        return found

    return {"tokens": prompts * length, "operations": operations, "neurons": neurons}, run
