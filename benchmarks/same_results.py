"""Do two versions of finegrain compute the same? For changes of form alone: a fixed set of commands, before and after.

    python benchmarks/same_results.py run --finegrain OLD/.venv/bin/finegrain --out before
    python benchmarks/same_results.py run --finegrain NEW/.venv/bin/finegrain --out after
    python benchmarks/same_results.py compare before after

`run` makes a tiny model and planted data in a new folder, with nothing of finegrain, and calls the executable for every step of STEPS
there, each in a process of its own: on the CPU, in float32, one thread, seed 0. The processes are forks of one that has imported torch and
the like but nothing of finegrain (by the Python beside the executable, which has to be a Python script), so that importing takes one step's
time. Per step `run` keeps `records/STEP.json`: exit code, the JSON of stdout, and of every file that was written or changed its JSON, its
lines of JSON, or a hash per tensor; of a page the JSON in it; of any other file the name alone. It ends with 1 where a step failed.

`compare` prints every difference and ends with 1 where there is one: tensors, numbers and text must be equal to the last bit. What may
differ is said by three tables: VERBS (commands with other names later), RENAMED (keys and files with other names later) and LEFT_OUT (keys
that two runs of one version differ in, or that say what ran). Both runs need the same machine and packages: other ones round otherwise.
"""

import argparse
import hashlib
import importlib
import json
import os
import random
import re
import runpy
import shlex
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

VERBS: Mapping[str, tuple[str, ...]] = {
    "posterior": ("posterior", "reward posterior"),
    "bound": ("bound", "reward bound"),
    "baseline": ("baseline", "score baseline"),
    "compare": ("compare", "eval compare"),
}
"""Spellings of a command, the oldest first; the first one that answers --help is called. A command that is not here has one."""

RENAMED: Mapping[str, str] = {}
"""Old name -> new name of keys and of files, as parts of a path with / between them: `a` -> `b` anywhere, `a/b` -> `c` a key that moves."""

TIMES = ("step_seconds", "eval_seconds", "train_seconds", "credit_seconds", "seconds", "tokens_per_second", "date")
LEFT_OUT = frozenset({*TIMES, "peak_rss_bytes", "versions", "transformers_version", "machine"})
"""Keys whose values are not compared, wherever they stand."""


class Step(NamedTuple):
    """One command line, in the folder of the run."""

    name: str
    verb: str
    arguments: str

    def words(self, spelling: str) -> list[str]:
        """What follows the executable."""
        return [*spelling.split(), *shlex.split(self.arguments)]


