"use strict";
(() => {
  const source = document.getElementById("data");
  const list = document.getElementById("list");
  if (!source || !list) return;
  const runs = JSON.parse(source.textContent).runs;
  const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const MISSING = 64 * 64 - 1;
  const SIGNALS = {
    ratio: { name: "log-ratio (after − reference)", unit: "nats", signed: true },
    weight: { name: "credit weight", unit: "", signed: false },
    segment: { name: "segment score", unit: "", signed: true },
    reward: { name: "token reward", unit: "", signed: true },
    std: { name: "standard deviation of the token reward", unit: "", signed: false },
    advantage: { name: "advantage", unit: "", signed: true },
    kl: { name: "KL to the reference", unit: "nats", signed: true },
    pull: { name: "share of the row's gradient before training (+ raises the token)", unit: "%", signed: true },
    after: { name: "log-probability after", unit: "nats", signed: true },
    before: { name: "log-probability before", unit: "nats", signed: true },
  };
  const KEYS = [
    ["chosen", 1, 1, "chosen answer fell most"], ["answer", 3, 1, "answer fell most"], ["margin-low", 0, 1, "smallest margin"],
    ["margin-high", 0, -1, "largest margin"], ["rejected", 2, 1, "rejected answer fell most"],
    ["wrong", 5, 1, "most confidently wrong"], ["right", 5, -1, "most confidently right"], ["unsure", 6, -1, "largest standard deviation"],
    ["disagree", 4, -1, "most disagreement with the marks"],
    ["gold-fell", 10, 1, "gold fell most"], ["gold-rose", 10, -1, "gold rose most"],
    ["reward-rose", 11, -1, "reward rose most"], ["reward-fell", 11, 1, "reward fell most"],
    ["spread", 13, 1, "spread over the run"], ["late", 12, -1, "latest buffer"], ["early", 12, 1, "earliest buffer"],
  ];
  const FACTS = [
    ["margin gained", "nats", true], ["chosen change", "nats", true], ["rejected change", "nats", true], ["change", "nats", true],
    ["disagreement with marks", "", false], ["score difference", "", true], ["its standard deviation", "", false],
    ["score of chosen", "", true], ["score of rejected", "", true], ["score", "", true],
    ["gold, last minus first", "", true], ["rewards, last minus first", "", true],
  ];
  const known = (value) => value !== null && value !== undefined;
  const by = (id) => document.getElementById(id);
  const digit = (text, at) => DIGITS.indexOf(text[at]);
  const mixed = new Set(runs.flatMap((run) => run.pairs.map((pair) => pair.h))).size > 1;
  const state = { run: 0, signal: "", sort: "row", part: "all", shown: 10, first: null };

  function make(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  function unpack(packed, count) {
    if (typeof packed === "number") return new Array(count).fill(packed);
    return Array.from({ length: count }, (_, i) => {
      const code = digit(packed.v, 2 * i) * 64 + digit(packed.v, 2 * i + 1);
      return code === MISSING ? NaN : packed.l + code * packed.s;
    });
  }

  function decode(answer) {
    if (answer.decoded) return answer.decoded;
    const pieces = [];
    let at = 0;
    for (let i = 0; i < answer.w.length; i++) {
      let size = digit(answer.w, i);
      if (size === 63) {
        size = digit(answer.w, i + 1) * 4096 + digit(answer.w, i + 2) * 64 + digit(answer.w, i + 3);
        i += 3;
      }
      pieces.push(answer.t.slice(at, at + size));
      at += size;
    }
    const signals = {};
    for (const [name, packed] of Object.entries(answer.s)) signals[name] = unpack(packed, pieces.length);
    if (signals.ratio && signals.after) signals.before = signals.after.map((value, i) => value - signals.ratio[i]);
    const marks = (found) => {
      const values = new Array(pieces.length).fill(null);
      for (const [first, last, value] of found || []) values.fill(value, first, last + 1);
      return values;
    };
    const mask = answer.m ? Array.from(answer.m, (sign) => sign === "1") : new Array(pieces.length).fill(true);
    return (answer.decoded = { pieces, signals, mask, spans: marks(answer.u), said: answer.l || [], truth: marks(answer.q), cuts: answer.g || "" });
  }

  function written(value, signed) {
    if (!Number.isFinite(value)) return "unknown";
    const size = Math.abs(value);
    const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 0.1 || size === 0 ? 2 : size >= 0.01 ? 3 : 4;
    const text = Math.abs(value).toFixed(digits);
    const zero = Number(text) === 0;
    return (zero ? "" : value < 0 ? "−" : signed ? "+" : "") + text;
  }

  const scales = {};
  function scale(name) {
    if (scales[name]) return scales[name];
    const sizes = [];
    for (const run of runs) for (const pair of run.pairs) for (const answer of pair.a) {
      const token = decode(answer);
      (token.signals[name] || []).forEach((value, i) => { if (token.mask[i] && Number.isFinite(value)) sizes.push(Math.abs(value)); });
    }
    sizes.sort((a, b) => a - b);
    return (scales[name] = sizes.length ? sizes[Math.floor(0.98 * (sizes.length - 1))] || sizes[sizes.length - 1] || 1 : 1);
  }

  const BOUNDS = [0.06, 0.2, 0.4, 0.6, 0.8];
  function level(value, top) {
    const size = Math.abs(value) / top;
    let found = 0;
    while (found < BOUNDS.length && size >= BOUNDS[found]) found++;
    return found;
  }

  let spread = null;
  function deviations() {
    if (spread) return spread;
    const found = [];
    for (const run of runs) for (const pair of run.pairs) for (const answer of pair.a) {
      const token = decode(answer);
      (token.signals.std || []).forEach((value, i) => { if (token.mask[i] && value > 0) found.push(value); });
    }
    found.sort((a, b) => a - b);
    const at = (share) => found[Math.floor(share * (found.length - 1))];
    const even = !found.length || at(0.98) - at(0.02) < 0.25 * at(0.5);
    return (spread = { some: found.length > 0, middle: at(0.5), bounds: even ? [] : [at(0.75), at(0.9), at(0.97)] });
  }
  const spreads = (name) => name === "reward" || name === "weight";
  const doubtful = (value) => deviations().bounds.filter((bound) => value >= bound).length;

  function dress(node, token, i) {
    const values = token.signals[state.signal];
    const value = values ? values[i] : NaN;
    const names = ["tok"];
    if (!token.mask[i]) names.push("off");
    else if (Number.isFinite(value)) {
      const found = level(value, scale(state.signal));
      if (found) names.push((value < 0 ? "n" : "p") + found);
      if (state.signal === "weight" && value === 0) names.push("zero");
      const doubt = spreads(state.signal) && token.signals.std ? doubtful(token.signals.std[i]) : 0;
      if (doubt) names.push("u" + doubt);
    }
    if (token.cuts[i] === "1") names.push("cut");
    if (token.spans[i]) names.push(token.spans[i] < 0 ? "mark-bad" : "mark-good");
    if (token.truth[i]) names.push(token.truth[i] < 0 ? "true-bad" : "true-good");
    node.className = names.join(" ");
    node.dataset.n = token.mask[i] && values ? written(value, SIGNALS[state.signal].signed) : "·";
  }

  function shownPiece(piece) {
    if (piece === "") return "∎";
    return piece.replace(/\n/g, "⏎\n").replace(/\t/g, "⇥\t");
  }

  function tokens(answer, label) {
    const token = decode(answer);
    const box = make("div", "tokens");
    box.tabIndex = 0;
    box.dir = "auto";
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", label + ", token by token");
    box.setAttribute("aria-describedby", "keys");
    token.pieces.forEach((piece, i) => {
      const node = make("span", "tok", shownPiece(piece));
      dress(node, token, i);
      box.append(node);
    });
    if (answer.x) box.append(make("span", "rest", " [not read by the model:] " + answer.x));
    box.token = token;
    box.at = -1;
    return box;
  }

  function numbersOf(pair) {
    const box = make("dl", "facts");
    pair.k.forEach((value, i) => {
      if (!known(value) || !FACTS[i]) return;
      const entry = make("div");
      const [name, unit, signed] = FACTS[i];
      entry.append(make("dt", "", name), make("dd", "", written(value, signed) + (unit ? " " + unit : "")));
      box.append(entry);
    });
    return box;
  }

  function told(answer) {
    const box = make("dl", "facts");
    for (const [name, value] of answer.f) {
      const entry = make("div");
      entry.append(make("dt", "", name), make("dd", "", value));
      box.append(entry);
    }
    if (answer.e) box.append(make("div", "ended" + (answer.cut ? " is-cut" : ""), answer.e));
    return box;
  }

  function card(pair) {
    const node = make("article", "pair");
    node.tabIndex = -1;
    const title = make("h3", "", "Row " + pair.r);
    if (mixed) title.append(make("span", "tag", pair.h ? "held out" : "training"));
    if (pair.e) title.append(make("span", "tag", "labelled a tie"));
    for (const words of pair.d || []) title.append(make("span", "tag", words));
    if (known(pair.k[5]) && !pair.e) {
      const chance = 1 / (1 + Math.exp(-pair.k[5]));
      title.append(make("span", "tag", `${pair.k[5] > 0 ? "right" : pair.k[5] < 0 ? "wrong" : "undecided"}: the label has ${(100 * chance).toPrecision(3)} %`));
    }
    if (pair.y !== undefined) title.append(make("span", "tag", pair.y > 0.5 ? "labelled good" : "labelled bad"));
    node.append(title);
    if (runs.length === 1) node.append(numbersOf(pair));
    const prompt = make("details");
    const text = make("div", "text prompt", pair.p);
    text.dir = "auto";
    prompt.open = known(pair.k[12]) && pair.p.length <= 300;
    prompt.append(make("summary", "", "Prompt"), text);
    node.append(prompt);
    runs.forEach((run, place) => {
      const same = place === state.run ? pair : run.pairs.find((other) => other.r === pair.r && other.p === pair.p);
      if (!same) return;
      if (runs.length > 1) node.append(make("h4", "runhead", "run " + run.name), numbersOf(same));
      const two = make("div", "two");
      for (const answer of same.a) {
        const part = make("section");
        const label = answer.n + (runs.length > 1 ? " of " + run.name : "") + ", row " + pair.r;
        part.setAttribute("aria-label", label);
        part.append(make("h4", "", answer.n), tokens(answer, label));
        if (answer.f) part.append(told(answer));
        two.append(part);
      }
      node.append(two);
    });
    return node;
  }

  function ordered() {
    let pairs = runs[state.run].pairs.filter((pair) => state.part === "all" || String(pair.h) === state.part);
    const key = KEYS.find((entry) => entry[0] === state.sort);
    const worth = (pair) => (key ? (!known(pair.k[key[1]]) ? Infinity : key[2] * pair.k[key[1]]) : pair.r);
    pairs = [...pairs].sort((a, b) => worth(a) - worth(b) || a.r - b.r);
    if (state.first !== null) pairs.sort((a, b) => (b.r === state.first) - (a.r === state.first));
    return pairs;
  }

  function draw() {
    hide();
    const pairs = ordered();
    list.replaceChildren(...pairs.slice(0, state.shown).map(card));
    by("count").textContent = pairs.length ? `${Math.min(state.shown, pairs.length)} of ${pairs.length} shown` : "No rows of this kind.";
    by("more").hidden = state.shown >= pairs.length;
  }

  function legend() {
    const { name, unit, signed } = SIGNALS[state.signal];
    const top = scale(state.signal);
    const strip = make("span", "swatches");
    const add = (className, text) => strip.append(make("span", "tok " + className, text));
    if (signed) [5, 3, 1].forEach((i) => add("n" + i, "≤ " + written(-top * BOUNDS[i - 1], true)));
    add(state.signal === "weight" ? "zero" : "", state.signal === "weight" ? "0 dropped" : "0");
    if (state.signal !== "after" && state.signal !== "before") [1, 3, 5].forEach((i) => add("p" + i, "≥ " + written(top * BOUNDS[i - 1], signed)));
    const has = (key) => runs.some((run) => run.pairs.some((pair) => pair.a.some((answer) => answer[key])));
    const parts = [make("span", "", name + (unit ? ", " + unit : "") + ":"), strip];
    if (spreads(state.signal) && deviations().some) {
      const { middle, bounds } = deviations();
      if (!bounds.length) parts.push(make("span", "", `standard deviation about ${written(middle)} everywhere: no shading`));
      else parts.push(make("span", "", "hatched where unsure, standard deviation:"), ...bounds.map((bound, i) => make("span", "tok p3 u" + (i + 1), "≥ " + written(bound))));
    }
    if (has("g")) parts.push(make("span", "tok cut", "a segment begins"));
    if (has("u")) parts.push(make("span", "tok mark-bad", "marked bad"), make("span", "tok mark-good", "marked good"));
    if (has("q")) parts.push(make("span", "tok true-bad", "truly bad"), make("span", "tok true-good", "truly good"));
    if (has("m")) parts.push(make("span", "tok off", "not trained"));
    parts.push(make("span", "", "∎ end of answer, or a token without characters"));
    by("legend").replaceChildren(...parts);
  }

  const tip = by("tip");
  let current = null;
  function hide() {
    tip.hidden = true;
    if (current) current.classList.remove("now");
    current = null;
  }
  function show(box, i) {
    hide();
    const node = box.children[i];
    const token = box.token;
    if (!node || i >= token.pieces.length) return;
    current = node;
    node.classList.add("now");
    const table = make("dl");
    const say = (name, value) => table.append(make("dt", "", name), make("dd", "", value));
    for (const [name, { name: words, unit, signed }] of Object.entries(SIGNALS)) {
      if (token.signals[name] && (token.mask[i] || name === "reward")) say(words, written(token.signals[name][i], signed) + (unit ? " " + unit : ""));
    }
    if (!token.mask[i]) say("trained", "no");
    if (token.spans[i] !== null) say("people marked", written(token.spans[i], true));
    for (const [first, last, words] of token.said) if (first <= i && i <= last) say("one mark", words);
    if (token.truth[i] !== null) say("planted truth", written(token.truth[i], true));
    tip.replaceChildren(make("b", "", `${i + 1}: ${shownPiece(token.pieces[i])}`), table);
    tip.hidden = false;
    const place = node.getBoundingClientRect();
    const below = place.bottom + 6 + tip.offsetHeight < window.innerHeight;
    tip.style.left = Math.max(4, Math.min(place.left, document.documentElement.clientWidth - tip.offsetWidth - 4)) + "px";
    tip.style.top = (below ? place.bottom + 6 : Math.max(4, place.top - tip.offsetHeight - 6)) + "px";
  }

  list.addEventListener("mouseover", (event) => {
    const box = event.target.closest(".tokens");
    if (box && event.target.classList.contains("tok")) show(box, Array.prototype.indexOf.call(box.children, event.target));
  });
  list.addEventListener("mouseleave", hide);
  list.addEventListener("focusin", (event) => {
    const box = event.target.closest(".tokens");
    if (box && box === event.target && box.matches(":focus-visible")) show(box, (box.at = Math.max(0, box.at)));
  });
  list.addEventListener("focusout", hide);
  list.addEventListener("keydown", (event) => {
    const box = event.target.closest(".tokens");
    if (!box || event.target !== box || event.ctrlKey || event.altKey || event.metaKey) return;
    const count = box.token.pieces.length;
    const moves = { ArrowRight: box.at + 1, ArrowLeft: box.at - 1, ArrowDown: box.at + 10, ArrowUp: box.at - 10, Home: 0, End: count - 1 };
    if (event.key === "Escape") return hide();
    if (!(event.key in moves)) return;
    event.preventDefault();
    box.at = Math.max(0, Math.min(count - 1, moves[event.key]));
    box.children[box.at].scrollIntoView({ block: "nearest" });
    show(box, box.at);
  });
  window.addEventListener("scroll", () => { if (current && !document.activeElement.classList.contains("tokens")) hide(); }, { passive: true });

  function options(select, entries) {
    select.replaceChildren(...entries.map(([value, text]) => {
      const option = make("option", "", text);
      option.value = value;
      return option;
    }));
  }
  const present = (name) => runs.some((run) => run.pairs.some((pair) => pair.a.some((answer) => answer.s[name] !== undefined || (name === "before" && answer.s.ratio !== undefined))));
  const signals = Object.keys(SIGNALS).filter(present);
  const keys = KEYS.filter(([, place]) => runs.some((run) => run.pairs.some((pair) => known(pair.k[place]))));
  by("part").closest("label").hidden = !mixed;
  options(by("signal"), signals.map((name) => [name, SIGNALS[name].name]));
  options(by("sort"), [...keys.map(([name, , , words]) => [name, words]), ["row", "row number"]]);
  state.signal = signals[0];
  state.sort = keys.length ? keys[0][0] : "row";
  if (!state.signal) { SIGNALS.none = { name: "no signal recorded", unit: "", signed: false }; state.signal = "none"; }
  by("signal").addEventListener("change", (event) => {
    state.signal = event.target.value;
    legend();
    for (const box of list.querySelectorAll(".tokens")) box.token.pieces.forEach((_, i) => dress(box.children[i], box.token, i));
  });
  for (const name of ["sort", "part"]) by(name).addEventListener("change", (event) => { state[name] = event.target.value; state.first = null; state.shown = 10; draw(); });
  if (by("run")) by("run").addEventListener("change", (event) => { state.run = Number(event.target.value); state.first = null; draw(); });
  by("numbers").addEventListener("change", (event) => list.classList.toggle("with-numbers", event.target.checked));
  by("more").addEventListener("click", () => {
    const before = state.shown;
    state.shown += 10;
    draw();
    if (list.children[before]) list.children[before].focus();
  });
  for (const link of document.querySelectorAll(".go")) link.addEventListener("click", (event) => {
    event.preventDefault();
    state.run = Number(link.dataset.run);
    state.first = Number(link.dataset.row);
    state.part = by("part").value = "all";
    if (by("run")) by("run").value = String(state.run);
    draw();
    list.firstElementChild.focus();
    list.firstElementChild.scrollIntoView();
  });
  window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((node) => { node.open = true; }));
  legend();
  draw();
})();
