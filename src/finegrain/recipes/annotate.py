"""`finegrain annotate`: marks, corrections, preferences and ratings by a model behind a server, as data that every command reads."""

import asyncio
import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from finegrain.commands.annotate import SCALE, AnnotateSettings
from finegrain.configure import to_json
from finegrain.data.findings import Findings
from finegrain.data.records import Row
from finegrain.data.text_file import is_utf8
from finegrain.errors import DataError, EndpointError, Interrupted, UsageError
from finegrain.files import cache_folder, write_new
from finegrain.generate.endpoint import Endpoint, EndpointFailure, check_address, open_chat, read_key
from finegrain.recipes.annotation.asking import Asker, ReplyCache, ServerQuestion, Settled
from finegrain.recipes.annotation.edits import EditTask
from finegrain.recipes.annotation.preference import PreferenceTask, list_identical
from finegrain.recipes.annotation.prompt_file import PromptTemplate, load_prompt
from finegrain.recipes.annotation.rows import AnnotationTask, Annotator, Inquiry, NotAsked
from finegrain.recipes.annotation.rubric import USUAL, RubricTask
from finegrain.recipes.annotation.spans import SpanTask
from finegrain.recipes.check_data import describe_finding, describe_report, shorten_finding
from finegrain.recipes.marking.tasks import load_marked_rows
from finegrain.recipes.progress import show_progress
from finegrain.runs import check_free
from finegrain.terminal import write_line
from finegrain.types import Json

BYTES_PER_TOKEN = 4
"""For the estimate [choice]: about what tokenizers make of English text; of other scripts they make more tokens than this says."""
PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")

Asked = list[tuple[int, Row, list[Inquiry]]]
"""Row number, row, and its questions."""


def run_annotate(settings: AnnotateSettings) -> dict[str, Any]:
    """Ask, write rows and summary, complete or not at all; what was answered is kept, so that the same command goes on after a stop."""
    check_free(settings.out, settings.data)
    check_free(settings.summary, settings.data)
    task = _make_task(settings)
    prompt = load_prompt(settings.prompt, settings.task, task.places, task.needed)
    _check_places(settings, prompt)
    rows, report = load_marked_rows(settings.data, settings.limit, settings.gate)
    for line in describe_report({**report, "not_checked": []})[1:]:
        write_line(line)
    findings = Findings()
    asked = list(_inquire(task, rows, findings))
    if not asked:
        raise DataError(f"{settings.data}: --task {settings.task} can be asked of none of {report['rows']} rows ({findings.in_words()})")
    endpoint = _open_endpoint(settings)
    model = settings.model if settings.dry_run else settings.model or asyncio.run(_only_model(endpoint))
    questions = _make_questions(settings, task, prompt, model, asked)
    cache = ReplyCache(cache_folder() / "annotate")
    known = {key: Settled(*found) for key, question in questions.items() if (found := cache.get(question)) is not None} if model else {}
    waiting = {key: question for key, question in questions.items() if key not in known}
    facts = _estimate(settings, prompt, waiting, len(known)) | {"task": settings.task, "model": model, "rows": report["rows"]}
    if settings.dry_run:
        return {"status": "dry run", **facts, "findings": findings.as_json()}
    assert model is not None
    settled, counts = _ask(settings, endpoint, cache, waiting, len(known))
    record = {"version": 1, "task": settings.task, "model": model}
    by = Annotator(settings.annotator or model, record)
    lines = list(_write(task, asked, known | settled, by, findings))
    if not lines:
        raise EndpointError(f"nothing to write: no row got all replies that it needs; {describe_finding(findings.as_json()[0])}")
    summary = task.summarise(lines)
    for message in [*map(describe_finding, findings.as_json()), _describe(settings, summary, len(lines))]:
        write_line(message)
    write_new(settings.out, map(_as_line, lines))
    result = {
        "out": str(settings.out),
        "annotator": by.name,
        **facts,
        "written": len(lines),
        **counts,
        **summary,
        "findings": [shorten_finding(finding) for finding in findings.as_json()],
    }
    rest = {"prompt_sha256": hashlib.sha256(prompt.text.encode()).hexdigest(), "data": report, "settings": to_json(settings)}
    write_new(settings.summary, [json.dumps({**result, **rest}, indent=1) + "\n"])
    return result


def _make_task(settings: AnnotateSettings) -> AnnotationTask:
    aspects = tuple(dict.fromkeys(name.strip() for name in settings.aspects))
    tasks: Mapping[str, AnnotationTask] = {
        "spans": SpanTask(aspects),
        "edits": EditTask(settings.most_changed),
        "preference": PreferenceTask(),
        "rubric": RubricTask(aspects or USUAL, settings.scale),
    }
    return tasks[settings.task]


def _check_places(settings: AnnotateSettings, prompt: PromptTemplate) -> None:
    """UsageError for what was given and would reach the server in no form: a JSON Schema has it, other forms have the prompt alone."""
    given = {"aspects": settings.aspects != (), "scale": settings.scale != SCALE}
    lacking = [name for name, is_given in given.items() if is_given and name not in prompt.places]
    if lacking and settings.reply_form != "json-schema":
        name = lacking[0]
        raise UsageError(f"--{name}: with --reply-form {settings.reply_form} only the prompt can say it, and {prompt.file} has no place ${name}")


def _open_endpoint(settings: AnnotateSettings) -> Endpoint:
    """The server, after telling what is not read of the environment."""
    url = check_address(settings.by, settings.host)
    if settings.host is not None:
        when = "would be" if settings.dry_run else "are"
        write_line(f"prompts and answers {when} sent to {settings.host}" + ("" if url.startswith("https:") else ", unencrypted"))
        if named := [name for name in PROXIES if os.environ.get(name)]:
            write_line(f"{named[0]} is set and not used: requests go to {settings.host} directly")
    key = None if settings.dry_run else read_key(settings.key_env, os.environ, url)
    return Endpoint(url=url, key=key, timeout=settings.timeout)