CPU = "--device cpu --dtype float32"
TRAIN = f"{CPU} --model model --seed 0 --max-steps 3 --batch-size 8 --lr 0.003 --samples 2 --examined 8"
STEPS = (
    Step("check-data", "check-data", "--data concise.jsonl --model model --max-length 96 --out check.json"),
    Step("sft", "sft", f"{TRAIN} --data concise.jsonl --limit 32 --max-length 96 --out sft"),
    Step("sft-lora", "sft", f"{TRAIN} --data demonstrations.jsonl --out sft-lora --lora.rank 4"),
    Step("prefer", "prefer", f"{TRAIN} --data pairs.jsonl --out prefer objective:dpo --eval-every 1 --keep best --save-every 2"),
    Step("prefer-spans", "prefer", f"{TRAIN} --data spans.jsonl --out prefer-spans objective:dpo credit:asr"),
    Step(
        "prefer-function", "prefer", f"{TRAIN} --data pairs.jsonl --out prefer-function objective:simpo credit:function --credit.path own.py:credit"
    ),
    Step("prefer-kto", "prefer", f"{TRAIN} --data labelled.jsonl --out prefer-kto objective:kto"),
    Step("prefer-ava-p", "prefer", f"{TRAIN} --data pairs.jsonl --out prefer-ava-p objective:ava-p"),
    Step("reward-sequence", "reward", f"{TRAIN} --data pairs.jsonl --out reward-sequence head:sequence"),
    Step("reward-token", "reward", f"{TRAIN} --data pairs.jsonl --out reward-token head:token"),
    Step("reward-gaussian", "reward", f"{TRAIN} --data pairs.jsonl --out reward-gaussian head:gaussian loss:ava-p"),
    Step(
        "reward-attributes",
        "reward",
        f"{TRAIN} --data rated.jsonl --out reward-attributes head:attributes loss:attributes --head.names useful brief --head.weights 1 -0.3",
    ),
    Step("reward-segment", "reward", f"{TRAIN} --data pairs.jsonl --out reward-segment head:segment head.segmenter:top-k"),
    Step("reward-ensemble", "reward", f"{TRAIN} --data pairs.jsonl --out reward-ensemble head:ensemble"),
    Step("reward-step", "reward", f"{TRAIN} --data steps.jsonl --out reward-step head:step loss:step-labels"),
    Step(
        "prefer-scorer",
        "prefer",
        f"{TRAIN} --data pairs.jsonl --out prefer-scorer objective:dpo credit:asr --credit.scorer reward-token credit.baseline:batch-mean",
    ),
    Step(
        "prefer-confidence",
        "prefer",
        f"{TRAIN} --data pairs.jsonl --out prefer-confidence objective:dpo credit:confidence --credit.min-kept 0 --credit.max-kept 1",
    ),
    Step(
        "prefer-tokens",
        "prefer",
        f"{TRAIN} --data pairs.jsonl --out prefer-tokens objective:token-distillation credit:token-reward --credit.scorer reward-gaussian",
    ),
    Step("score-token", "score", f"{CPU} --model reward-token --data held-out.jsonl --out score-token.jsonl"),
    Step("score-gaussian", "score", f"{CPU} --model reward-gaussian --data held-out.jsonl --out score-gaussian.jsonl aggregate:minus-std"),
    Step("score-segment", "score", f"{CPU} --model reward-segment --data held-out.jsonl --out score-segment.jsonl"),
    Step("score-policy", "score", f"{CPU} --model prefer --reference model --data held-out.jsonl --out score-policy.jsonl segmenter:tokens"),
    Step("score-differences", "score", f"{CPU} --model reward-sequence --data held-out.jsonl --out differences.jsonl signal:prefix-difference"),
    Step("score-function", "score", "--reward own.py:score --data held-out.jsonl --out score-function.jsonl"),
    Step("baseline", "baseline", f"{CPU} --model reward-token --data sampled.jsonl --out baseline.jsonl"),
    Step("score-baseline", "score", f"{CPU} --model reward-token --data held-out.jsonl --out relative.jsonl --baseline baseline.jsonl"),
    Step("compare", "compare", "score-token.jsonl score-gaussian.jsonl score-policy.jsonl --resamples 100 --out compared.json"),
    Step("eval", "eval", f"{CPU} --reward reward-token --data held-out.jsonl --out eval.json"),
    Step("eval-several", "eval", f"{CPU} --reward reward-ensemble reward-sequence --data held-out.jsonl --out eval-several.json"),
    Step("curate", "curate", f"{CPU} --model model --data pairs.jsonl --out curated.jsonl --seed 0 method:secrets-rm"),
    Step("posterior", "posterior", f"reward-sequence {CPU} --data pairs.jsonl"),
    Step("score-posterior", "score", f"{CPU} --model reward-sequence --data held-out.jsonl --out score-posterior.jsonl"),
    Step("bound", "bound", f"reward-sequence {CPU} --data held-out.jsonl --fit.epochs 60 --seed 0"),
    Step("score-bound", "score", f"{CPU} --model reward-sequence --data held-out.jsonl --out score-bound.jsonl"),
    Step("inspect-runs", "inspect", "prefer prefer-spans --out runs.html"),
    Step("inspect-model", "inspect", f"{CPU} --model reward-token --data held-out.jsonl --out model.html"),
    Step("again", "again", "prefer-spans/run.json --out again"),
)
"""In this order: later steps read what earlier ones wrote."""

