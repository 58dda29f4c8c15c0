// A picture with the boxes that are said to be in it: solid those of people, dashed those of a model, each with its words.
// All in one SVG, so that boxes stay on what they are around whatever size it has.
"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const make = (name, attributes = {}) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const percent = (share) => `${Math.round(100 * share)} %`;
  const words = (box, whose) => `${box[0]}${whose === "model" && box[5] !== null ? `, model ${percent(box[5])}` : ""}`;

  // One box as a group: [class, left, top, right, bottom, score] in shares; size: of letters, in pixels of the picture.
  const boxed = (box, { width, height, whose, size, below = false }) => {
    const [, left, top, far, bottom] = box, group = make("g", { class: `box ${whose}` });
    const place = { x: left * width, y: top * height, width: (far - left) * width, height: (bottom - top) * height };
    group.append(make("rect", { ...place, class: "halo" }), make("rect", { ...place, class: "edge" }));
    if (!size) return group;
    const under = whose === "person" && below, right = left + far > 1; // what lies to the right is written to the left
    const y = under ? place.y + place.height - size / 3 : place.y > 1.3 * size ? place.y - size / 3 : place.y + size;
    const text = make("text", { x: right ? place.x + place.width : place.x + size / 4, y, "font-size": size, "text-anchor": right ? "end" : "start" });
    text.textContent = under ? `${box[0]}, label` : words(box, whose);
    group.append(text);
    return group;
  };
  const picture = (src, [height, width]) => {
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, class: "drawing" });
    svg.append(make("image", { href: src, width, height, preserveAspectRatio: "none" }));
    return svg;
  };
  // row: of /api/v1/samples, with `truth` and `model`.
  const drawn = (row, src, alt, letters = 0) => { // letters: their size, of the longer edge; 0: none
    const [height, width] = row.shape, svg = picture(src, row.shape), size = Math.max(height, width) * letters;
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", alt);
    (row.model?.boxes ?? []).forEach((box) => svg.append(boxed(box, { width, height, whose: "model", size })));
    (row.truth?.boxes ?? []).forEach((box) => svg.append(boxed(box, { width, height, whose: "person", size, below: true })));
    return svg;
  };
  window.winnowDrawn = { make, boxed, drawn, percent };

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll("[data-drawn]").forEach((place) => {
    const row = JSON.parse(place.dataset.drawn);
    place.replaceChildren(drawn(row, place.dataset.picture, place.dataset.alt, 1 / 30));
  }));
})();
