// The fleet: a map of all devices on a canvas, and a table of which only what is in view exists.
"use strict";
(() => {
  const ROW = 34, PAGE = 100, SETTLE_MS = 120;
  const SHAPES = { online: "good", drift: "warn", trial: "info", full: "bad", held: "info", refused: "bad", offline: "off", never: "off" };
  const COLOURS = { online: "--calm", drift: "--warn", trial: "--info", full: "--bad", held: "--info", refused: "--bad", offline: "--muted", never: "--line" };
  const filters = document.getElementById("filters"), scroll = document.getElementById("scroll");
  const body = document.querySelector("#devices tbody"), canvas = document.getElementById("map");
  const query = { search: "", state: "", at: "" }, order = { sort: "name", descending: false };
  const ticks = document.querySelector("#devices th.tick"), ticked = new Set();
  let told = () => {};
  let pages = new Map(), total = 0, map = { names: [], codes: [], states: [] }, cell = 12, across = 1, asked = 0;

  const address = (path, more) => `/api/v1/${path}?${new URLSearchParams({ ...query, ...more })}`;
  const get = async (path, more) => {
    const answer = await fetch(address(path, more));
    if (answer.status === 401) location.reload();
    if (!answer.ok) throw new Error((await answer.json()).detail);
    return answer.json();
  };
  const number = (value, digits = 0) => value === null ? "–" : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const span = (s) => {
    if (s === null) return "–";
    for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) if (s >= 1.5 * size) return `${Math.round(s / size)} ${unit}`;
    return `${Math.max(0, Math.round(s))} s`;
  };
  const cellOf = (text, kind) => {
    const made = document.createElement("td");
    if (kind) made.className = kind;
    made.textContent = text;
    return made;
  };
  const line = (row) => {
    const made = document.createElement("tr");
    made.style.height = `${ROW}px`;
    const name = document.createElement("td"), link = document.createElement("a");
    link.href = `/devices/${encodeURIComponent(row.name)}`;
    link.textContent = row.name;
    name.append(link);
    const state = document.createElement("td"), word = document.createElement("span");
    word.className = `state ${SHAPES[row.state]}`;
    word.textContent = row.state;
    state.append(word);
    if (ticks) made.append(tick(row.name));
    made.append(
      name, state, cellOf(row.site || "–"),
      cellOf(row.version === null ? "–" : `v${row.version}${row.slot && row.slot !== "steady" ? ` ${row.slot}` : ""}`, "num"),
      cellOf(number(row.samples_per_s, 1), "num"),
      cellOf(row.selected_share === null ? "–" : `${number(100 * row.selected_share, 2)} %`, "num"),
      cellOf(number(row.outbox_rows), "num"), cellOf(span(row.outbox_age_s), "num"), cellOf(number(row.label_tokens, 1), "num"),
      cellOf(row.drift || "–"), cellOf(row.clock), cellOf(span((Date.now() - row.last_seen_ms) / 1000), "num"),
    );
    return made;
  };
  const tick = (name) => {
    const made = cellOf("", "tick"), box = document.createElement("input");
    box.type = "checkbox";
    box.checked = ticked.has(name);
    box.setAttribute("aria-label", `Tick ${name}`);
    box.addEventListener("change", () => { if (box.checked) ticked.add(name); else ticked.delete(name); told(); });
    made.append(box);
    return made;
  };
  const gap = (rows) => {
    const made = document.createElement("tr"), inner = document.createElement("td");
    inner.colSpan = ticks ? 13 : 12;
    inner.style.cssText = `height:${rows * ROW}px;padding:0;border:0`;
    made.append(inner);
    made.setAttribute("aria-hidden", "true");
    return made;
  };

  const draw = async () => {
    const first = Math.max(0, Math.floor(scroll.scrollTop / ROW) - 10);
    const last = Math.min(total, first + Math.ceil(scroll.clientHeight / ROW) + 20);
    const wanted = [];
    for (let page = Math.floor(first / PAGE); page * PAGE < Math.max(last, 1); page++) if (!pages.has(page)) wanted.push(page);
    const mine = asked;
    await Promise.all(wanted.map(async (page) => {
      const found = await get("devices", { ...order, offset: page * PAGE, limit: PAGE });
      if (mine !== asked) return;
      pages.set(page, found.rows);
      total = found.total;
      summary(found);
    }));
    if (mine !== asked) return;
    const rows = [];
    for (let at = first; at < Math.min(last || PAGE, total); at++) {
      const row = (pages.get(Math.floor(at / PAGE)) || [])[at % PAGE];
      if (row) rows.push(line(row));
    }
    body.replaceChildren(gap(first), ...rows, gap(Math.max(0, total - first - rows.length)));
  };
  const summary = (found) => {
    const parts = Object.entries(found.states).sort((a, b) => b[1] - a[1]).map(([state, count]) => `${number(count)} ${state}`);
    document.getElementById("summary").textContent = `${number(found.total)} devices${parts.length ? ": " : ""}${parts.join(", ")}`;
    const filtered = query.search || query.state || query.at;
    document.getElementById("empty").hidden = found.total > 0 || Boolean(filtered);
    scroll.hidden = found.total === 0 && !filtered;
    told();
  };

  const paint = () => {
    const style = getComputedStyle(document.documentElement), ratio = window.devicePixelRatio || 1;
    const colours = map.states.map((state) => style.getPropertyValue(COLOURS[state]).trim());
    const width = canvas.parentElement.clientWidth - 16, count = map.codes.length;
    cell = count > 4000 ? 8 : count > 800 ? 11 : 16;
    across = Math.max(1, Math.floor(width / cell));
    const height = Math.max(1, Math.ceil(count / across)) * cell;
    canvas.width = across * cell * ratio;
    canvas.height = height * ratio;
    canvas.style.height = `${height}px`;
    canvas.style.width = `${across * cell}px`;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    map.codes.forEach((code, at) => {
      const x = (at % across) * cell, y = Math.floor(at / across) * cell, size = cell - 2;
      pen.fillStyle = pen.strokeStyle = colours[code];
      const shape = SHAPES[map.states[code]];
      if (shape === "off") pen.strokeRect(x + 1.5, y + 1.5, size - 1, size - 1);
      else if (shape === "warn") { pen.beginPath(); pen.moveTo(x + 1 + size / 2, y + 1); pen.lineTo(x + 1 + size, y + 1 + size); pen.lineTo(x + 1, y + 1 + size); pen.fill(); }
      else if (shape === "info") { pen.beginPath(); pen.arc(x + 1 + size / 2, y + 1 + size / 2, size / 2, 0, 7); pen.fill(); }
      else pen.fillRect(x + 1, y + 1, size, size);
    });
    const counts = new Map();
    map.codes.forEach((code) => counts.set(code, (counts.get(code) || 0) + 1));
    document.getElementById("legend").replaceChildren(...map.states.flatMap((state, code) => {
      if (!counts.has(code)) return [];
      const made = document.createElement("span");
      made.className = `state ${SHAPES[state]}`;
      made.textContent = `${state} ${number(counts.get(code))}`;
      return [made];
    }));
    canvas.closest("figure").hidden = count === 0;
  };
  const under = (event) => {
    const box = canvas.getBoundingClientRect();
    return map.names[Math.floor((event.clientY - box.top) / cell) * across + Math.floor((event.clientX - box.left) / cell)];
  };
  let tip = null;
  canvas.addEventListener("mousemove", (event) => {
    const name = under(event);
    tip?.remove();
    if (!name) return;
    tip = document.createElement("div");
    tip.id = "fleet-tip";
    tip.textContent = name;
    tip.style.left = `${event.clientX + 12}px`;
    tip.style.top = `${event.clientY + 12}px`;
    document.body.append(tip);
  });
  canvas.addEventListener("mouseleave", () => tip?.remove());
  canvas.addEventListener("click", (event) => { const name = under(event); if (name) location.href = `/devices/${encodeURIComponent(name)}`; });

  const sites = (names) => {
    const select = filters.elements.at;
    const known = new Set([...select.options].map((option) => option.value));
    names.filter((name) => !known.has(name)).forEach((name) => select.add(new Option(name, name)));
  };
  const load = async (keep) => {
    asked++;
    pages = new Map();
    if (!keep) scroll.scrollTop = 0;
    document.getElementById("csv").href = address("devices.csv", order);
    const mine = asked;
    const [found] = await Promise.all([get("fleet/map", {}), draw()]);
    if (mine !== asked) return;
    map = found;
    sites(found.sites);
    paint();
  };
  let timer = 0;
  const soon = (run, ms) => { clearTimeout(timer); timer = setTimeout(run, ms); };
  filters.addEventListener("input", () => {
    Object.assign(query, Object.fromEntries(new FormData(filters)));
    soon(() => load(false), SETTLE_MS);
  });
  filters.addEventListener("submit", (event) => event.preventDefault());
  document.querySelectorAll("#devices th[data-key]").forEach((head) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      order.descending = order.sort === head.dataset.key ? !order.descending : false;
      order.sort = head.dataset.key;
      document.querySelectorAll("#devices th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order.descending ? "descending" : "ascending");
      load(false);
    });
  });
  window.winnowFleet = { query, ticked, total: () => total, number, changed: (tell) => { told = tell; tell(); }, load };
  let drawing = false;
  scroll.addEventListener("scroll", () => {
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(async () => { drawing = false; await draw(); });
  });
  window.addEventListener("resize", paint);
  winnowHear(["fleet"], () => load(true));
  load(false);
})();