ALONE = {
    "PYTHONHASHSEED": "0",  # peft writes a set
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "COLUMNS": "150",
    "TOKENIZERS_PARALLELISM": "false",
    "FINEGRAIN_CACHE": "cache",
}
"""Environment of every step, in its folder."""
SHARED = ("torch", "transformers", "transformers.models.llama.modeling_llama", "accelerate", "peft", "datasets", "scipy.stats", "sklearn", "tyro")
"""Imported once for all steps, where they are installed."""
RECORDS, INPUTS = "records", "inputs"

ROWS = 40
GOOD = ("kind", "clear", "honest", "careful", "useful")
BAD = ("rude", "vague", "false", "careless", "useless")
FILLER = ("the", "answer", "is", "a", "day", "of", "rain", "and", "we", "walk", "to", "town", "with", "some", "bread")
ROLE = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
)
TEMPLATE = ROLE + "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
OWN = '''"""Functions of the user's own."""


def credit(prompt, response, role, row):
    """The first word twice."""
    return [(0, len(response.split(" ")[1]) + 1, 2.0)]


def score(prompts, completions, **columns):
    """Words."""
    return [float(len(text.split())) for text in completions]
'''


class Answer(NamedTuple):
    """An answer, and where it says something good or bad."""

    text: str
    start: int
    end: int


def answer(draw: random.Random, words: Sequence[str]) -> Answer:
    """Some filler with one of the words in it."""
    before, after = (" ".join(draw.choices(FILLER, k=draw.randint(2, 6))) for _ in range(2))
    word = draw.choice(words)
    start = len(before) + 2
    return Answer(f" {before} {word} {after} .", start, start + len(word))


