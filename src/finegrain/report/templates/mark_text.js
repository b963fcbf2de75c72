"use strict";
// Texts and places in them. Inside the page a place counts UTF-16 units, as JavaScript does; exported places count code points.
const Texts = (() => {
  const toPoints = (text, unit) => Array.from(text.slice(0, unit)).length;

  function toUnits(text, point) {
    let unit = 0;
    for (const sign of text) {
      if (point-- <= 0) break;
      unit += sign.length;
    }
    return unit;
  }

  const kept = new Map();

  // Where graphemes or words begin, and the end of the text: no mark cuts an emoji or a letter from its accents.
  function boundaries(text, granularity) {
    const name = `${granularity} ${text}`;
    if (!kept.has(name)) {
      if (kept.size > 64) kept.clear();
      const parts = "Segmenter" in Intl ? Array.from(new Intl.Segmenter(undefined, { granularity }).segment(text), (part) => part.segment)
        : text.match(granularity === "word" ? /[\p{L}\p{N}\p{M}_'’]+|\P{M}\p{M}*/gu : /\P{M}\p{M}*|\p{M}+/gu) || [];
      const found = [0];
      for (const part of parts) found.push(found[found.length - 1] + part.length);
      kept.set(name, found);
    }
    return kept.get(name);
  }

  const before = (places, unit) => places.findLast((place) => place <= unit) ?? 0;
  const after = (places, unit) => places.find((place) => place >= unit) ?? places[places.length - 1];

  function trim(text, start, end) {
    while (start < end && /\s/.test(text[start])) start++;
    while (end > start && /\s/.test(text[end - 1])) end--;
    return [start, end];
  }

  // The selection without outer white space, widened to whole graphemes and, where asked, to whole words; null where nothing is left.
  function snap(text, start, end, words) {
    [start, end] = trim(text, Math.max(0, Math.min(start, end)), Math.min(text.length, Math.max(start, end)));
    if (start === end) return null;
    const places = boundaries(text, words ? "word" : "grapheme");
    return trim(text, before(places, start), after(places, end));
  }

  // One end of a mark moved by a word; null where the mark would be empty or leave the text.
  function nudge(text, start, end, side, step) {
    const places = boundaries(text, "word");
    let at = side === "end" ? end : start;
    do {
      at = step > 0 ? places.find((place) => place > at) : places.findLast((place) => place < at);
      if (at === undefined) return null;
      const [first, last] = side === "end" ? trim(text, start, at) : trim(text, at, end);
      if (first === last) return null;
      if (first !== start || last !== end) return [first, last];
    } while (at > 0 && at < text.length);
    return null;
  }

  // The text in pieces: a span for every run under the same marks, and one for every hidden character, shown as a sign.
  function draw(box, text, marks, hidden) {
    const lead = text.match(/^ */)[0].length; // the space after a prompt, which is no part of what people read
    const places = new Set([0, lead, text.length]);
    for (const mark of marks) places.add(mark.start).add(mark.end);
    const signs = new Map();
    for (const found of text.matchAll(hidden)) {
      signs.set(found.index, found[0]);
      places.add(found.index).add(found.index + found[0].length);
    }
    const sorted = [...places].sort((one, other) => one - other);
    box.replaceChildren(...sorted.slice(0, -1).map((start, i) => {
      const end = sorted[i + 1];
      const piece = document.createElement("span");
      piece.place = [start, end];
      piece.marks = marks.filter((mark) => mark.start <= start && mark.end >= end);
      piece.className = [...new Set(piece.marks.map((mark) => mark.look))].join(" ");
      if (end <= lead) piece.classList.add("lead");
      const sign = signs.get(start);
      if (sign !== undefined) {
        piece.classList.add("sign");
        piece.sign = true;
        piece.title = `U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
      }
      piece.textContent = sign === undefined ? text.slice(start, end) : sign === "\r" ? "␍" : `⟦${piece.title}⟧`;
      return piece;
    }));
  }

  // The place in the text of a place in the page; null outside the box.
  function unitOf(box, node, offset) {
    if (!box.contains(node)) return null;
    if (node === box) {
      const next = box.childNodes[offset];
      return next ? next.place[0] : box.lastChild ? box.lastChild.place[1] : 0;
    }
    const piece = node.nodeType === Node.TEXT_NODE ? node.parentNode : node;
    if (!piece.place) return null;
    if (piece.sign || piece === node) return piece.place[offset > 0 ? 1 : 0];
    return piece.place[0] + offset;
  }

  // The place in the page of a place in the text.
  function nodeAt(box, unit) {
    for (const piece of box.childNodes) {
      if (unit > piece.place[1] || (unit === piece.place[1] && piece.nextSibling)) continue;
      return piece.sign ? [piece.firstChild, unit > piece.place[0] ? piece.textContent.length : 0] : [piece.firstChild, unit - piece.place[0]];
    }
    return [box, 0];
  }

  return { toPoints, toUnits, snap, nudge, draw, unitOf, nodeAt };
})();