async def _only_model(endpoint: Endpoint) -> str:
    """The name of the one model that the server lists."""
    try:
        async with open_chat(endpoint) as chat:
            names = await chat.list_models()
    except EndpointFailure as error:
        raise EndpointError(
            f"the server at {endpoint.url} does not list its models ({error.kind}: {error}); is it running? --model names one"
        ) from None
    if len(names) != 1:
        told = f"lists {len(names)} models ({', '.join(names[:5])})" if names else "lists no model"
        raise UsageError(f"the server at {endpoint.url} {told}; give --model NAME")
    return names[0]


def _inquire(task: AnnotationTask, rows: Sequence[tuple[int, Row]], findings: Findings) -> Iterator[tuple[int, Row, list[Inquiry]]]:
    for number, row in rows:
        try:
            inquiries = task.inquire(row)
        except NotAsked as reason:
            findings.drop(str(reason), number)
            continue
        if isinstance(task, PreferenceTask):
            for one, other in list_identical(row):
                findings.add("identical", number, "not compared", f"{one} and {other} have the same text")
        yield number, row, inquiries


def _make_questions(
    settings: AnnotateSettings, task: AnnotationTask, prompt: PromptTemplate, model: str | None, asked: Asked
) -> dict[str, ServerQuestion]:
    """By the inquiry's own texts; the same texts are asked once."""
    form: Json = {"temperature": settings.temperature, "max_tokens": settings.max_tokens}
    if settings.reply_form == "json-schema":
        form["response_format"] = {"type": "json_schema", "json_schema": {"name": settings.task, "schema": task.schema, "strict": True}}
    elif settings.reply_form == "json-object":
        form["response_format"] = {"type": "json_object"}
    server, questions = check_address(settings.by, settings.host), dict[str, ServerQuestion]()
    for _, _, inquiries in asked:
        for inquiry in inquiries:
            request = {"model": model, "messages": [{"role": "user", "content": prompt.fill(inquiry.texts)}], **form}
            questions.setdefault(_name(inquiry), ServerQuestion(request, inquiry.read, server))
    return questions


def _name(inquiry: Inquiry) -> str:
    return json.dumps(inquiry.texts, sort_keys=True)


def _estimate(settings: AnnotateSettings, prompt: PromptTemplate, waiting: Mapping[str, ServerQuestion], known: int) -> Json:
    """What the questions cost in tokens, told before the first one."""
    sizes = [math.ceil(len(one.request["messages"][0]["content"].encode("utf-8", "replace")) / BYTES_PER_TOKEN) for one in waiting.values()]
    write_line(
        f"{len(waiting)} questions to ask ({known} more were answered before): about {sum(sizes)} prompt tokens, at most "
        f"{len(sizes) * settings.max_tokens} tokens of replies; each question is tried at most {1 + settings.retries} times"
    )
    write_line(
        f"the prompt is {prompt.file}" + ("; copy and change it, and give --prompt COPY" if settings.prompt is None and settings.dry_run else "")
    )
    return {
        "questions": len(waiting) + known,
        "known": known,
        "estimated_prompt_tokens": sum(sizes),
        "most_reply_tokens": len(sizes) * settings.max_tokens,
        "most_tries": 1 + settings.retries,
        "prompt": str(prompt.file),
    }


def _ask(
    settings: AnnotateSettings, endpoint: Endpoint, cache: ReplyCache, waiting: Mapping[str, ServerQuestion], known: int
) -> tuple[dict[str, Settled], Json]:
    """How the questions ended; a stop says what is kept."""
    done, usable = 0, known
    with show_progress("annotate", "question", len(waiting)) as step:

        def tell(settled: Settled) -> None:
            nonlocal done, usable
            done, usable = done + 1, usable + (not settled.failure)
            step(done, f"{usable - known} usable")

        asker = Asker(endpoint, cache, retries=settings.retries, parallel=settings.parallel, tell=tell)

        def kept() -> str:
            return f"{usable} of {len(waiting) + known} replies are kept, and the same command goes on from there"

        try:
            settled = asker(waiting)
        except KeyboardInterrupt:
            raise Interrupted(f"stopped; {kept()}") from None
        except EndpointError as error:
            raise EndpointError(f"{error}; {kept()}") from None
    if not usable:
        kinds = Counter(f"{one.failure} ({one.words})" for one in settled.values())
        raise EndpointError(f"none of {len(settled)} questions got a usable reply: {kinds.most_common(1)[0][0]}")
    return settled, asker.counts.as_json()


def _write(task: AnnotationTask, asked: Asked, settled: Mapping[str, Settled], by: Annotator, findings: Findings) -> Iterator[Json]:
    """The rows in the order of the data; what a reply lacks, and questions without one, are counted with their rows."""
    for number, row, inquiries in asked:
        found = [settled[_name(inquiry)] for inquiry in inquiries]
        for one in found:
            for kind, words in one.notes:
                findings.add(kind, number, "kept" if kind == "span_ambiguous" else "ignored", words)
            if one.failure:
                findings.add(one.failure, number, task.unanswered, one.words)
        yield from task.write(row, [one.value for one in found], by)


def _describe(settings: AnnotateSettings, summary: Json, written: int) -> str:
    told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in summary.items() if value is not None)
    return f"{written} rows in {settings.out}: {told}"


def _as_line(line: Json) -> str:
    text = json.dumps(line, ensure_ascii=False)
    return (text if is_utf8(text) else json.dumps(line)) + "\n"
