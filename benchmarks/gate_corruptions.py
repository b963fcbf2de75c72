"""Seeded corruptions of clean preference rows, kept apart from the code that looks for them: rows out, and which rows are what.

A row is {prompt, chosen, rejected, weight}. Each corrupted row has one corruption; of `contradictory` and `duplicate` a second row
is added that repeats a clean one.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]
Corrupt = Callable[[random.Random, Row], Row]

SUBJECTS = ("the gardener,a nurse,my neighbour,the old sailor,our teacher,a young painter,the mayor,one baker,this engineer,a quiet librarian").split(
    ","
)
VERBS = ("repairs,describes,remembers,carries,sells,borrows,studies,collects,paints,explains,measures,forgets").split(",")
OBJECTS = ("bridges,letters,maps,lanterns,wooden chairs,long poems,silver coins,garden tools,summer storms,railway tickets,kitchen clocks").split(",")
ENDS = (
    "before breakfast,in the harbour,with great care,after the concert,for her brother,near the station,on cold evenings,without any hurry"
).split(",")
SPECIAL = {"bos": "<s>", "eos": "</s>"}
LONG = 2500
"""Characters that do not fit into the benchmark's --max-length of 2000 byte tokens."""


@dataclass
class Planted:
    """Rows, and by kind the row numbers that have it."""

    rows: list[Row] = field(default_factory=list)
    truth: dict[str, set[int]] = field(default_factory=dict)

    def add(self, row: Row, *kinds: str) -> int:
        """A further row of these kinds; its number."""
        number = len(self.rows)
        self.rows.append(row)
        for kind in kinds:
            self.truth.setdefault(kind, set()).add(number)
        return number

    def clean(self) -> set[int]:
        """Rows nothing was done to."""
        return set(range(len(self.rows))) - set().union(*self.truth.values())


def generated(count: int, seed: int) -> list[Row]:
    """Clean rows of plain English, no two alike."""
    rng = random.Random(seed)
    sentence = lambda: f"{rng.choice(SUBJECTS).capitalize()} {rng.choice(VERBS)} {rng.choice(OBJECTS)} {rng.choice(ENDS)}."
    rows = []
    for number in range(count):
        prompt = f"What did you hear about {rng.choice(OBJECTS)} from {rng.choice(SUBJECTS)} in story number {number}?\n"
        answers = {side: " ".join(sentence() for _ in range(length)) for side, length in (("chosen", 3), ("rejected", 2))}
        rows.append({"prompt": prompt, **answers, "weight": 1.0})
    return rows


def plant(rows: list[Row], each: int, seed: int) -> Planted:
    """`each` rows of every kind among the clean ones, in random order; the longest stretch of rows stays clean."""
    rng = random.Random(seed)
    jobs = [kind for kind in KINDS for _ in range(each)]
    assert len(jobs) <= len(rows), "more corruptions than rows"
    order = jobs + [""] * (len(rows) - len(jobs))
    rng.shuffle(order)
    planted = Planted()
    later: list[tuple[str, int]] = []
    counts = dict.fromkeys(KINDS, 0)
    for row, kind in zip(rows, order, strict=True):
        if kind in ("duplicate", "contradictory"):
            later.append((kind, planted.add(dict(row))))
        elif kind:
            ways = KINDS[kind]
            planted.add(ways[counts[kind] % len(ways)](rng, dict(row)), kind, *ALSO.get(kind, ()))
            counts[kind] += 1
        else:
            planted.add(dict(row))
    for kind, number in later:
        row = dict(planted.rows[number])
        if kind == "contradictory":
            row |= {"chosen": row["rejected"], "rejected": row["chosen"]}
            planted.truth.setdefault(kind, set()).add(number)
        planted.add(row, kind)
    return planted


def transcripts(rows: list[Row], each: int, seed: int) -> Planted:
    """The rows as hh-rlhf transcripts, of which some have another question on one side."""
    rng = random.Random(seed)
    planted, chosen = Planted(), set(rng.sample(range(len(rows)), each))
    for number, row in enumerate(rows):
        sides = {side: f"\n\nHuman: {row['prompt'].strip()}\n\nAssistant: {row[side]}" for side in ("chosen", "rejected")}
        if number in chosen:
            sides["rejected"] = sides["rejected"].replace("Human: ", "Human: Please tell: ", 1)
        planted.add(sides, *["prompt_mismatch"] * (number in chosen))
    return planted