def data_files(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Rows of every planted file, by its name."""
    draw = random.Random(seed)
    prompts = [f"why {row} {draw.choice(FILLER)} ?" for row in range(2 * ROWS)]
    trios = [(prompt, answer(draw, GOOD), answer(draw, BAD)) for prompt in prompts]
    pairs = [{"prompt": prompt, "chosen": good.text, "rejected": bad.text} for prompt, good, bad in trios]
    marks = [{"chosen_spans": [[0, good.start, -1.0]], "rejected_spans": [[bad.start, bad.end, -1.0]]} for _, good, bad in trios]
    single = [(prompt, one.text, place) for prompt, *two in trios[:ROWS] for place, one in enumerate(two)]
    return {
        "pairs": pairs[:ROWS],
        "held-out": pairs[ROWS:],
        "spans": [pair | mark for pair, mark in zip(pairs, marks, strict=True)][:ROWS],
        "demonstrations": [{"prompt": row["prompt"], "completion": row["chosen"]} for row in pairs[:ROWS]],
        "labelled": [{"prompt": prompt, "completion": text, "label": place == 0} for prompt, text, place in single],
        "rated": [
            {"prompt": prompt, "response": text, "ratings": {"useful": 4 - 3 * place, "brief": len(text) % 5}} for prompt, text, place in single
        ],
        "steps": [
            {"prompt": prompt, "completions": [good.text, bad.text] if row % 2 else [good.text] * 2, "labels": [True, row % 2 == 0]}
            for row, (prompt, good, bad) in enumerate(trios[:ROWS])
        ],
        "sampled": [{"prompt": row["prompt"], "responses": [row["chosen"], answer(draw, BAD).text]} for row in pairs[ROWS:]],
    }


def make_inputs(folder: Path) -> None:
    """Model, data and own functions; nothing of finegrain."""
    files = data_files()
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copy(EXAMPLES / "concise.jsonl", folder)
    (folder / "own.py").write_text(OWN)
    make_model(folder / "model", [text for row in files["pairs"] for text in row.values()])


def make_model(folder: Path, texts: Sequence[str]) -> None:
    """A Llama of two layers with a byte-level tokenizer and a chat template."""
    import tokenizers
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    special, alphabet = ["<pad>", "<bos>", "<eos>"], tokenizers.pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts, tokenizers.trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")
    fast.chat_template = TEMPLATE
    config = transformers.LlamaConfig(
        vocab_size=bpe.get_vocab_size(),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)


def run_all(finegrain: Path, folder: Path) -> int:
    """Inputs, every step and its record; 1 where one failed. The environment is ALONE already."""
    if folder.exists():
        raise SystemExit(f"{folder} is there already; give a new folder")
    for module in SHARED:
        with suppress(ImportError):
            importlib.import_module(module)
    sys.modules["torch"].manual_seed(1)  # what draws without a seed of its own draws the same, and not what --seed 0 says
    (folder / RECORDS).mkdir(parents=True)
    if called(partial(make_inputs, folder), Path.cwd()).code != 0:
        raise SystemExit("no inputs could be made")
    write_record(folder / RECORDS / f"{INPUTS}.json", {"files": contents(folder, stamps(folder))})
    failed = []
    for step in STEPS:
        begun = time.monotonic()
        record, errors = run_step(finegrain, step, folder)
        write_record(folder / RECORDS / f"{step.name}.json", record)
        print(f"{step.name:18} {time.monotonic() - begun:5.1f} s, exit {record['exit']}", flush=True)
        if record["exit"] != 0:
            failed.append(step.name)
            print(errors, flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return int(bool(failed))


def run_step(finegrain: Path, step: Step, folder: Path) -> tuple[dict[str, Any], str]:
    """The record of a step, and what it said on stderr."""
    before = stamps(folder)
    words = step.words(spelling(finegrain, step.verb, folder))
    done = called(partial(as_program, finegrain, words), folder)
    changed = [name for name, stamp in stamps(folder).items() if before.get(name) != stamp]
    record = {"command": words, "exit": done.code, "stdout": last_json(done.stdout), "files": contents(folder, changed)}
    return without_folder(record, folder), done.stderr


class Done(NamedTuple):
    """What a process left."""

    code: int
    stdout: str
    stderr: str


def called(function: Callable[[], None], folder: Path) -> Done:
    """The function in a fork of this process, in the folder."""
    with TemporaryFile("w+") as stdout, TemporaryFile("w+") as stderr:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            for place, stream in ((1, stdout), (2, stderr)):
                os.dup2(stream.fileno(), place)
            os.chdir(folder)
            os._exit(exit_code(function))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = []
        for stream in (stdout, stderr):
            stream.seek(0)
            texts.append(stream.read())
        return Done(code, *texts)


def exit_code(function: Callable[[], None]) -> int:
    """Of the function as a whole program, with what Python does when one ends."""
    code = 0
    try:
        function()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def as_program(file: Path, words: Sequence[str]) -> None:
    """A Python script with these arguments."""
    sys.argv, sys.path[0] = [str(file), *words], str(file.parent)
    runpy.run_path(str(file), run_name="__main__")


def spelling(finegrain: Path, verb: str, folder: Path) -> str:
    """How this version spells a command."""
    known = VERBS.get(verb, (verb,))
    for spelled in known:
        if len(known) == 1 or called(partial(as_program, finegrain, [*spelled.split(), "--help"]), folder).code == 0:
            return spelled
    raise SystemExit(f"{finegrain} answers --help of none of: {', '.join(known)}")


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file of the run with its time and size; the cache and the records are none of its results."""
    found = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if file.is_file() and name.parts[0] not in (RECORDS, ALONE["FINEGRAIN_CACHE"]) and "__pycache__" not in name.parts:
            stat = file.stat()
            found[name.as_posix()] = (stat.st_mtime_ns, stat.st_size)
    return found


def contents(folder: Path, names: Sequence[str] | Mapping[str, object]) -> dict[str, Any]:
    """What is compared of the files."""
    return {name: content(folder / name) for name in names}


def content(file: Path) -> Any:
    """JSON, lines of JSON, tensors, the JSON of a page; None for other files."""
    match file.suffix:
        case ".json":
            return json.loads(file.read_text())
        case ".jsonl":
            return [json.loads(line) for line in file.read_text().split("\n") if line]
        case ".safetensors":
            return tensors(file)
        case ".html":
            return [json.loads(found) for found in re.findall(r"<script[^>]*application/json[^>]*>(.*?)</script>", file.read_text(), re.DOTALL)]
    return None


def tensors(file: Path) -> dict[str, Any]:
    """Number format, shape and hash of the bytes of every tensor, and the file's own words."""
    data = file.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    found = {"__metadata__": header.pop("__metadata__", {})}
    for name, said in header.items():
        start, end = (begin + offset for offset in said["data_offsets"])
        found[name] = {"dtype": said["dtype"], "shape": said["shape"], "sha256": hashlib.sha256(data[start:end]).hexdigest()}
    return found


def last_json(text: str) -> Any:
    """The last line of stdout, which is JSON; the text where it is not."""
    lines = text.strip().splitlines()
    try:
        return json.loads(lines[-1]) if lines else None
    except ValueError:
        return text


def without_folder(value: Any, folder: Path) -> Any:
    """The same with the run's own folder as `.` wherever it is named."""
    if isinstance(value, Mapping):
        return {without_folder(key, folder): without_folder(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [without_folder(item, folder) for item in value]
    return value.replace(str(folder.resolve()), ".") if isinstance(value, str) else value


def write_record(file: Path, record: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(record, indent=1) + "\n")


Leaves = dict[str, str]
"""By the keys that lead to it, a number, text, None or an empty container as JSON: -0.0 is not 0.0, and NaN is NaN."""
COMPARED = ("exit", "stdout", "files")
"""Of a record; the command may be spelled otherwise."""


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """All that is compared of a value."""
    items = list(value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ())
    if not items:
        yield path, json.dumps(value)
    for key, item in items:
        if key not in LEFT_OUT:
            yield from leaves(item, f"{path}/{key}" if path else str(key))


def renamed(path: str, names: Mapping[str, str]) -> str:
    """The path as the newer version names it."""
    for old, new in names.items():
        path = re.sub(rf"(?<![^/]){re.escape(old)}(?![^/])", new, path)
    return path


def differences(before: Any, after: Any, names: Mapping[str, str] = RENAMED) -> list[str]:
    """What is not the same in two records, a line each."""
    old: Leaves = {renamed(path, names): value for path, value in leaves(before)}
    new: Leaves = dict(leaves(after))
    paths = [*old, *(path for path in new if path not in old)]
    return [f"{path}: {old.get(path, 'absent')} -> {new.get(path, 'absent')}" for path in paths if old.get(path) != new.get(path)]


def compare_all(before: Path, after: Path) -> int:
    """Every difference of two runs; 1 where there is one."""
    old, new = ({file.stem: json.loads(file.read_text()) for file in (folder / RECORDS).glob("*.json")} for folder in (before, after))
    missing = sorted({INPUTS, *(step.name for step in STEPS)} - (old.keys() & new.keys()))
    found = {name: ["there is no record of it on both sides"] for name in missing}
    for name in sorted(old.keys() & new.keys()):
        found[name] = differences(*({part: record[part] for part in COMPARED if part in record} for record in (old[name], new[name])))
    lines = [f"{name}: {line}" for name, several in found.items() for line in several]
    print("\n".join([*lines, f"{len(found)} records, {len(lines)} differences" if found else "there are no records"]))
    return int(bool(lines))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run")
    run.add_argument("--finegrain", type=Path, required=True, help="the executable of the version")
    run.add_argument("--out", type=Path, required=True, help="a new folder")
    compare = verbs.add_parser("compare")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    asked = parser.parse_args()
    if asked.verb == "compare":
        return compare_all(asked.before, asked.after)
    finegrain = asked.finegrain.absolute()
    python = finegrain.with_name("python")
    if Path(sys.executable) != python or any(os.environ.get(name) != value for name, value in ALONE.items()):
        os.execve(python, [str(python), *sys.argv], os.environ | ALONE)
    return run_all(finegrain, asked.out.absolute())


if __name__ == "__main__":
    sys.exit(main())
