// Labelling by keyboard. Questions are fetched ahead, so that nobody waits between two; answers are sent behind, with
// the key of their question, so that one that had to be sent again counts once.
"use strict";
(() => {
  const AHEAD = 8, GRID = 30;
  const KEYS = "123456789abdefghijklmopqrtvwyz"; // not c, n, s, u, x: those mean something
  const token = document.querySelector('meta[name="csrf"]').content;
  const at = (id) => document.getElementById(id);
  let mode = "one", questions = [], place = 0, classes = [], zoom = 1, since = 0, hidden = 0, asking = null, gone = new Set(), sending = Promise.resolve(), unsent = 0, words = {};
  const task = at("one").dataset.task;

  const post = async (path, body) => {
    const answer = await fetch(`/api/v1/label/${path}`, { method: "POST", headers: { "Content-Type": "application/json", "X-CSRF-Token": token }, body: JSON.stringify(body ?? {}) });
    if (answer.status === 401) { location.reload(); throw new Error("sign in"); }
    const said = await answer.json();
    if (!answer.ok) throw Object.assign(new Error(said.detail), { refused: answer.status < 500 });
    return said;
  };
  const say = (text) => { at("said").textContent = text; clearTimeout(say.timer); say.timer = setTimeout(() => { at("said").textContent = ""; }, 4000); };

  // What we hold comes first in an answer: to get `count` more, ask for those as well.
  const fetchMore = async (count) => {
    while (asking) await asking;
    asking = post(`next?count=${Math.min(60, questions.length + count)}`).then((found) => {
      classes = found.classes;
      words = found;
      const known = new Set(questions.map((one) => one.sample_id));
      for (const one of found.questions) {
        if (known.has(one.sample_id) || gone.has(one.key)) continue; // or its answer is still on its way
        if (one.kind === "image") new Image().src = one.picture; // it is here before it is shown
        else winnowSeries.get(one.sample_id).catch(() => {});
        questions.push(one);
      }
    }).catch((error) => say(error.message)).finally(() => { asking = null; });
    await asking;
  };
  const seconds = () => { const took = (performance.now() - since - hidden) / 1000; return Math.max(0, Math.min(took, 86400)); };
  document.addEventListener("visibilitychange", () => { // a page that nobody looks at takes no time
    if (document.hidden) hidden -= performance.now(); else hidden += performance.now();
  });

  // --- one by one ---
  const current = () => questions[place];
  const pictured = () => form?.picture ?? at("picture");
  const present = (one) => { // as a picture; a recording as lines over time; a sound is played too
    const drawn = one.kind !== "image", player = at("play").querySelector("audio");
    at("picture").src = one.picture;
    at("picture").alt = `Sample ${one.sample_id}`;
    pictured().style.setProperty("--zoom", zoom = 1);
    pictured().closest(".zoom").hidden = drawn;
    at("plot").hidden = !drawn;
    at("play").hidden = one.kind !== "sound";
    if (at("play-help")) at("play-help").hidden = at("play").hidden;
    player.pause();
    if (drawn && at("plot").dataset.sample !== one.sample_id) {
      winnowSeries.draw(at("plot"), one.sample_id, Math.min(420, Math.round(innerHeight / 2))).catch((error) => say(error.message));
      if (one.kind === "sound") winnowSeries.sound(player, at("play").querySelector("select"), one.sample_id);
    }
  };
  const play = () => { const player = at("play").querySelector("audio"); if (player.paused) player.play(); else player.pause(); };
  const show = () => {
    const one = current();
    at("nothing").hidden = Boolean(one) || mode === "grid";
    at("one").hidden = !one || mode !== "one";
    if (!one || mode !== "one") return;
    present(one);
    at("about").textContent = `${one.device}, ${new Date(one.captured_at_ms).toLocaleString()}, ${one.reason ?? "imported"}`;
    at("guess").textContent = one.guess ? `${one.guess_by} takes it for ${one.guess}${one.confidence == null ? "" : `, ${Math.round(100 * one.confidence)} %`}` : "No guess";
    if (form) form.show(one, words);
    else at("classes").replaceChildren(...classes.slice(0, KEYS.length).map((name, index) => {
      const made = document.createElement("button"), key = document.createElement("kbd");
      made.className = name === one.guess ? "" : "quiet";
      key.textContent = KEYS[index];
      made.append(key, ` ${name}`);
      made.addEventListener("click", () => answer(name));
      return made;
    }));
    at("known").replaceChildren(...classes.map((name) => new Option(name)));
    since = performance.now();
    hidden = 0;
  };
  const log = (one, said) => {
    const made = document.createElement("li");
    made.textContent = `${one.sample_id}: ${said}`;
    at("done").prepend(made);
    while (at("done").children.length > 5) at("done").lastChild.remove();
  };
  const unkept = (answers, why) => { // nothing is lost by it: the questions come again, as they were left
    answers.forEach((one) => gone.delete(one.key));
    say(`not kept, and it comes again: ${why}`);
  };
  window.addEventListener("beforeunload", (event) => { if (unsent) event.preventDefault(); }); // the browser asks
  const send = (answers) => {
    unsent += answers.length;
    sending = sending.then(async () => {
      for (let tries = 0; ; tries++) {
        try {
          const { outcomes } = await post("answers", { answers });
          outcomes.forEach((one, index) => { if (one.error) unkept([answers[index]], one.error); });
          return progress();
        } catch (error) {
          if (error.refused || tries >= 5) return unkept(answers, error.message);
          await new Promise((wake) => setTimeout(wake, 300 * 2 ** tries));
        }
      }
    }).finally(() => { unsent -= answers.length; });
    return sending;
  };
  const advance = async () => {
    questions.splice(place, 1);
    if (place >= questions.length) place = Math.max(0, questions.length - 1);
    if (questions.length < AHEAD / 2) {
      const wait = sending.then(() => fetchMore(AHEAD)); // else we would be handed what is being answered
      if (!questions.length) { await wait; }
    }
    show();
  };
  const answer = (said, more = {}) => {
    const one = current();
    if (!one) return;
    gone.add(one.key);
    log(one, said);
    send([{ sample_id: one.sample_id, key: one.key, said: more.truth ? "" : said, seconds: seconds(), ...more }]);
    (more.new_class ? more.truth?.boxes?.map(([name]) => name) ?? more.truth?.applies ?? [said] : []).forEach((name) => { if (!classes.includes(name)) classes.push(name); });
    advance();
  };
  const form = window.winnowForms?.[task]?.({ at, say, answer, keys: KEYS, known: (name) => classes.includes(name) });
  const skip = () => {
    const one = current();
    if (!one) return;
    gone.add(one.key);
    log(one, "skipped");
    sending = sending.then(() => post("skip", { sample_id: one.sample_id })).catch((error) => say(error.message));
    advance();
  };
  const undo = async () => {
    await sending;
    try {
      const { sample_id: back } = await post("undo");
      at("done").firstChild?.remove();
      const found = await post("next?count=60");
      const one = found.questions.find((other) => other.sample_id === back);
      if (one) { gone.delete(one.key); questions = [one, ...questions.filter((other) => other.sample_id !== back)]; place = 0; }
      say(`${back}: yours again`);
      show();
    } catch (error) { say(error.message); }
  };
  const move = (by) => { place = Math.max(0, Math.min(questions.length - 1, place + by)); show(); };
  const magnify = (factor) => {
    if (current()?.kind !== "image") return winnowSeries.zoom(at("plot"), factor);
    zoom = Math.max(1, Math.min(8, zoom * factor));
    pictured().style.setProperty("--zoom", zoom);
    const frame = pictured().closest(".zoom");
    frame.scrollTo((frame.scrollWidth - frame.clientWidth) / 2, (frame.scrollHeight - frame.clientHeight) / 2);
    form?.resize?.();
    return undefined;
  };

  // --- grid: all of these are X, but for those; of boxes: all of these show nothing ---
  let tiles = [], wrong = new Set(), cursor = 0, shownClass = "";
  const showGrid = async () => {
    await sending;
    if (questions.length < GRID) await fetchMore(60);
    const counts = new Map();
    questions.forEach((one) => { if (one.guess) counts.set(one.guess, (counts.get(one.guess) || 0) + 1); });
    shownClass = form?.nothing ? "nothing" : [...counts].sort((a, b) => b[1] - a[1])[0]?.[0] ?? "";
    tiles = questions.filter((one) => shownClass && one.guess === shownClass).slice(0, GRID);
    wrong = new Set();
    cursor = 0;
    at("grid").hidden = mode !== "grid" || !tiles.length;
    at("nothing").hidden = mode !== "grid" || tiles.length > 0;
    at("grid-title").textContent = `${tiles.length} ${form?.nothing ? "in which models find nothing" : `that models take for ${shownClass}`}`;
    at("tiles").replaceChildren(...tiles.map((one, index) => {
      const made = document.createElement("li"), image = document.createElement("img");
      made.id = `tile-${index}`;
      made.setAttribute("role", "option");
      image.src = one.picture;
      image.alt = `Sample ${one.sample_id}`;
      made.append(image);
      made.addEventListener("click", () => { cursor = index; turn(); });
      return made;
    }));
    mark();
    since = performance.now();
    hidden = 0;
  };
  const mark = () => {
    [...at("tiles").children].forEach((tile, index) => {
      tile.setAttribute("aria-selected", String(!wrong.has(index)));
      tile.classList.toggle("cursor", index === cursor);
    });
    at("tiles").setAttribute("aria-activedescendant", `tile-${cursor}`);
  };
  const turn = () => { if (wrong.has(cursor)) wrong.delete(cursor); else wrong.add(cursor); mark(); };
  const confirmGrid = async () => {
    if (!tiles.length) return;
    const right = tiles.filter((_, index) => !wrong.has(index)), each = seconds() / Math.max(1, right.length);
    if (right.length) {
      right.forEach((one) => gone.add(one.key));
      const said = form?.nothing ? { said: "", truth: form.nothing } : { said: shownClass };
      send(right.map((one) => ({ sample_id: one.sample_id, key: one.key, seconds: each, ...said })));
      say(`${right.length} × ${shownClass}`);
    }
    const answered = new Set(right.map((one) => one.sample_id)), left = tiles.filter((_, index) => wrong.has(index));
    questions = [...left, ...questions.filter((one) => !answered.has(one.sample_id) && !left.includes(one))];
    place = 0;
    if (left.length) setMode("one"); else await showGrid(); // the exceptions, one by one
  };

  const setMode = (wanted) => {
    mode = wanted;
    at("one-mode").setAttribute("aria-pressed", String(mode === "one"));
    at("grid-mode")?.setAttribute("aria-pressed", String(mode === "grid"));
    at("grid").hidden = at("one").hidden = true;
    if (mode === "grid") showGrid().then(() => { if (tiles.length) at("tiles").focus(); }); else show();
  };
  const progress = async () => {
    const answered = await fetch("/api/v1/label/progress");
    if (!answered.ok) return;
    const now = await answered.json();
    at("progress").textContent = `${now.waiting.toLocaleString("en")} wait, ${now.labelled.toLocaleString("en")} are labelled; you: ${now.mine_today} today${now.per_minute ? `, ${now.per_minute.toFixed(0)} a minute` : ""}`;
  };

  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input, select, textarea"), numbers = event.target.closest("#numbers");
    if ((typing && !numbers) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (numbers && typing && !["Enter", "s", "c", "u"].includes(event.key)) return; // no number has those
    const key = event.key;
    const done = (act) => { event.preventDefault(); act(); };
    if (mode === "grid") {
      const across = Math.max(1, Math.round(at("tiles").clientWidth / ((at("tiles").children[0]?.offsetWidth || 130) + 16)));
      const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across };
      if (key in steps) return done(() => { cursor = Math.max(0, Math.min(tiles.length - 1, cursor + steps[key])); mark(); });
      if (key === "x" || key === " ") return done(turn);
      if (key === "Enter" && !event.target.matches("button")) return done(confirmGrid);
      if (key === "u") return done(() => { setMode("one"); undo(); });
      return undefined;
    }
    const one = current();
    if (form && one && form.key(event, classes)) return event.preventDefault();
    if (form && key === "Enter") return undefined;
    if (key === "Enter" && !event.target.matches("button")) return done(() => one?.guess ? answer(one.guess) : say("there is no guess to take: pick a class"));
    if (key === "ArrowRight") return done(() => move(1));
    if (key === "ArrowLeft") return done(() => move(-1));
    if (key === "+") return done(() => magnify(2));
    if (key === "-") return done(() => magnify(0.5));
    if (key === "u") return done(undo);
    if (key === "s") return done(skip);
    if (key === "c") return done(() => answer(words.cannot_tell));
    if (key === "n" && !form) return done(() => answer(words.none_of_these));
    if (key === " " && one?.kind === "sound" && !event.target.matches("button, audio")) return done(play);
    const index = KEYS.indexOf(key);
    if (!form && key.length === 1 && index >= 0 && index < classes.length) return done(() => answer(classes[index]));
    return undefined;
  });
  at("larger").addEventListener("click", () => magnify(2));
  at("smaller").addEventListener("click", () => magnify(0.5));
  window.addEventListener("resize", () => { winnowSeries.resize(at("plot")); form?.resize?.(); });
  at("cannot").addEventListener("click", () => answer(words.cannot_tell));
  at("none")?.addEventListener("click", () => answer(words.none_of_these));
  at("skip").addEventListener("click", skip);
  at("undo").addEventListener("click", undo);
  at("all").addEventListener("click", confirmGrid);
  at("one-mode").addEventListener("click", () => setMode("one"));
  at("grid-mode")?.addEventListener("click", () => setMode("grid"));
  at("new-class")?.addEventListener("submit", (event) => {
    event.preventDefault();
    const name = event.target.elements.name.value.trim();
    if (!name) return;
    event.target.reset();
    const known = classes.includes(name);
    if (!known && !confirm(`"${name}" is a new class. Add it? The next version will know it.`)) return;
    if (form) { form.classify(name); return; }
    if (!known) classes.push(name);
    answer(name, { new_class: !known });
  });
  winnowHear(["labels"], progress);
  winnowHear(["fleet"], async () => { if (!questions.length) { await fetchMore(AHEAD); if (mode === "one") show(); } });
  (async () => { await Promise.all([fetchMore(AHEAD), progress()]); show(); })();
})();
