// What charts have in common: colours of the page, axes, and a frame with a caption that follows the width.
"use strict";
(() => {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const axis = () => ({ stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } });
  const framed = (place, title) => {
    const box = document.createElement("figure"), caption = document.createElement("figcaption");
    caption.textContent = title;
    box.append(caption);
    place.append(box);
    return box;
  };
  const width = (box) => Math.max(240, box.clientWidth);
  const follow = (charts, height) => window.addEventListener("resize", () => charts().forEach((chart) => chart.setSize({ width: width(chart.root.parentElement), height })));
  window.winnowChart = { colour, axis, framed, width, follow };
})();
