// The page: draws one task, turns the pointer and the keyboard into changes of the work, and says what happened.
(() => {
  const by = (id) => document.getElementById(id);
  const data = JSON.parse(by("data").textContent);
  const hidden = new RegExp(data.hidden, "gu");
  const store = Store.open(data);
  const keys = data.tasks.map((task) => task.key);
  const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  const view = { selection: null, current: null };

  function make(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  // A button; `pressed` is undefined where it is none of a choice.
  function button(text, key, act, className, pressed) {
    const node = make("button", className, text);
    node.type = "button";
    if (key) node.append(" ", make("kbd", "", key));
    if (pressed !== undefined) node.setAttribute("aria-pressed", String(pressed));
    node.addEventListener("mousedown", (event) => event.preventDefault()); // keeps the selection
    node.addEventListener("click", act);
    return node;
  }

  const visible = (text) => text.replace(hidden, (sign) => (sign === "\r" ? "" : `⟦U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟧`));
  const clip = (text, most) => { const signs = Array.from(visible(text).replace(/\s+/g, " ")); return signs.length > most ? `${signs.slice(0, most - 1).join("")}…` : signs.join(""); };
  const task = () => data.tasks[keys.indexOf(store.at)];
  const work = () => store.of(store.at);
  const letter = (place) => LETTERS[place] || String(place + 1);
  const box = (place) => by("answers").children[place].querySelector(".answer-text");
  const say = (text) => { by("status").textContent = text; };
  const quote = (mark) => `“${clip(task().answers[mark.answer].text.slice(mark.start, mark.end), 40)}”`;
  const kind = (mark) => (mark.value > 0 ? "Good" : "Bad");

  function suggestions() {
    return task().answers.flatMap((answer, place) => (answer.suggestions || []).map((one) => ({
      ...one, name: `${place}:${one.start}:${one.end}:${one.value}`, answer: place, aspect: one.aspect || "", note: "",
      start: Texts.toUnits(answer.text, one.start), end: Texts.toUnits(answer.text, one.end),
    }))).filter((one) => !work().settled[one.name]);
  }

  const inOrder = (one, other) => one.answer - other.answer || one.start - other.start || one.end - other.end;
  const all = () => [...work().marks, ...suggestions()].sort(inOrder);
  const nameOf = (mark) => mark.name || `mark ${mark.id}`;
  const current = () => all().find((mark) => nameOf(mark) === view.current) || null;

  // ---- drawing

  function drawPrompt() {
    const place = by("prompt");
    if (task().turns) {
      place.replaceChildren(...task().turns.map(([role, text]) => {
        const turn = make("p", "turn");
        turn.dir = "auto";
        turn.append(make("b", "", visible(role)), visible(text));
        return turn;
      }));
    } else {
      place.replaceChildren(visible(task().prompt) || "(no prompt)");
      place.dir = "auto";
    }
    place.classList.remove("whole");
    by("whole").hidden = place.scrollHeight <= place.clientHeight + 4;
    by("whole").textContent = "Show the whole prompt";
    place.scrollTop = place.scrollHeight;
  }

  function drawAnswers() {
    by("answers").classList.toggle("even", task().answers.length % 2 === 0);
    by("answers").replaceChildren(...task().answers.map((answer, place) => {
      const card = make("article", "answer");
      const title = make("h3", "", task().answers.length > 1 ? `Answer ${letter(place)}` : "Answer");
      title.id = `answer-${place}`;
      title.append(make("span", "tag rank"));
      const text = make("div", "answer-text");
      text.place = place;
      text.contentEditable = "true"; // for the cursor and the keys that select; every change is refused below
      text.spellcheck = false;
      text.dir = "auto";
      for (const [name, value] of Object.entries({ role: "textbox", "aria-multiline": "true", "aria-readonly": "true", "aria-labelledby": title.id, inputmode: "none", autocapitalize: "off", translate: "no" })) text.setAttribute(name, value);
      card.append(title);
      if (answer.hidden) {
        const more = make("details");
        more.append(make("summary", "", "Reasoning and calls, which cannot be marked"), ...answer.hidden.map((one) => make("p", "turn", visible(one))));
        card.append(more);
      }
      card.append(text, make("ol", "marks"));
      return card;
    }));
  }

  function drawMarks() {
    const now = current();
    task().answers.forEach((answer, place) => {
      const text = box(place);
      const marks = all().filter((mark) => mark.answer === place)
        .map((mark) => ({ ...mark, look: `${mark.name ? "maybe-" : ""}${mark.value > 0 ? "good" : "bad"}${now && nameOf(mark) === nameOf(now) ? " now" : ""}` }));
      const focused = document.activeElement === text ? Texts.unitOf(text, getSelection().focusNode, getSelection().focusOffset) : null;
      Texts.draw(text, answer.text, marks, hidden);
      if (focused !== null) getSelection().collapse(...Texts.nodeAt(text, focused));
      text.nextSibling.replaceChildren(...marks.map(listed));
    });
  }

  function listed(mark) {
    const item = make("li");
    const choose = button("", "", () => { letGo(); view.current = nameOf(mark); draw(); focusList(); });
    const score = mark.score === undefined ? "" : `score ${mark.score}`;
    const more = [mark.aspect, mark.note, score, mark.annotator ? `by ${mark.annotator}` : ""].filter(Boolean).map(visible).join(" · ");
    choose.append(make("span", `kind is-${mark.value > 0 ? "good" : "bad"}`, mark.name ? `${kind(mark)}?` : kind(mark)), make("span", "quote", quote(mark)), make("span", "more", more));
    choose.setAttribute("aria-current", String(view.current === nameOf(mark)));
    item.append(choose);
    return item;
  }

  function focusList() {
    const chosen = document.querySelector('.marks [aria-current="true"]');
    if (chosen) chosen.focus({ preventScroll: true });
  }

  function drawPreference() {
    const count = task().answers.length;
    const { order, equal } = work();
    by("preference").hidden = count < 2;
    by("preference-h").textContent = count > 2 && order.length && !equal && order.length < count - 1 ? "Which is the next best?" : "Which answer is better?";
    by("choices").replaceChildren(
      ...task().answers.map((_, place) => button(count > 2 && order.includes(place) ? `${letter(place)}: place ${order.indexOf(place) + 1}` : letter(place), `⇧${letter(place)}`, () => prefer(place), "", order.includes(place))),
      button(order.length ? "The others are equal" : "Equal", "=", () => preferEqual(), "", equal),
    );
    if (count === 2) by("choices").children[2].firstChild.textContent = "Equal";
    by("ranking").textContent = !order.length && !equal ? (task().pairs ? "Not compared yet: the preference of the data stays." : "Not compared yet.") : "";
    task().answers.forEach((_, place) => {
      const card = by("answers").children[place];
      card.classList.toggle("best", order[0] === place);
      const rank = card.querySelector(".rank");
      rank.hidden = !order.includes(place) && !equal;
      rank.textContent = order.includes(place) ? (count === 2 ? "better" : `place ${order.indexOf(place) + 1}`) : equal ? "equal" : "";
    });
  }

  function aspects(mark, act) {
    const group = make("span", "group");
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", "Aspect");
    store.aspects.forEach((name, i) => group.append(button(clip(name, 24), i < 9 ? String(i + 1) : "", () => act(name), "", mark ? mark.aspect === name : undefined)));
    const other = make("input");
    Object.assign(other, { id: "aspect", placeholder: "new aspect", size: 10, maxLength: 60 });
    other.setAttribute("aria-label", "New aspect");
    other.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !other.value.trim()) return;
      event.preventDefault();
      const name = other.value.trim();
      if (!store.aspects.includes(name)) store.aspects.push(name);
      act(name);
    });
    group.append(other);
    return group;
  }

  function drawDock() {
    const now = current();
    const done = button(work().done ? "Done ✓, next" : "Done, next", "Enter", finish, "main push");
    const row = (...parts) => { const made = make("div", "row"); made.append(...parts); return made; };
    const verdict = (value) => [button("Good", "g", () => judge(1), "is-good", value === undefined ? undefined : value > 0), button("Bad", "b", () => judge(-1), "is-bad", value === undefined ? undefined : value < 0)];
    if (view.selection) {
      const move = now ? [button("Move the current mark here", "", () => edit({ ...view.selection }, "Moved"))] : [];
      by("dock").replaceChildren(row(make("span", "said", quote(view.selection)), ...verdict(), ...move, done), row(aspects(null, setAspect)));
    } else if (now) {
      const own = now.name ? [button("Accept", "y", accept, "main"), button("Reject", "x", remove)] : [button("Remove", "x", remove)];
      by("dock").replaceChildren(row(make("span", "said", quote(now)), ...(now.name ? own : []), ...verdict(now.value), ...(now.name ? [] : own), done), row(aspects(now, setAspect), noteField(now), range()));
    } else {
      const left = suggestions().length;
      const hint = left ? `${left} suggestion${left > 1 ? "s" : ""} (dashed): go through with ], or settle all at once.` : "Select words of an answer, then press g for good or b for bad.";
      const all = left ? [button("Next suggestion", "]", () => step(1)), button("Accept all", "Y", () => settleAll("accepted")), button("Reject all", "X", () => settleAll("rejected"))] : [];
      by("dock").replaceChildren(row(make("span", "hint", hint), done), row(...all));
    }
  }

  function noteField(mark) {
    const note = make("input");
    Object.assign(note, { id: "note", value: mark.note, placeholder: "note", size: 18, maxLength: 500 });
    note.setAttribute("aria-label", "Note on the mark");
    note.addEventListener("change", () => { if (note.value.trim() !== mark.note) edit({ note: note.value.trim() }, "Noted"); });
    note.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== "Escape") return;
      event.preventDefault();
      event.stopPropagation();
      note.blur();
      back();
    });
    return note;
  }

  function range() {
    const group = make("span", "group");
    for (const [side, less, more] of [["start", "<", ">"], ["end", ",", "."]]) {
      const ends = [["‹", less, -1, "earlier"], ["›", more, 1, "later"]].map(([text, key, step, where]) => {
        const one = button(text, key, () => nudge(side, step));
        one.setAttribute("aria-label", `${side === "start" ? "Start" : "End"} a word ${where}`);
        return one;
      });
      group.append(make("span", "hint", side), ...ends);
    }
    return group;
  }

  function drawHead() {
    const { done, begun, all: count } = store.counts();
    by("progress").value = done;
    by("counts").textContent = `${done} of ${count} done${begun ? `, ${begun} begun` : ""}${store.changes > store.exported ? " · not exported yet" : store.exported ? " · exported" : ""}`;
    by("number").value = keys.indexOf(store.at) + 1;
    by("state").textContent = work().done ? "done" : store.begun(work()) ? "begun" : "not begun";
    by("previous").disabled = store.at === keys[0];
    by("next").disabled = store.at === keys[keys.length - 1];
    by("undo").disabled = !store.past.length;
    by("redo").disabled = !store.future.length;
    if (document.activeElement !== by("annotator")) by("annotator").value = store.annotator;
    const lost = store.keeps ? (store.trouble === "unreadable" ? "What this browser had kept of this page cannot be read; the page starts anew. Import your last export to go on." : "")
      : `This browser does not keep your work (${store.trouble}). Export before you close the page, and import that file to go on.`;
    by("warning").textContent = lost;
    by("warning").hidden = !lost;
  }

  function draw(anew = false) {
    if (anew) { drawPrompt(); drawAnswers(); }
    drawMarks();
    drawPreference();
    drawDock();
    drawHead();
  }

  // ---- changes

  function change(made, words) {
    const active = document.activeElement && document.activeElement.id;
    store.change({ [store.at]: { ...work(), ...made } });
    draw();
    if (active === "note" || active === "aspect") back();
    say(words);
  }

  const newMark = (mark) => ({ id: Math.max(0, ...work().marks.map((one) => one.id)) + 1, answer: mark.answer, start: mark.start, end: mark.end, value: mark.value, aspect: mark.aspect || "", note: mark.note || "" });

  function addMark(value, aspect) {
    const mark = newMark({ ...view.selection, value, aspect });
    view.current = nameOf(mark);
    const words = `${kind(mark)}${aspect ? ` (${aspect})` : ""}: ${quote(mark)}`;
    letGo();
    change({ marks: [...work().marks, mark] }, words);
  }

  // Lets the selection go; the cursor stays at its end.
  function letGo() {
    const { selection } = view;
    view.selection = null;
    if (selection && getSelection().rangeCount && box(selection.answer).contains(getSelection().anchorNode)) getSelection().collapse(...Texts.nodeAt(box(selection.answer), selection.end));
  }

  function edit(parts, words) {
    const now = current();
    if (!now) return;
    const mark = now.name ? { ...newMark(now), ...parts } : { ...now, ...parts };
    if (parts.start !== undefined) letGo();
    const marks = now.name ? [...work().marks, mark] : work().marks.map((one) => (one.id === now.id ? mark : one));
    view.current = nameOf(mark);
    change({ marks, ...(now.name ? { settled: { ...work().settled, [now.name]: "accepted" } } : {}) }, `${words}: ${kind(mark)} ${quote(mark)}`);
  }

  function judge(value) {
    if (view.selection) addMark(value, "");
    else if (current()) edit(Math.sign(current().value) === value ? {} : { value }, "Marked");
    else say("Select words of an answer first.");
  }

  function setAspect(name) {
    if (view.selection) addMark(-1, name);
    else if (current()) edit({ aspect: current().aspect === name ? "" : name }, "Aspect");
    else say("Select words of an answer first.");
  }

  function nudge(side, step) {
    const now = current();
    if (!now) return;
    const range = Texts.nudge(task().answers[now.answer].text, now.start, now.end, side, step);
    if (range) edit({ start: range[0], end: range[1] }, "Moved");
  }

  function accept() {
    if (current() && current().name) edit({}, "Accepted");
    else say("There is no current suggestion; ] goes to the next one.");
    if (suggestions().length) step(1);
  }

  function remove() {
    const now = current();
    if (!now) return;
    const words = `${now.name ? "Rejected" : "Removed"}: ${kind(now)} ${quote(now)}`;
    const before = all().filter((one) => one.name);
    view.current = null;
    if (now.name) {
      const next = before[before.findIndex((one) => one.name === now.name) + 1] || before.find((one) => one.name !== now.name);
      if (next) view.current = next.name;
      change({ settled: { ...work().settled, [now.name]: "rejected" } }, words);
    } else change({ marks: work().marks.filter((one) => one.id !== now.id) }, words);
  }

  function settleAll(what) {
    const left = suggestions();
    if (!left.length) return say("There are no suggestions left.");
    let id = Math.max(0, ...work().marks.map((one) => one.id));
    const marks = what === "accepted" ? left.map((one) => ({ ...newMark(one), id: ++id })) : [];
    view.current = null;
    change({ marks: [...work().marks, ...marks], settled: { ...work().settled, ...Object.fromEntries(left.map((one) => [one.name, what])) } }, `${left.length} suggestions ${what}.`);
  }

  function prefer(place) {
    const { order } = work();
    const count = task().answers.length;
    const next = order.includes(place) ? order.filter((one) => one !== place) : count === 2 ? [place] : [...order, place];
    change({ order: next, equal: false }, !next.length ? "No preference." : count === 2 ? `Answer ${letter(place)} is better.` : `Order: ${next.map(letter).join(", ")}${next.length < count ? ", then the others" : ""}.`);
  }

  function preferEqual() {
    const { equal, order } = work();
    const kept = task().answers.length === 2 ? [] : order;
    change({ equal: !equal, order: kept }, equal ? "No preference." : kept.length ? "The others are equal." : "Equal.");
  }

  function finish() {
    const left = suggestions();
    if (left.length) {
      letGo();
      view.current = left[0].name;
      draw();
      return say(`${left.length} suggestion${left.length > 1 ? "s are" : " is"} undecided: accept (y) or reject (x) each, or all with Y or X. Then Done.`);
    }
    if (!work().done) store.change({ [store.at]: { ...work(), done: true } });
    const next = nextUnfinished();
    if (next === null) { draw(); return say("Every prompt is done. Export your work."); }
    go(next);
    say(`Done. Prompt ${keys.indexOf(store.at) + 1} of ${keys.length}.`);
  }

  function nextUnfinished() {
    const at = keys.indexOf(store.at);
    return [...keys.slice(at + 1), ...keys.slice(0, at)].find((key) => !store.of(key).done) ?? null;
  }

  // ---- moving

  function go(key) {
    if (key === undefined || key === null || !keys.includes(key)) return;
    store.at = key;
    store.keep();
    view.selection = view.current = null;
    getSelection().removeAllRanges();
    draw(true);
    window.scrollTo(0, 0);
    box(0).focus({ preventScroll: true });
    getSelection().collapse(...Texts.nodeAt(box(0), 0));
  }

  function step(direction) {
    const marks = all();
    if (!marks.length) return say("Nothing is marked or suggested here.");
    const undecided = marks.filter((one) => one.name);
    const pool = !current() && direction > 0 && undecided.length ? undecided : marks;
    const at = pool.findIndex((one) => nameOf(one) === view.current);
    const next = pool[(at + direction + pool.length) % pool.length] || pool[0];
    letGo();
    view.current = nameOf(at < 0 && direction < 0 ? pool[pool.length - 1] : next);
    draw();
    const piece = document.querySelector(".answer-text .now");
    if (piece) piece.scrollIntoView({ block: "nearest" });
    say(`${current().name ? "Suggested" : "Marked"}: ${kind(current())} ${quote(current())}${current().aspect ? `, ${current().aspect}` : ""}`);
  }

  // Back from a field to the text, so that the keys work again.
  function back() {
    const now = current();
    box(now ? now.answer : 0).focus({ preventScroll: true });
  }

  function travel(where, nothing) {
    const key = store[where]();
    if (key === null) return say(nothing);
    const moved = key !== store.at;
    if (moved) go(key);
    letGo();
    draw();
    say(where === "undo" ? "Undone." : "Redone.");
  }

  // ---- files

  function download(rows, name) {
    if (!rows) return say("There is nothing to export yet.");
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([rows], { type: "application/x-ndjson" }));
    link.download = name;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }

  const fileName = (kind) => `${[data.name, store.annotator, kind].filter(Boolean).join("-").replace(/[^\p{L}\p{N}._-]+/gu, "_").slice(0, 80)}.jsonl`;

  function exportWork() {
    const rows = store.exportRows(data.form);
    download(rows, fileName(""));
    if (!rows) return;
    store.exported = store.changes;
    store.keep();
    drawHead();
    const { begun } = store.counts();
    const undone = begun ? ` ${begun} prompt${begun > 1 ? "s are" : " is"} begun and not done: what you have marked there is in the file.` : "";
    say(`Exported ${rows.split("\n").length - 1} rows.${undone}${store.annotator ? "" : " They carry no name: type yours at the top, so that the marks of several people can be told apart."}`);
  }

  async function importFile(file) {
    const found = store.importRows(await file.text());
    view.selection = view.current = null;
    draw(true);
    const few = (names) => `${[...names].slice(0, 5).join(", ")}${names.size > 5 ? " …" : ""}`;
    const others = [...found.people].filter((name) => name !== store.annotator);
    say([
      `Imported the marks of ${found.taken.size} answers from ${clip(file.name, 60)}.`,
      found.differs.size ? `${found.differs.size} answers have another text on this page and were left out: ${few(found.differs)}.` : "",
      found.elsewhere.size ? `${found.elsewhere.size} answers are not on this page and were left out: ${few(found.elsewhere)}.` : "",
      found.unreadable ? `${found.unreadable} lines are no rows of one person's export of such a page.` : "",
      others.length && found.taken.size ? `They were made by ${few(new Set(others))} and will be exported under your name.` : "",
      found.taken.size ? "Undo takes the import back." : "",
    ].filter(Boolean).join(" "));
  }

  // ---- pointer and keyboard

  // Takes over what is selected in an answer; a selection elsewhere (in a field) changes nothing.
  function look() {
    const chosen = getSelection();
    const text = chosen.anchorNode && (chosen.anchorNode.nodeType === Node.ELEMENT_NODE ? chosen.anchorNode : chosen.anchorNode.parentNode).closest(".answer-text");
    if (!text) return;
    const ends = [Texts.unitOf(text, chosen.anchorNode, chosen.anchorOffset), Texts.unitOf(text, chosen.focusNode, chosen.focusOffset)];
    if (ends.includes(null)) return;
    const range = ends[0] === ends[1] ? null : Texts.snap(task().answers[text.place].text, ends[0], ends[1], store.options.words);
    const was = view.selection;
    view.selection = range && { answer: text.place, start: range[0], end: range[1] };
    if (view.selection || was) drawDock();
  }

  document.addEventListener("selectionchange", look);

  by("answers").addEventListener("click", (event) => {
    const piece = event.target.closest(".answer-text > span");
    if (!piece || !getSelection().isCollapsed) return;
    const found = piece.marks.reduce((best, one) => (!best || one.end - one.start < best.end - best.start ? one : best), null);
    if (!found && !view.current) return;
    view.current = found ? nameOf(found) : null;
    draw();
  });

  for (const kind of ["beforeinput", "paste", "cut", "drop", "dragover"]) by("answers").addEventListener(kind, (event) => { if (event.target.closest(".answer-text")) event.preventDefault(); });
  for (const kind of ["compositionend", "input"]) by("answers").addEventListener(kind, (event) => { if (event.target.closest(".answer-text")) drawMarks(); });

  const ACTS = {
    g: () => judge(1), b: () => judge(-1), n: () => { if (by("note")) by("note").focus(); else say("A note belongs to a mark: choose one first."); },
    x: remove, Delete: remove, Backspace: remove, y: accept, Y: () => settleAll("accepted"), X: () => settleAll("rejected"),
    "[": () => step(-1), "]": () => step(1), "<": () => nudge("start", -1), ">": () => nudge("start", 1), ",": () => nudge("end", -1), ".": () => nudge("end", 1),
    "=": () => { if (task().answers.length > 1) preferEqual(); }, Enter: finish, j: () => go(keys[keys.indexOf(store.at) + 1]), k: () => go(keys[keys.indexOf(store.at) - 1]), u: () => go(nextUnfinished()),
    z: () => travel("undo", "Nothing to undo."), Z: () => travel("redo", "Nothing to redo."), e: exportWork, "?": () => by("keys").showModal(),
    Escape: () => { letGo(); view.current = null; draw(); },
  };

  // The letter on a keyboard of another script, by the place of its key.
  const keyOf = (event) => (/^Key[A-Z]$/.test(event.code) && !/^[\x20-\x7e]$/.test(event.key) ? (event.shiftKey ? event.code[3] : event.code[3].toLowerCase()) : event.key);

  document.addEventListener("keydown", (event) => {
    const field = event.target.closest("input, select, textarea, dialog");
    const key = keyOf(event);
    if ((event.ctrlKey || event.metaKey) && !event.altKey && !field && ["z", "y", "Z"].includes(key)) {
      event.preventDefault();
      return key === "z" && !event.shiftKey ? ACTS.z() : ACTS.Z();
    }
    if (field || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const pressing = event.target.closest("button, a, summary, label");
    if (pressing && (key === "Enter" || key === " ")) return;
    if (!store.options.letters && !["Enter", "Delete", "Backspace", "Escape"].includes(key)) return;
    const place = key.length === 1 && event.shiftKey && !(key in ACTS) ? LETTERS.indexOf(key) : -1;
    const aspect = /^[1-9]$/.test(key) ? store.aspects[Number(key) - 1] : undefined;
    const act = ACTS[key] || (place >= 0 && place < task().answers.length && task().answers.length > 1 ? () => prefer(place) : aspect !== undefined ? () => setAspect(aspect) : null);
    if (!act) return;
    event.preventDefault();
    look();
    act();
  });

  const press = { undo: ACTS.z, redo: ACTS.Z, help: ACTS["?"], export: exportWork, previous: ACTS.k, next: ACTS.j, unfinished: ACTS.u, pairs: () => download(store.exportRows("pairs"), fileName("pairs")) };
  for (const [id, act] of Object.entries(press)) by(id).addEventListener("click", act);
  by("whole").addEventListener("click", () => { by("whole").textContent = by("prompt").classList.toggle("whole") ? "Show less" : "Show the whole prompt"; });
  for (const name of ["letters", "words"]) {
    by(name).checked = Boolean(store.options[name]);
    by(name).addEventListener("change", () => { store.options[name] = by(name).checked; store.keep(); });
  }
  by("number").addEventListener("change", () => go(keys[Math.max(1, Math.min(keys.length, Math.round(by("number").valueAsNumber) || 1)) - 1]));
  by("annotator").addEventListener("input", () => { store.annotator = by("annotator").value.trim(); store.keep(); drawHead(); });
  by("import").addEventListener("change", async () => { const [file] = by("import").files; if (file) await importFile(file); by("import").value = ""; });
  by("pairs").hidden = data.form === "pairs" || !data.tasks.some((one) => one.answers.length > 1);
  window.addEventListener("beforeunload", (event) => { if (!store.keeps && store.changes > store.exported) event.preventDefault(); });
  store.onElsewhere = () => { view.selection = view.current = null; draw(true); say("This page is open a second time; what was done there is shown here."); };
  if (!store.of(store.at).done || nextUnfinished() === null) draw(true);
  else go(nextUnfinished());
})();
