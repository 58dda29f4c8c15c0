// Looking through samples: a search, pages of what fits as pictures or a table, the map, and what is done with those picked.
"use strict";
(() => {
  const PAGE = 60, AT_ONCE = 1000, SETTLE_MS = 250, DAY_MS = 86400000;
  const token = document.querySelector('meta[name="csrf"]').content;
  const at = (id) => document.getElementById(id);
  const filters = at("filters"), tiles = at("tiles"), body = at("rows").querySelector("tbody"), bulk = at("bulk");
  let view = "grid", rows = [], after = null, asked = 0, picked = new Set(), onMap = null, loading = false;

  const number = (value, digits = 0) => value === null ? "–" : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replaceAll(",", " ");
  const say = (text) => { at("said").textContent = text; clearTimeout(say.timer); say.timer = setTimeout(() => { at("said").textContent = ""; }, 5000); };
  const stamp = (ms) => new Date(ms).toISOString().slice(0, 19).replace("T", " ");
  const make = (name, text = "", className = "") => { const made = document.createElement(name); made.textContent = text; made.className = className; return made; };

  // --- the search, in the address too, so that it can be sent to others ---
  const said = () => Object.fromEntries([...new FormData(filters)].filter(([, value]) => value !== ""));
  const query = () => {
    const { labelled_as: labelled, since, until, ...rest } = said();
    if (labelled === "=yes" || labelled === "=no") rest.labelled = labelled.slice(1);
    else if (labelled) rest.label = labelled;
    if (since) rest.since_ms = Date.parse(since);
    if (until) rest.until_ms = Date.parse(until) + DAY_MS;
    return rest;
  };
  const remember = () => {
    const kept = new URLSearchParams({ ...said(), ...(view === "grid" ? {} : { view }) });
    history.replaceState(null, "", kept.size ? `?${kept}` : location.pathname);
    at("clear").hidden = Object.keys(said()).length === 0;
    at("csv").href = `/api/v1/samples.csv?${new URLSearchParams(query())}`;
  };
  const recall = () => {
    const kept = new URLSearchParams(location.search);
    for (const [name, value] of kept) {
      const field = filters.elements[name];
      if (!field) continue;
      if (field.tagName === "SELECT" && ![...field.options].some((option) => option.value === value)) field.add(new Option(value, value));
      field.value = value;
      if (at("more").contains(field)) at("more").open = true;
    }
    if (["table", "map"].includes(kept.get("view"))) view = kept.get("view");
  };

  // --- what was found ---
  const fetchPage = async () => {
    const wanted = onMap ? { ids: onMap.ids.slice(rows.length, rows.length + PAGE).join(",") } : { ...query(), ...(after ? { after } : {}) };
    const answer = await fetch(`/api/v1/samples?${new URLSearchParams({ ...wanted, limit: PAGE })}`);
    if (answer.status === 401) { location.reload(); return null; }
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.detail);
    return found;
  };
  const load = async (more) => {
    const mine = more ? asked : ++asked;
    if (!more) { rows = []; after = null; picked = new Set(); }
    loading = true;
    at("further").disabled = true;
    try {
      const found = await fetchPage();
      if (!found || mine !== asked) return;
      const first = rows.length;
      rows.push(...found.samples);
      after = onMap ? (rows.length < onMap.ids.length && found.samples.length ? "more" : null) : found.next;
      if (!more) { tiles.replaceChildren(); body.replaceChildren(); }
      rows.slice(first).forEach((row) => { tiles.append(tile(row)); body.append(line(row)); });
      show();
    } catch (error) {
      if (mine === asked) { rows = []; after = null; tiles.replaceChildren(); body.replaceChildren(); show(error.message); }
    } finally { loading = false; at("further").disabled = false; }
  };
  const show = (problem = "") => {
    const searched = Object.keys(said()).length > 0;
    tiles.hidden = view === "table" || !rows.length;
    at("rows").hidden = view !== "table" || !rows.length;
    at("map-card").hidden = view !== "map";
    at("further").hidden = after === null;
    at("further").textContent = rows.length ? "More" : "Look further back";
    const order = query().search ? "by id" : query().labelled === "yes" || query().label || query().labeler || query().agrees ? "last labelled first" : "newest first";
    at("summary").textContent = problem || !rows.length ? "" : `${number(rows.length)}${after === null ? "" : " and more"}, ${onMap ? "from the map" : order}`;
    const [title, text] = problem ? ["That cannot be searched for", problem]
      : after !== null ? ["None among the newest 10 000", "There may be some farther back."]
      : searched || onMap ? ["Nothing fits", "Ask for less, or clear the search."]
      : ["No sample yet", "Devices send what is worth a label; it will be here by itself. Samples of your own come in with winnow-server data import."];
    at("empty").hidden = rows.length > 0;
    at("empty").querySelector("h2").textContent = title;
    at("empty").querySelector("p").textContent = text;
    document.querySelectorAll("[data-view]").forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.view === view)));
    at("chosen-from-map").hidden = !onMap;
    if (onMap) at("chosen-from-map").querySelector("span").textContent = `${number(onMap.ids.length)} picked on the map${onMap.what ? `: ${onMap.what}` : ""}`;
    mark();
  };
  const verdict = (row) => {
    const made = make("span", row.label || "no label", row.label ? "" : "muted");
    if (row.agrees !== null) { made.className = `state ${row.agrees ? "good" : "bad"}`; made.title = row.agrees ? "the label is what the model took it for" : "the label is not what the model took it for"; }
    return made;
  };
  const box = (row) => {
    const made = document.createElement("input");
    made.type = "checkbox";
    made.dataset.id = row.id;
    made.checked = picked.has(row.id);
    made.setAttribute("aria-label", `Pick ${row.id}`);
    made.addEventListener("change", () => { if (made.checked) picked.add(row.id); else picked.delete(row.id); mark(); });
    return made;
  };
  const link = (row, ...inside) => { const made = document.createElement("a"); made.href = `/samples/${encodeURIComponent(row.id)}`; made.append(...inside); return made; };
  const pictured = (row, alt) => { // with the boxes that are in it, where somebody said so
    const src = `/samples/${encodeURIComponent(row.id)}/picture`;
    if (row.kind === "image" && (row.truth?.boxes || row.model?.boxes)) return winnowDrawn.drawn(row, src, alt);
    return Object.assign(document.createElement("img"), { src, alt, loading: "lazy" });
  };
  const tile = (row) => {
    const made = document.createElement("li"), image = pictured(row, `${row.id}, taken for ${row.predicted || "nothing"}${row.label ? `, labelled ${row.label}` : ""}`);
    const guess = make("div", "", "row tight");
    guess.append(make("strong", row.predicted || "–"), make("span", row.confidence === null ? "" : `${Math.round(100 * row.confidence)} %`, "muted"));
    made.append(link(row, image), guess, verdict(row), make("div", `${row.device}, ${row.reason}`, "muted small-text cut"));
    if (bulk) made.prepend(box(row));
    return made;
  };
  const cell = (inside, className = "") => { const made = make("td", "", className); made.append(inside); return made; };
  const line = (row) => {
    const made = document.createElement("tr");
    made.append(
      cell(bulk ? box(row) : ""), cell(link(row, row.id)), cell(stamp(row.received_at_ms)), cell(row.predicted || "–"),
      cell(row.confidence === null ? "–" : `${Math.round(100 * row.confidence)} %`, "num"), cell(verdict(row)), cell(row.labeler || "–"), cell(row.reason),
      cell(number(row.probability, 3), "num"), cell(number(row.utility, 3), "num"), cell(row.version === null ? "–" : String(row.version), "num"),
    );
    return made;
  };

  // --- what is done with those picked ---
  const mark = () => {
    document.querySelectorAll("input[data-id]").forEach((one) => { one.checked = picked.has(one.dataset.id); });
    tiles.querySelectorAll("li").forEach((one) => one.classList.toggle("picked", Boolean(one.querySelector("input")?.checked)));
    if (!bulk) return;
    bulk.hidden = picked.size === 0;
    at("picked").textContent = `${number(picked.size)} picked`;
  };
  bulk?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const purpose = event.submitter?.value || "label";
    const answer = await fetch("/api/v1/samples/ask", {
      method: "POST", headers: { "Content-Type": "application/json", "X-CSRF-Token": token },
      body: JSON.stringify({ ids: [...picked].slice(0, AT_ONCE), purpose, why: bulk.elements.why.value }),
    });
    const came = await answer.json();
    if (!answer.ok) return say(came.detail);
    const left = came.left ? `, ${came.left} not: ${purpose === "label" ? "they have an answer" : "nobody has labelled them"}` : "";
    say(`${came.asked} ${purpose === "label" ? "will be labelled next" : "will be looked at again"}${left}`);
    bulk.reset();
    picked = new Set([...picked].slice(AT_ONCE)); // what was too many for one order stays picked, for the next
    return mark();
  });
  bulk && at("pick-all").addEventListener("click", () => { rows.forEach((row) => picked.add(row.id)); mark(); });
  bulk && at("pick-none").addEventListener("click", () => { picked = new Set(); mark(); });

  // --- the map ---
  const fromMap = (ids, what) => { onMap = ids.length ? { ids, what } : null; load(false); };
  const map = winnowMap({ canvas: at("plane"), groups: at("groups"), by: at("by"), about: at("map-about"), chosen: fromMap });
  at("chosen-from-map").querySelector("button").addEventListener("click", () => { map.clear(); fromMap([], ""); });

  const turn = (wanted) => { view = wanted; remember(); show(); if (view === "map") map.open(); };
  document.querySelectorAll("[data-view]").forEach((button) => button.addEventListener("click", () => turn(button.dataset.view)));
  let timer = 0;
  filters.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => { onMap = null; remember(); load(false); }, SETTLE_MS); });
  filters.addEventListener("submit", (event) => event.preventDefault());
  at("clear").addEventListener("click", () => { filters.reset(); onMap = null; remember(); load(false); });
  at("further").addEventListener("click", () => { if (!loading) load(true); });
  winnowHear(["labels"], async () => { if (view === "map") await map.open(); }, 3000);
  winnowHear(["chores"], async () => { if (view === "map") await map.open(); });
  winnowHear(["fleet"], async () => { if (!rows.length && !onMap && !Object.keys(said()).length) await load(false); });
  recall();
  remember();
  load(false);
  if (view === "map") map.open();
})();