def change(**cells: Any) -> Corrupt:
    """Cells replaced."""
    return lambda rng, row: {**row, **cells}


def edit(column: str, how: Callable[[random.Random, str], str]) -> Corrupt:
    """One text edited."""
    return lambda rng, row: {**row, column: how(rng, row[column])}


def without(column: str) -> Corrupt:
    """A column left out."""
    return lambda rng, row: {name: value for name, value in row.items() if name != column}


def copied(how: Callable[[random.Random, str], str]) -> Corrupt:
    """The rejected answer is the chosen one, slightly edited."""
    return lambda rng, row: {**row, "rejected": how(rng, row["chosen"])}


def long_twins(rng: random.Random, row: Row) -> Row:
    """Answers that differ only where they are cut."""
    start = " ".join(row["chosen"] for _ in range(LONG // len(row["chosen"]) + 1))
    return {**row, "chosen": start + " One end.", "rejected": start + " Another end, and a later one."}


def one_word(rng: random.Random, text: str, word: Callable[[str], str]) -> str:
    """A text with one of its longer words changed."""
    words = text.split(" ")
    places = [i for i, one in enumerate(words) if len(one) > 3 and one.isalpha()] or [0]
    place = rng.choice(places)
    words[place] = word(words[place])
    return " ".join(words)


def swapped(rng: random.Random, text: str) -> str:
    """Two neighbouring words in the other order."""
    words = text.split(" ")
    place = rng.randrange(max(len(words) - 1, 1))
    words[place : place + 2] = words[place : place + 2][::-1]
    return " ".join(words) if " ".join(words) != text else text + " so"


ACCENTED = "a café, naïve people, “quoted” words, it’s über, déjà vu and señor Núñez – so"
FOREIGN = (
    "Ich weiß leider nicht genau, was damals geschehen ist, aber ich kann gern danach fragen.",
    "Je ne sais pas exactement ce qui s'est passé ce jour-là, mais je peux demander à mon frère.",
    "No sé exactamente qué pasó aquel día, pero puedo preguntarle a mi hermano mañana.",
    "Я точно не знаю, что случилось в тот день, но могу спросить у брата.",
    "我不太清楚那天发生了什么事，不过我可以去问问我的哥哥，他应该知道。",
    "その日に何が起きたのかよく分かりませんが、兄に聞いてみることができます。",
    "Non so esattamente che cosa sia successo quel giorno, ma posso chiedere a mio fratello.",
    "Não sei exatamente o que aconteceu naquele dia, mas posso perguntar ao meu irmão.",
    "Ik weet niet precies wat er die dag gebeurd is, maar ik kan het aan mijn broer vragen.",
    "Nie wiem dokładnie, co się wtedy stało, ale mogę jutro zapytać mojego brata.",
    "لا أعرف بالضبط ما الذي حدث في ذلك اليوم، لكن يمكنني أن أسأل أخي غدا.",
    "Kein Problem, das geht.",
    "Merci beaucoup, à demain !",
)


def mojibake(codec: str) -> Callable[[random.Random, str], str]:
    """Accented words as UTF-8 read with another encoding."""
    return lambda rng, text: f"{text} We had {ACCENTED}.".encode().decode(codec, errors="ignore")


def asked(row: Row) -> str:
    """The question without the line break."""
    return str(row["prompt"]).strip()


KINDS: dict[str, tuple[Corrupt, ...]] = {
    "empty": (change(chosen=""), change(rejected=" \n\t"), change(prompt="")),
    "identical": (lambda rng, row: {**row, "rejected": row["chosen"]},),
    "identical_after_truncation": (long_twins,),
    "duplicate": (),
    "contradictory": (),
    "span_outside_text": (
        change(chosen_spans=[[-1, 3, 1.0]]),
        change(rejected_spans=[[0, 100_000, -1.0]]),
        change(chosen_spans=[[0, 2, 1.0], {"start": 5, "end": 100_000, "value": 1.0}]),
        change(rejected_spans=[[100_000, 100_001, 1.0]]),
    ),
    "bos_eos": (
        edit("chosen", lambda rng, text: text + SPECIAL["eos"]),
        edit("rejected", lambda rng, text: text + SPECIAL["eos"] * 2),
        edit("prompt", lambda rng, text: SPECIAL["bos"] + text),
        edit("chosen", lambda rng, text: SPECIAL["bos"] + text),
        edit("rejected", lambda rng, text: f"{text[:20]}{SPECIAL['eos']}{text[20:]}"),
    ),
    "over_length": (
        edit("prompt", lambda rng, text: "Once more, please. " * (LONG // 19) + text),
        edit("chosen", lambda rng, text: text + " And so on." * (LONG // 10)),
    ),
    "missing_column": (without("rejected"), without("prompt"), change(chosen=None), change(rejected=3), change(chosen=["a"]), change(weight="heavy")),
    "not_a_number": (change(weight=float("nan")), change(margin=float("inf")), change(chosen_spans=[[0, 3, float("nan")]])),
    "near_identical": (
        copied(lambda rng, text: one_word(rng, text, str.upper)),
        copied(lambda rng, text: one_word(rng, text, lambda word: word[0] + word[2] + word[1] + word[3:] + "e")),
        copied(lambda rng, text: one_word(rng, text, lambda word: "thing")),
        copied(lambda rng, text: text.replace(".", "!") if "." in text else text + "!"),
        copied(lambda rng, text: text + " Indeed."),
        copied(swapped),
    ),
    "template": (
        edit("chosen", lambda rng, text: text + "<|im_end|>"),
        edit("chosen", lambda rng, text: text + "\n\nHuman: Thanks, and what else?"),
        edit("rejected", lambda rng, text: "Assistant: " + text),
        edit("rejected", lambda rng, text: "[/INST] " + text),
        edit("chosen", lambda rng, text: "### Response:\n" + text),
        edit("prompt", lambda rng, text: f"<start_of_turn>user\n{text}<end_of_turn>\n"),
        edit("chosen", lambda rng, text: text + "<|eot_id|><|start_header_id|>user"),
        edit("rejected", lambda rng, text: text + "\nUser: And then?"),
        edit("prompt", lambda rng, text: f"USER: {text} ASSISTANT:"),
        edit("chosen", lambda rng, text: text + "<|endoftext|>"),
        edit("rejected", lambda rng, text: "<｜Assistant｜>" + text),
        edit("chosen", lambda rng, text: f"Q: And then?\nA: {text}"),
        edit("rejected", lambda rng, text: text + " GPT4 Correct User: go on"),
    ),
    "encoding": (
        edit("chosen", mojibake("cp1252")),
        edit("rejected", mojibake("latin-1")),
        edit("prompt", mojibake("cp1251")),
        edit("chosen", mojibake("mac_roman")),
        edit("rejected", lambda rng, text: f"{text[:10]}�{text[11:]}"),
        edit("chosen", lambda rng, text: one_word(rng, text, lambda word: word + "\x92s")),
        edit("rejected", lambda rng, text: text + " Itâ€™s fine."),
        edit("rejected", lambda rng, text: text.encode("utf-16-le").decode("latin-1")),
    ),
    "prompt_in_answer": (
        lambda rng, row: {**row, "chosen": f"{asked(row)} {row['chosen']}"},
        lambda rng, row: {**row, "rejected": f"{row['rejected']}\n\n{asked(row)}"},
        lambda rng, row: {**row, "chosen": f"You asked: {asked(row).upper()}\n{row['chosen']}"},
        lambda rng, row: {**row, "rejected": f"> {asked(row)}\n\n{row['rejected']}"},
        lambda rng, row: {**row, "rejected": f"{asked(row)[len(asked(row)) // 2 :]} {row['rejected']}"},
    ),
    "language": tuple(change(**{side: text}) for text in FOREIGN for side in ("chosen", "rejected")),
}
"""By kind, the ways a row is made so, taken in turn; the two that need a second row have none."""
ALSO = {"identical_after_truncation": ("over_length",)}
"""Kinds a corruption brings with it."""
EXACT = tuple(list(KINDS)[:10])
JUDGED = tuple(list(KINDS)[10:])
