// The work: what a person did to every task, its history, where it is kept, and its export as rows of data.
const Store = (() => {
  const DIRECTED = new Set(["margin", "strength", "strength_mean", "strength_std", "label_prob", "flip", "tie", "member_margins", "helpful", "harmless"]);
  const NOTHING = Object.freeze({ marks: [], settled: {}, order: [], equal: false, done: false });
  const OTHER = { chosen: "rejected", rejected: "chosen" };

  function open(data) {
    const name = `finegrain-mark:${data.digest}:${data.annotator}`;
    const tasks = new Map(data.tasks.map((task) => [task.key, task]));
    const answers = new Map(data.tasks.flatMap((task) => task.answers.map((answer, place) => [answer.id, { task, place, answer }])));
    const store = { work: {}, options: { letters: true, words: true }, at: data.tasks[0].key, annotator: data.annotator, aspects: [...data.aspects], changes: 0, exported: 0, past: [], future: [], keeps: true, trouble: "" };

    const of = (key) => store.work[key] || NOTHING;
    const begun = (one) => one.marks.length > 0 || one.order.length > 0 || one.equal || Object.keys(one.settled).length > 0;

    function adopt(text) {
      const kept = JSON.parse(text);
      store.work = {};
      for (const [key, one] of Object.entries(kept.work || {})) {
        const task = tasks.get(key);
        if (!task) continue;
        const fits = (mark) => task.answers[mark.answer] && mark.start >= 0 && mark.end <= task.answers[mark.answer].text.length && mark.start < mark.end;
        store.work[key] = { ...NOTHING, ...one, marks: (one.marks || []).filter(fits) };
      }
      if (tasks.has(kept.at)) store.at = kept.at;
      if (typeof kept.annotator === "string" && kept.annotator) store.annotator = kept.annotator;
      if (Array.isArray(kept.aspects)) store.aspects = [...new Set([...data.aspects, ...kept.aspects.map(String)])];
      store.options = { ...store.options, ...kept.options };
      store.changes = kept.changes || 0;
      store.exported = kept.exported || 0;
    }

    function keep() {
      const { work, options, at, annotator, aspects, changes, exported } = store;
      try {
        localStorage.setItem(name, JSON.stringify({ work, options, at, annotator, aspects, changes, exported }));
        store.keeps = true;
      } catch (error) {
        store.keeps = false;
        store.trouble = String(error && error.name);
      }
    }

    function load() {
      let text = null;
      try {
        text = localStorage.getItem(name);
      } catch (error) {
        store.keeps = false;
        store.trouble = String(error && error.name);
        return;
      }
      try {
        if (text !== null) adopt(text);
      } catch (error) {
        store.trouble = "unreadable";
        try { localStorage.setItem(`${name}:unreadable`, text); } catch (full) { /* the work itself is kept or reported below */ }
      }
      keep();
    }

    // Changes tasks in one step that undo takes back: `made` is the new work by task.
    function change(made) {
      const step = Object.entries(made).map(([key, after]) => ({ key, before: of(key), after }));
      store.past.push(step);
      store.future = [];
      apply(step, "after");
    }

    function apply(step, which) {
      for (const one of step) store.work[one.key] = one[which];
      store.changes++;
      keep();
    }

    function travel(from, to, which) {
      const step = from.pop();
      if (!step) return null;
      to.push(step);
      apply(step, which);
      return step[0].key;
    }

    const undo = () => travel(store.past, store.future, "before");
    const redo = () => travel(store.future, store.past, "after");

    // Spans in code points; null where the answer was not annotated: nothing is marked and the task is not done.
    function spansOf(task, one, place) {
      const touched = one.marks.some((mark) => mark.answer === place) || Object.keys(one.settled).some((name) => name.startsWith(`${place}:`));
      if (!one.done && !touched) return null;
      const text = task.answers[place].text;
      return one.marks.filter((mark) => mark.answer === place).sort((a, b) => a.start - b.start || a.end - b.end).map((mark) => ({
        start: Texts.toPoints(text, mark.start), end: Texts.toPoints(text, mark.end), value: mark.value,
        ...(mark.aspect ? { aspect: mark.aspect } : {}), ...(store.annotator ? { annotator: store.annotator } : {}),
      }));
    }

    function answerRecord(task, one, place) {
      const answer = task.answers[place];
      const notes = one.marks.filter((mark) => mark.answer === place && mark.note)
        .map((mark) => ({ start: Texts.toPoints(answer.text, mark.start), end: Texts.toPoints(answer.text, mark.end), note: mark.note }));
      const settled = Object.fromEntries(Object.entries(one.settled).filter(([key]) => key.startsWith(`${place}:`)).map(([key, what]) => [key.slice(key.indexOf(":") + 1), what]));
      return { id: answer.id, sha256: answer.sha256, ...(notes.length ? { notes } : {}), ...(Object.keys(settled).length ? { settled } : {}) };
    }

    const record = (task, one, saved, answers, by) => ({
      version: 1, data: data.digest, task: task.key, saved, done: one.done,
      preference: { by, ...(by === "person" ? { order: one.order.map((place) => task.answers[place].id), equal: one.equal } : {}) }, answers,
    });

    const rest = (task) => ({ ...(task.tools ? { tools: task.tools } : {}), ...(store.annotator ? { annotator: store.annotator } : {}) });
    const contentOf = (answer) => answer.content || answer.text;

    // Numbers of a pair whose answers were exchanged, or declared equal; those that would be wrong then are left out.
    function turned(columns, exchange) {
      const swapped = (name) => exchange ? name.replace(/(?<![A-Za-z0-9])(chosen|rejected)(?![A-Za-z0-9])/g, (side) => OTHER[side]) : name;
      return Object.fromEntries(Object.entries(columns).filter(([name]) => !DIRECTED.has(name)).map(([name, value]) => [swapped(name), value]));
    }

    // Pairs of a task: the person's, or else the data's.
    function pairsOf(task, one) {
      const given = task.pairs || [];
      if (!one.order.length && !one.equal) return given.map((pair) => ({ ...pair, tie: pair.columns.tie || 0, by: "data" }));
      const made = [];
      let left = task.answers.map((_, place) => place);
      const add = (chosen, rejected, tie) => {
        const same = given.find((pair) => pair.chosen === chosen && pair.rejected === rejected);
        const reverse = given.find((pair) => pair.chosen === rejected && pair.rejected === chosen);
        const columns = same && !tie ? same.columns : same ? turned(same.columns, false) : reverse ? turned(reverse.columns, true) : {};
        made.push({ chosen, rejected, columns, tie, by: "person" });
      };
      for (const best of one.order) {
        left = left.filter((place) => place !== best);
        for (const worse of left) add(best, worse, 0);
      }
      if (one.equal) left.forEach((first, i) => left.slice(i + 1).forEach((second) => add(first, second, 1)));
      return made;
    }

    function pairLine(task, one, saved, pair) {
      const sides = { chosen: pair.chosen, rejected: pair.rejected };
      const part = (make) => Object.fromEntries(Object.entries(sides).map(([role, place]) => make(role, place)));
      return {
        prompt: task.prompt, ...part((role, place) => [role, contentOf(task.answers[place])]), ...pair.columns, tie: pair.tie,
        ...part((role, place) => [`${role}_spans`, spansOf(task, one, place)]), ...rest(task),
        mark: record(task, one, saved, part((role, place) => [role, answerRecord(task, one, place)]), pair.by),
      };
    }

    function answerLine(task, one, saved, place) {
      const answer = task.answers[place];
      const by = one.order.length || one.equal ? "person" : "nobody";
      return {
        prompt: task.prompt, completion: contentOf(answer), ...(answer.columns || {}), spans: spansOf(task, one, place), ...rest(task),
        mark: record(task, one, saved, { answer: answerRecord(task, one, place) }, by),
      };
    }

    // One row for each pair or answer of every task that was begun or done.
    function exportRows(form) {
      const saved = new Date().toISOString();
      const touched = data.tasks.map((task) => [task, of(task.key)]).filter(([, one]) => one.done || begun(one));
      const rows = form === "pairs"
        ? touched.filter(([, one]) => data.form === "pairs" || one.order.length || one.equal).flatMap(([task, one]) => pairsOf(task, one).map((pair) => pairLine(task, one, saved, pair)))
        : touched.flatMap(([task, one]) => task.answers.map((_, place) => answerLine(task, one, saved, place)));
      return rows.map((row) => JSON.stringify(row) + "\n").join("");
    }

    function marksFrom(line, role, answer, place, count) {
      const notes = line.mark.answers[role].notes || [];
      return (line[role === "answer" ? "spans" : `${role}_spans`] || []).map((span, i) => ({
        id: count + i + 1, answer: place, start: Texts.toUnits(answer.text, span.start), end: Texts.toUnits(answer.text, span.end), value: Number(span.value),
        aspect: String(span.aspect || ""), note: String((notes.find((note) => note.start === span.start && note.end === span.end) || {}).note || ""),
      })).filter((mark) => mark.start < mark.end && Number.isFinite(mark.value));
    }

    // Takes an earlier export over as one step; what does not belong to this page is counted by name and left alone.
    function importRows(text) {
      const found = { taken: new Set(), elsewhere: new Set(), differs: new Set(), unreadable: 0, people: new Set() };
      const made = {};
      const seen = new Set();
      for (const source of text.split("\n").filter((one) => one.trim())) {
        let line = null;
        try { line = JSON.parse(source); } catch (error) { /* counted below */ }
        const roles = line && line.mark && line.mark.version === 1 && line.mark.task && line.mark.answers ? Object.keys(line.mark.answers) : [];
        if (!roles.length) found.unreadable++;
        for (const role of roles) {
          const told = line.mark.answers[role];
          const known = answers.get(told.id);
          const content = line[role === "answer" ? "completion" : role];
          if (!known) found.elsewhere.add(told.id);
          else if (JSON.stringify(content) !== JSON.stringify(contentOf(known.answer))) found.differs.add(told.id);
          else if (!seen.has(told.id)) {
            const { task, place, answer } = known;
            const one = made[task.key] || { ...of(task.key), done: false, order: [], equal: false };
            const others = one.marks.filter((mark) => mark.answer !== place);
            const settled = Object.fromEntries(Object.entries(one.settled).filter(([key]) => !key.startsWith(`${place}:`)));
            for (const [key, what] of Object.entries(told.settled || {})) settled[`${place}:${key}`] = what;
            const count = Math.max(0, ...others.map((mark) => mark.id));
            const preference = line.mark.preference || {};
            made[task.key] = {
              marks: [...others, ...marksFrom(line, role, answer, place, count)], settled, done: Boolean(line.mark.done), equal: Boolean(preference.equal),
              order: (preference.order || []).map((id) => answers.get(id)).filter((other) => other && other.task === task).map((other) => other.place),
            };
            seen.add(told.id);
            found.taken.add(told.id);
            if (line.annotator) found.people.add(line.annotator);
          }
        }
      }
      if (found.taken.size) change(made);
      if (!store.annotator && found.people.size === 1) store.annotator = [...found.people][0];
      keep();
      return found;
    }

    const counts = () => {
      const all = data.tasks.map((task) => of(task.key));
      return { done: all.filter((one) => one.done).length, begun: all.filter((one) => !one.done && begun(one)).length, all: all.length };
    };

    load();
    window.addEventListener("storage", (event) => {
      if (event.key !== name || event.newValue === null) return;
      adopt(event.newValue);
      store.past = [];
      store.future = [];
      if (store.onElsewhere) store.onElsewhere();
    });
    return Object.assign(store, { of, change, undo, redo, keep, exportRows, importRows, counts, begun });
  }

  return { open };
})();
