// The map of embeddings on a canvas: a shape and a colour to each class, a line drawn round points picks them.
"use strict";
(() => {
  const SHAPES = ["●", "■", "▲", "◆", "✚", "▼", "○", "□", "△", "◇"];
  const HUES = [174, 28, 214, 300, 84, 345, 250, 52, 195, 120];
  const NOBODY = { "-1": "cannot tell", "-2": "none of these", "-3": "no label" };
  const NEAR = 6; // pixels that a pointer moves and still clicks

  window.winnowMap = ({ canvas, groups, by, about, chosen }) => {
    let map = null, path = [], frame = null, picked = null;
    const pen = canvas.getContext("2d");
    const dark = () => matchMedia("(prefers-color-scheme: dark)").matches;
    const codes = () => map[by.value];
    const name = (code) => code >= 0 ? map.classes[code] ?? String(code) : by.value === "predicted" ? "nothing" : NOBODY[code];
    const colour = (code) => code < 0 ? (dark() ? "#8b98a4" : "#7a8791") : `hsl(${HUES[code % HUES.length]} ${dark() ? "65% 62%" : "70% 36%"})`;
    const shape = (code) => code < 0 ? "·" : SHAPES[(code + Math.floor(code / SHAPES.length)) % SHAPES.length];
    const side = () => canvas.clientWidth;
    const spot = (n) => [map.x[n] * side(), (1 - map.y[n]) * side()];

    const stroke = (code, x, y, r) => {
      pen.beginPath();
      const kind = code < 0 ? -1 : SHAPES.indexOf(shape(code)) % 6;
      if (kind === 1) pen.rect(x - r, y - r, 2 * r, 2 * r);
      else if (kind === 2) { pen.moveTo(x, y - 1.2 * r); pen.lineTo(x + 1.1 * r, y + r); pen.lineTo(x - 1.1 * r, y + r); pen.closePath(); }
      else if (kind === 3) { pen.moveTo(x, y - 1.3 * r); pen.lineTo(x + 1.3 * r, y); pen.lineTo(x, y + 1.3 * r); pen.lineTo(x - 1.3 * r, y); pen.closePath(); }
      else if (kind === 4) { pen.rect(x - 1.2 * r, y - 0.4 * r, 2.4 * r, 0.8 * r); pen.rect(x - 0.4 * r, y - 1.2 * r, 0.8 * r, 2.4 * r); }
      else if (kind === 5) { pen.moveTo(x, y + 1.2 * r); pen.lineTo(x + 1.1 * r, y - r); pen.lineTo(x - 1.1 * r, y - r); pen.closePath(); }
      else pen.arc(x, y, kind === -1 ? 0.6 * r : r, 0, 7);
      if (code >= 0 && SHAPES.indexOf(shape(code)) >= 6) pen.stroke(); else pen.fill();
    };
    const draw = () => {
      if (!map || !side()) return;
      const ratio = window.devicePixelRatio || 1, size = side(), count = map.ids.length;
      canvas.width = canvas.height = size * ratio;
      pen.scale(ratio, ratio);
      const r = count > 8000 ? 1.8 : count > 1500 ? 2.6 : 4;
      for (let n = 0; n < count; n++) {
        const code = codes()[n], [x, y] = spot(n);
        pen.globalAlpha = picked && !picked.has(n) ? 0.15 : 0.85;
        pen.fillStyle = pen.strokeStyle = colour(code);
        stroke(code, x, y, r);
      }
      pen.globalAlpha = 1;
      pen.strokeStyle = getComputedStyle(canvas).getPropertyValue("--ink");
      pen.lineWidth = 1.5;
      pen.setLineDash([5, 4]);
      if (path.length > 1) { pen.beginPath(); path.forEach(([x, y], n) => n ? pen.lineTo(x, y) : pen.moveTo(x, y)); pen.closePath(); pen.stroke(); }
      if (frame) pen.strokeRect((frame.x - frame.half) * size, (frame.y - frame.half) * size, 2 * frame.half * size, 2 * frame.half * size);
      pen.setLineDash([]);
    };
    const list = () => {
      const counts = new Map();
      codes().forEach((code) => counts.set(code, (counts.get(code) || 0) + 1));
      groups.replaceChildren(...[...counts].sort((a, b) => b[1] - a[1]).map(([code, count]) => {
        const made = document.createElement("li"), button = document.createElement("button"), sign = document.createElement("span"), many = document.createElement("span");
        button.type = "button";
        button.className = "quiet small";
        sign.textContent = shape(code);
        sign.style.color = colour(code);
        sign.setAttribute("aria-hidden", "true");
        many.textContent = count.toLocaleString("en").replaceAll(",", " ");
        many.className = "num muted";
        button.append(sign, document.createTextNode(` ${name(code)} `), many);
        button.addEventListener("click", () => pick((n) => codes()[n] === code, name(code)));
        made.append(button);
        return made;
      }));
    };
    const pick = (inside, what) => {
      picked = new Set([...map.ids.keys()].filter(inside));
      if (!picked.size) picked = null;
      draw();
      chosen([...(picked ?? [])].map((n) => map.ids[n]), what);
    };
    const within = (x, y) => { // even-odd rule
      let odd = false;
      for (let i = 0, j = path.length - 1; i < path.length; j = i++) {
        const [ax, ay] = path[i], [bx, by_] = path[j];
        if ((ay > y) !== (by_ > y) && x < (bx - ax) * (y - ay) / (by_ - ay) + ax) odd = !odd;
      }
      return odd;
    };
    const here = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    canvas.addEventListener("pointerdown", (event) => { if (!map) return; canvas.setPointerCapture(event.pointerId); path = [here(event)]; frame = null; });
    canvas.addEventListener("pointermove", (event) => { if (path.length && event.buttons) { path.push(here(event)); draw(); } });
    canvas.addEventListener("pointerup", () => {
      if (!path.length) return;
      const [x, y] = path[0], far = Math.max(...path.map(([ox, oy]) => Math.hypot(ox - x, oy - y)));
      if (far < NEAR) { // a click: the nearest one
        const distance = (n) => { const [ox, oy] = spot(n); return Math.hypot(ox - x, oy - y); };
        let best = -1;
        for (let n = 0; n < map.ids.length; n++) if (distance(n) < 12 && (best < 0 || distance(n) < distance(best))) best = n;
        path = [];
        pick((n) => n === best, "");
      } else pick((n) => within(...spot(n)), "");
    });
    canvas.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (!map || event.ctrlKey || event.metaKey || event.altKey) return;
      frame ??= { x: 0.5, y: 0.5, half: 0.1 };
      const clip = (value) => Math.max(0, Math.min(1, value));
      if (event.key in steps) { const [dx, dy] = steps[event.key]; frame.x = clip(frame.x + dx * frame.half / 2); frame.y = clip(frame.y + dy * frame.half / 2); }
      else if (event.key === "+") frame.half = Math.min(0.5, frame.half * 1.3);
      else if (event.key === "-") frame.half = Math.max(0.01, frame.half / 1.3);
      else if (event.key === "Enter") { const { x, y, half } = frame; pick((n) => Math.abs(map.x[n] - x) <= half && Math.abs(1 - map.y[n] - y) <= half, ""); }
      else if (event.key === "Escape") { clear(); chosen([], ""); }
      else return;
      event.preventDefault();
      path = [];
      draw();
    });
    const clear = () => { path = []; frame = picked = null; draw(); };
    const open = async () => {
      const answer = await fetch("/api/v1/samples/map");
      if (!answer.ok) return;
      const found = await answer.json(), before = map;
      map = found.ids.length ? found : null;
      if (before && map && before.ids.length !== map.ids.length) { path = []; frame = picked = null; }
      const state = { drawn: "", drawing: "It is being drawn; it will be here by itself. ", none: "There is no map yet. " }[found.state];
      about.textContent = `${state}${found.why ? `${found.why} ` : ""}${map ? `${map.ids.length.toLocaleString("en").replaceAll(",", " ")} samples as version ${map.version} sees them: those near to each other are alike to it.` : ""}`;
      canvas.hidden = !map;
      by.closest("div").hidden = !map;
      if (!map) return;
      list();
      draw();
    };
    by.addEventListener("change", () => { picked = null; list(); draw(); });
    window.addEventListener("resize", draw);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (map) { list(); draw(); } });
    return { open, clear };
  };
})();
