"""Where the time of a run goes: a table whose parts add up to the wall clock of the whole process.

    python benchmarks/time_of_run.py prefer --model MODEL --data PAIRS --out RUN objective:dpo

What follows the script's name is a command line of finegrain. Every part counts what it spends itself, without the parts within it; `the rest`
is what no part names. The products of the model's shapes are timed afterwards, by torch and by oneDNN, in float32 and bfloat16.
The last line is the same as JSON.
"""

import time

BORN = time.perf_counter()

import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from functools import wraps  # noqa: E402
from importlib import import_module  # noqa: E402
from typing import Any  # noqa: E402

PARTS = {
    "settings": ["finegrain.parsing:parse_settings"],
    "load the model": ["finegrain.recipes.session:load_policy", "finegrain.recipes.session:add_adapter"],
    "hash the model": ["finegrain.recipes.session:model_fingerprint", "finegrain.recipes.session:tokenizer_fingerprint"],
    "try saving": ["finegrain.recipes.training.align:check_saving"],
    "rows: gate and tokens": ["finegrain.recipes.training.align:load_rows"],
    "plan": ["finegrain.recipes.training.align:make_plan"],
    "samples": ["finegrain.recipes.training.align:generate_greedy"],
    "probe": ["finegrain.recipes.session:make_scorer"],
    "columns": ["finegrain.recipes.training.align:make_columns"],
    "reference": ["finegrain.models.reference:ScoreCache.values"],
    "inspection": ["finegrain.recipes.training.align:snapshot_before", "finegrain.recipes.training.align:write_inspected_pairs"],
    "evaluation": ["finegrain.recipes.training.artifact:evaluate"],
    "trainer": ["finegrain.recipes.training.align:build_trainer"],
    "step": ["finegrain.train.run:run_step"],
    "collation": ["finegrain.train.loop:collate"],
    "backbone, forward": ["finegrain.models.scorer:Scorer.forward"],
    "backward of the rest": ["finegrain.train.gradients:StepGradient.add"],
    "optimiser": ["finegrain.train.loop:_update"],
    "attention, forward": ["finegrain.models.attention:branched_attention"],
    "linear layers, forward": ["finegrain.ops.matmul:_Linear.forward"],
    "linear layers, backward": ["finegrain.ops.matmul:_Linear.backward"],
    "vocabulary head, forward": ["finegrain.ops.logprobs:_ChunkedHead.forward"],
    "vocabulary head, backward": ["finegrain.ops.logprobs:_ChunkedHead.backward"],
    "save the model and its card": ["finegrain.recipes.training.align:write_results"],
    "report": ["finegrain.recipes.training.align:write_report"],
}


class Stopwatch:
    """Seconds by part, each without the parts within it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self._open: list[str] = []
        self._since = BORN

    def turn(self, part: str | None) -> None:
        """Another part begins (None: the one around it goes on); a part within another is named after the outermost one, too."""
        now = time.perf_counter()
        current = " > ".join(dict.fromkeys((self._open[0], self._open[-1]))) if self._open else "the rest"
        self.seconds[current] = self.seconds.get(current, 0.0) + now - self._since
        self._since = now
        if part is None:
            self._open.pop()
        else:
            self._open.append(part)
            name = " > ".join(dict.fromkeys((self._open[0], part)))
            self.calls[name] = self.calls.get(name, 0) + 1

    def around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed as a part."""

        @wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            self.turn(part)
            try:
                return function(*arguments, **named)
            finally:
                self.turn(None)

        return timed

    def watch(self, part: str, place: str) -> None:
        """Time the function at a place as a part."""
        owner, name = find_function(place)
        timed = self.around(part, getattr(owner, name))
        setattr(owner, name, staticmethod(timed) if isinstance(owner.__dict__[name], staticmethod) else timed)


def find_function(place: str) -> tuple[Any, str]:
    """Owner and name of what stands at `module:name` or `module:class.name`."""
    module, _, path = place.partition(":")
    owner: Any = import_module(module)
    *within, name = path.split(".")
    for step in within:
        owner = getattr(owner, step)
    return owner, name


def describe_machine() -> dict[str, Any]:
    """The processor, and what torch makes of it."""
    import torch
    from places import describe_processor

    torch_sees = {"torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}
    return {**describe_processor(), **torch_sees, "cores": os.cpu_count()}


def rate_products(model: str, rows: int) -> list[dict[str, Any]]:
    """GFLOP/s of the model's products by each library and dtype."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from utilisation import linear_shapes, product_rate

    from finegrain.ops.matmul import multiply

    with torch.device("meta"):
        loaded = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    shapes = [(shape.outputs, shape.inputs) for shape in linear_shapes(loaded)] + [tuple(loaded.get_output_embeddings().weight.shape)]
    libraries = {"torch": lambda a, b: a @ b.T, "ours": multiply}
    return [
        {"shape": shape, "dtype": str(dtype).removeprefix("torch."), **{name: product_rate(shape, rows, dtype, by) for name, by in libraries.items()}}
        for shape in shapes
        for dtype in (torch.float32, torch.bfloat16)
    ]


def main() -> None:
    arguments = sys.argv[1:]
    watch = Stopwatch()
    watch.turn("imports")
    from finegrain.cli import main as finegrain

    import_module(f"finegrain.recipes.{arguments[0]}")
    watch.turn(None)
    for part, places in PARTS.items():
        for place in places:
            watch.watch(part, place)
    code = finegrain(arguments)
    watch.turn("the rest")
    whole = time.perf_counter() - BORN
    if code:
        sys.exit(code)
    print(f"\n{'part':44s} {'seconds':>8s} {'share':>6s} {'calls':>6s}")
    for part, seconds in sorted(watch.seconds.items(), key=lambda item: -item[1]):
        print(f"{part:44s} {seconds:8.2f} {seconds / whole:6.1%} {watch.calls.get(part, 1):6d}")
    print(f"{'sum, and the wall clock':44s} {sum(watch.seconds.values()):8.2f} {whole:8.2f}")
    machine = describe_machine()
    print("  ".join(f"{name}: {value}" for name, value in machine.items()))
    model = arguments[arguments.index("--model") + 1]
    rates = rate_products(model, 1024)
    for rate in rates:
        print(f"{rate['shape']!s:16s} {rate['dtype']:9s} torch {rate['torch'] / 1e9:7.1f} GFLOP/s   ours {rate['ours'] / 1e9:7.1f} GFLOP/s")
    print(json.dumps({"seconds": watch.seconds, "calls": watch.calls, "wall": whole, "machine": machine, "products": rates}))


if __name__ == "__main__":
    main()
