// Drawing boxes, by mouse, finger or keyboard alone. The model's are there already, dashed, to be taken, moved or deleted;
// those that it is not sure of are dotted, and count only once somebody has touched them.
"use strict";
(() => {
  const CORNERS = { nw: [0, 0], n: [0.5, 0], ne: [1, 0], e: [1, 0.5], se: [1, 1], s: [0.5, 1], sw: [0, 1], w: [0, 0.5] };
  const FINGER = 14, SLIP = 4; // pixels of the screen: round a handle that still takes it; that a click may move
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const { make, boxed, percent } = window.winnowDrawn;

  window.winnowForms ??= {};
  window.winnowForms.detection = ({ at, say: tell, keys, answer, once, known }) => {
    let one = null, boxes = [], chosen = -1, past = [], drag = null, pen = "", size = [1, 1];
    const left = new Map(); // sample -> boxes as they were left: one may come back to it, or take the answer back
    const svg = at("drawing"), list = at("boxes");

    const scale = () => svg.getScreenCTM()?.a || 1; // pixels of the screen to one of the picture
    const clamp = (value, low = 0, high = 1) => Math.max(low, Math.min(high, value));
    const counted = () => boxes.filter((box) => !box.maybe);
    const whose = (box) => box.maybe ? "maybe" : box.mine ? "person" : "model";
    const told = (box) => `${box.label || "no class yet"}, ${{ maybe: "not sure, by the model", person: "yours", model: "by the model" }[whose(box)]}`;
    const where = (box) => `left ${percent(box.left)}, top ${percent(box.top)}, ${percent(box.right - box.left)} wide, ${percent(box.bottom - box.top)} high`;
    const say = (text) => { at("box-said").textContent = text; };
    const sayChosen = () => say(chosen < 0 ? `${counted().length} boxes, none chosen` : `box ${chosen + 1} of ${boxes.length}: ${told(boxes[chosen])}, ${where(boxes[chosen])}`);

    const remember = () => { past.push({ boxes: boxes.map((box) => ({ ...box })), chosen }); };
    const edit = (change) => { boxes[chosen] = { ...boxes[chosen], ...change, mine: true, maybe: false }; };
    const choose = (which) => { chosen = which; if (chosen >= 0) pen = boxes[chosen].label; render(); sayChosen(); };

    // --- what is seen ---
    const handles = (box, px) => Object.entries(CORNERS).map(([name, [x, y]]) => {
      const spot = { x: (box.left + x * (box.right - box.left)) * size[0], y: (box.top + y * (box.bottom - box.top)) * size[1] };
      const group = make("g", { class: `handle ${name}`, "data-handle": name });
      group.append(make("circle", { cx: spot.x, cy: spot.y, r: FINGER * px, class: "reach" }), make("rect", { x: spot.x - 4 * px, y: spot.y - 4 * px, width: 8 * px, height: 8 * px }));
      return group;
    });
    const render = () => {
      const px = 1 / scale();
      svg.querySelectorAll("g").forEach((group) => group.remove());
      boxes.forEach((box, index) => {
        const group = boxed([box.label, box.left, box.top, box.right, box.bottom, box.score], { width: size[0], height: size[1], whose: whose(box), size: 13 * px });
        group.dataset.box = index;
        if (index === chosen) { group.classList.add("chosen"); group.append(...handles(box, px)); }
        svg.append(group);
      });
      if (chosen >= 0) svg.append(svg.querySelector(`[data-box="${chosen}"]`)); // over the others
      renderList();
      at("classes").querySelectorAll("button").forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.name === pen)));
    };
    const renderList = () => {
      at("boxes-title").textContent = counted().length === 1 ? "1 box" : `${counted().length || "No"} boxes`;
      at("accept").lastChild.textContent = counted().length ? ` ${counted().length === 1 ? "This box is" : `These ${counted().length} boxes are`} right` : " Nothing here";
      list.replaceChildren(...boxes.map((box, index) => {
        const line = document.createElement("li"), pick = document.createElement("button"), gone = document.createElement("button");
        line.className = "row";
        pick.className = gone.className = "quiet small";
        pick.textContent = `${told(box)}${box.score < 1 ? ` ${percent(box.score)}` : ""}`;
        pick.setAttribute("aria-pressed", String(index === chosen));
        pick.addEventListener("click", () => { choose(index); svg.focus(); });
        gone.textContent = "×";
        gone.setAttribute("aria-label", `Delete box ${index + 1}, ${box.label}`);
        gone.addEventListener("click", () => { remove(index); svg.focus(); }); // not nowhere: the button is gone
        line.append(pick, gone);
        return line;
      }));
    };
    const show = (question, { classes, score_min: least }) => {
      const [height, width] = question.shape;
      if (one && past.length) left.set(one.sample_id, boxes);
      one = question;
      size = [width, height];
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      svg.querySelector("image")?.remove();
      svg.prepend(make("image", { href: question.picture, width, height, preserveAspectRatio: "none" }));
      svg.setAttribute("aria-label", `Sample ${question.sample_id}: boxes`);
      boxes = left.get(question.sample_id) ?? (question.said?.boxes ?? []).map(([label, left, top, right, bottom, score]) => ({ label, left, top, right, bottom, score, mine: false, maybe: score < least }));
      past = [];
      drag = null;
      chosen = -1;
      pen = classes.includes(pen) ? pen : classes[0] ?? "";
      at("classes").replaceChildren(...classes.slice(0, keys.length).map((name, index) => {
        const made = document.createElement("button"), key = document.createElement("kbd");
        made.className = "quiet";
        made.dataset.name = name;
        key.textContent = keys[index];
        made.append(key, ` ${name}`);
        made.addEventListener("click", () => classify(name));
        return made;
      }));
      render();
      sayChosen();
    };

    // --- what is done ---
    const classify = (name) => {
      pen = name;
      if (chosen >= 0) { remember(); edit({ label: name }); sayChosen(); }
      render();
    };
    const remove = (which) => {
      if (which < 0) return;
      remember();
      const gone = boxes.splice(which, 1)[0];
      chosen = Math.min(which, boxes.length - 1);
      render();
      say(`deleted ${gone.label}; ${chosen < 0 ? "no box is left" : `box ${chosen + 1} of ${boxes.length}: ${told(boxes[chosen])}`}`);
    };
    const add = (box) => {
      remember();
      boxes.push({ label: pen, score: 1, mine: true, maybe: false, ...box });
      choose(boxes.length - 1);
    };
    const nudge = ([x, y], resize, step) => { // by pixels of the picture; the lower right corner with resize
      const box = boxes[chosen], dx = x * step / size[0], dy = y * step / size[1];
      remember();
      if (resize) edit({ right: clamp(box.right + dx, box.left + 1 / size[0]), bottom: clamp(box.bottom + dy, box.top + 1 / size[1]) });
      else edit(shifted(box, dx, dy));
      render();
      sayChosen();
    };
    const shifted = (box, dx, dy) => {
      const x = clamp(dx, -box.left, 1 - box.right), y = clamp(dy, -box.top, 1 - box.bottom);
      return { left: box.left + x, right: box.right + x, top: box.top + y, bottom: box.bottom + y };
    };
    const undone = () => {
      const before = past.pop();
      if (!before) return false;
      ({ boxes, chosen } = before);
      render();
      say("undone");
      return true;
    };
    const accept = () => {
      if (!one) return;
      const nameless = boxes.findIndex((box) => !box.maybe && !box.label);
      if (nameless >= 0) { choose(nameless); tell("which class is this box? pick one, or type it"); return; }
      left.set(one.sample_id, boxes);
      const told_ = counted(), names = [...new Set(told_.map((box) => box.label))];
      const truth = { boxes: told_.map(({ label, left, top, right, bottom }) => [label, ...[left, top, right, bottom].map((share) => Number(share.toFixed(6)))]) };
      const counts = names.map((name) => { const n = told_.filter((box) => box.label === name).length; return n === 1 ? name : `${name} ×${n}`; });
      answer(counts.join(", ") || "nothing", { truth, new_class: names.some((name) => !known(name)) });
    };

    // --- pointers ---
    const spot = (event) => {
      const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      return [clamp(x / size[0]), clamp(y / size[1])];
    };
    svg.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || drag) return;
      const target = event.target.closest("[data-handle]") ?? event.target.closest("[data-box]");
      const from = spot(event), screen = [event.clientX, event.clientY];
      event.preventDefault();
      svg.focus();
      svg.setPointerCapture(event.pointerId);
      if (target?.dataset.handle) drag = { kind: "size", handle: target.dataset.handle, box: { ...boxes[chosen] }, from, screen };
      else if (target) { const which = Number(target.dataset.box); choose(which); drag = { kind: "move", box: { ...boxes[which] }, from, screen }; }
      else drag = { kind: "draw", from, screen };
    });
    svg.addEventListener("pointermove", (event) => {
      if (!drag) return;
      const [x, y] = spot(event), [x0, y0] = drag.from;
      if (!drag.moved && Math.hypot(event.clientX - drag.screen[0], event.clientY - drag.screen[1]) < SLIP) return;
      if (!drag.moved) {
        if (drag.kind === "draw") add({ left: x0, top: y0, right: x0, bottom: y0 });
        else remember();
        drag.moved = true;
      }
      if (drag.kind === "move") edit(shifted(drag.box, x - x0, y - y0));
      else if (drag.kind === "draw") edit({ left: Math.min(x0, x), right: Math.max(x0, x), top: Math.min(y0, y), bottom: Math.max(y0, y) });
      else {
        const box = drag.box, [hx, hy] = CORNERS[drag.handle];
        const across = hx === 0.5 ? [box.left, box.right] : [x, hx ? box.left : box.right].sort((a, b) => a - b);
        const down = hy === 0.5 ? [box.top, box.bottom] : [y, hy ? box.top : box.bottom].sort((a, b) => a - b);
        edit({ left: across[0], right: across[1], top: down[0], bottom: down[1] });
      }
      render();
    });
    const drop = () => {
      if (!drag) return;
      const { kind, moved } = drag;
      drag = null;
      if (!moved) { if (kind === "draw") choose(-1); return; }
      const box = boxes[chosen]; // one that was folded flat is gone again
      if ((box.right - box.left) * size[0] < 1 || (box.bottom - box.top) * size[1] < 1) { undone(); return; }
      sayChosen();
    };
    svg.addEventListener("pointerup", drop);
    svg.addEventListener("pointercancel", drop);
    at("accept").addEventListener("click", once(accept));
    at("add").addEventListener("click", () => { add({ left: 0.25, top: 0.25, right: 0.75, bottom: 0.75 }); svg.focus(); });

    const key = (event, classes) => { // whether it was ours
      if (drag) return event.key !== "Tab"; // one thing at a time
      const onButton = event.target.matches("button, summary, a");
      if (event.key === "Tab" && event.target === svg && boxes.length) {
        const next = chosen + (event.shiftKey ? -1 : 1);
        if (next < 0 || next >= boxes.length) return false; // on to what comes after, or before: nobody is caught here
        choose(next);
        return true;
      }
      if (event.key === "Enter" && !onButton) { accept(); return true; }
      if (event.key === "n") { add({ left: 0.25, top: 0.25, right: 0.75, bottom: 0.75 }); svg.focus(); return true; }
      if (event.key === "u") return undone();
      if (event.key === "Escape") { choose(-1); return true; }
      if (chosen >= 0 && event.key in ARROWS) { nudge(ARROWS[event.key], event.shiftKey, event.repeat ? 4 : 1); return true; }
      if (chosen >= 0 && (event.key === "Delete" || event.key === "Backspace")) { remove(chosen); return true; }
      const index = event.key.length === 1 ? keys.indexOf(event.key) : -1;
      if (index >= 0 && index < classes.length) { classify(classes[index]); return true; }
      return false;
    };
    return { show, key, accept, classify, picture: svg, resize: render, nothing: { boxes: [] } };
  };
})();
