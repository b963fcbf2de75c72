"""Are the ids that train the ids that were sampled, and do the characters of an answer's tokens tile its text? 2,000 answers of the small model.

    python benchmarks/sampled_ids.py [--work build/sampled-ids]

Buffers are made as `finegrain online` makes them, from GSM8K's questions and from questions in other scripts, at temperature 1.5, where many tokens
are parts of characters, with stop strings that begin and end inside tokens. For every answer: the ids of the updates' batches are those that the
sampler drew; the offsets of its tokens are pieces of the text that follow one another without a gap; a token with a part of a character covers
nothing (the mark of a character that is never completed stands on the token behind it); text and tokens agree with what the tokenizer decodes;
nothing behind a stop string is text. Writes benchmarks/results/sampled-ids.{json,md}.
"""

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from command import flags, write
from places import DATA, RESULTS, ROOT, SMALL_LM, describe_processor

from finegrain.commands.online import OnlineSettings, OnlineTraining
from finegrain.commands.settings import Common
from finegrain.data.planted import write_jsonl
from finegrain.data.records import FastTokenizer
from finegrain.generate.sampling import Sample, Sampler, Sampling
from finegrain.online.grpo import GRPO
from finegrain.online.rollout import Ended
from finegrain.recipes.online import prepare
from finegrain.recipes.rollouts.opening import open_run
from finegrain.recipes.rollouts.rewards import ROLE
from finegrain.train.collate import collate

STOP = (". ", "ing", "?!", "=")
SCRIPTS = ("Зачем нужны мосты?", "为什么天空是蓝色的？", "絵文字 🙂🙃 はどう作る？", "¿Qué es la «luz»?", "Γιατί βρέχει;", "왜 겨울은 추운가요?")
FAULTS = ("fault: ids", "fault: offsets", "fault: characters of a token", "fault: text", "fault: stop string in the text")
PROMPTS, ANSWERS, BUFFER, TOKENS = 250, 8, 25, 48


class Recording:
    """A sampler that keeps what it drew."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler, self.drawn = sampler, list[Sample]()

    def __call__(self, prompts: Sequence[np.ndarray], keys: Sequence[int], buffer: int) -> list[list[Sample]]:
        """The answers."""
        found = self.sampler(prompts, keys, buffer)
        self.drawn += [one for many in found for one in many]
        return found

    def describe(self) -> str:
        """As the sampler."""
        return self.sampler.describe()


def check_answer(drawn: Sample, response: Any, tokenizer: FastTokenizer, trained: np.ndarray) -> Counter[str]:
    """Counts of what the answer shows, and of faults."""
    found: Counter[str] = Counter(answers=1, tokens=len(drawn.ids))
    found["fault: ids"] += not (np.array_equal(drawn.ids, response.ids) and np.array_equal(drawn.ids, trained))
    at = 0
    for start, end in response.offsets.tolist():
        if start == end:
            found["tokens without a character"] += 1
            continue
        found["fault: offsets"] += start != at
        at = end
    found["fault: offsets"] += at != len(response.text)
    whole = tokenizer.decode(drawn.ids.tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    stopped = drawn.ended == Ended.STOP_STRING
    found["answers ended by a stop string"] += stopped
    found["answers ended by an end token"] += drawn.ended == Ended.END_TOKEN
    found["answers with an unreadable character"] += "\ufffd" in whole
    found["fault: stop string in the text"] += any(string in response.text for string in STOP)
    last = response.offsets[-1] if len(response.offsets) else np.zeros(2)
    found["stop strings that begin inside a token"] += bool(stopped and last[1] > last[0])
    for start, end, token in zip(*response.offsets.T.tolist(), drawn.ids.tolist(), strict=True):
        piece = tokenizer.decode([token], clean_up_tokenization_spaces=False)
        if "\ufffd" in piece or end == len(response.text):
            found["tokens with a part of a character"] += "\ufffd" in piece
            continue
        found["fault: characters of a token"] += end > start and piece.strip() != response.text[start:end].replace("\ufffd", "").strip()
    if not stopped:
        found["fault: text"] += response.text.replace("\ufffd", "").strip() != whole.replace("\ufffd", "").strip()
    return found


def main() -> None:
    """All buffers."""
    parser = flags(__doc__, out=RESULTS)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "sampled-ids")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    with gzip.open(DATA / "gsm8k_train.jsonl.gz", "rt") as stream:
        questions = [json.loads(line)["question"] for line, _ in zip(stream, range(PROMPTS), strict=False)]
    prompts = [{"prompt": f"{SCRIPTS[place % len(SCRIPTS)]} {place}" if place % 2 else text} for place, text in enumerate(questions)]
    settings = OnlineSettings(
        model=str(SMALL_LM),
        data=str(write_jsonl(asked.work / "prompts.jsonl", prompts)),
        out=asked.work / "run",
        reward=(f"{ROOT / 'benchmarks' / 'speed_reward.py'}:reward",),
        algorithm=GRPO(),
        sampling=Sampling(answers=ANSWERS, max_new_tokens=TOKENS, temperature=1.5, stop=STOP),
        common=Common(device="cpu", dry_run=True, max_length=512),
        training=OnlineTraining(prompts=BUFFER, holdout=0.0),
    )
    source = prepare(open_run(settings, settings.model, None), None).source
    maker, counts = source.maker, Counter[str]()
    for number in range(len(source.plan)):
        maker.sampler = recording = Recording(maker.sampler.sampler if isinstance(maker.sampler, Recording) else maker.sampler)
        buffer = maker.make(number, [int(place) for place in source.plan.rows(number)], number + 1)
        rows = range(len(buffer.data.examples))
        trained = [branch.ids for group in collate(buffer.data, rows, [ROLE]).groups for branch in group.branches]
        for drawn, example, ids in zip(recording.drawn, buffer.data.examples, trained, strict=True):
            counts += check_answer(drawn, example.responses[ROLE], maker.session.policy.tokenizer, ids)
        print(number + 1, dict(counts), flush=True)
    faults = {name: counts[name] for name in FAULTS}
    shown = {name: count for name, count in counts.items() if name not in faults} | faults
    page = "\n".join(
        [
            "# Ids that train, and text of sampled answers",
            "",
            describe_processor()["processor"] + f". {counts['answers']} answers of the small model, at most {TOKENS} tokens, temperature 1.5,",
            f"stop strings {', '.join(f'`{string}`' for string in STOP)}.",
            "",
            "| what | count |",
            "| --- | --- |",
            *(f"| {name} | {count} |" for name, count in shown.items()),
            "",
        ]
    )
    write(asked.out, "sampled-ids", shown, page)
    if any(faults.values()):
        raise SystemExit(f"faults: {faults}")


if __name__ == "__main__":
    main()
