// How a training goes, epoch by epoch; drawn anew when there is news of one that is at it.
"use strict";
(() => {
  const { colour, axis, framed, width, follow } = winnowChart;
  const card = document.getElementById("curve"), place = document.getElementById("curves"), HEIGHT = 200;
  const SHOWN = [
    ["Loss", [["loss", "learned from", "--accent", []], ["held_loss", "kept back", "--warn", [6, 3]]]],
    ["Accuracy on what is kept back", [["held_accuracy", "kept back", "--warn", [6, 3]]], 1],
    ["Learning rate", [["learning_rate", "learning rate", "--accent", []]]],
  ];
  let charts = [], drawn = -1;
  const figure = (value) => value === null || value === undefined ? "–" : Number(value).toPrecision(3);
  const said = (title, lines, points) => `${title}, ${points.length} epochs: ` + lines.map(([key, name]) => `${name} ${figure(points[0][key])} at first, ${figure(points.at(-1)[key])} at last`).join("; ");
  const draw = (points) => {
    charts.forEach((chart) => chart.destroy());
    place.replaceChildren();
    charts = SHOWN.flatMap(([title, known, most]) => {
      const lines = known.filter(([key]) => points.some((point) => point[key] !== null));
      if (!lines.length) return [];
      const box = framed(place, title);
      box.setAttribute("role", "img");
      box.setAttribute("aria-label", said(title, lines, points));
      const few = points.length < 30;
      const series = lines.map(([, name, hue, dash]) => ({ label: name, stroke: colour(hue), dash, width: 1.5, points: { show: few, size: 5 }, value: (_, value) => figure(value) }));
      return [new uPlot({
        width: width(box), height: HEIGHT, cursor: { y: false }, series: [{ label: "epoch", value: (_, value) => value ?? "–" }, ...series],
        axes: [{ ...axis(), incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000] }, { ...axis(), size: 64 }],
        scales: { x: { time: false }, y: { range: (_, low, high) => [Math.min(0, low), most ?? (high > 0 ? high * 1.05 : 1)] } },
      }, [points.map((point) => point.epoch), ...lines.map(([key]) => points.map((point) => point[key]))], box)];
    });
  };
  const words = (points, state) => {
    const first = points[0], last = points.at(-1), held = points.filter((point) => point.held_loss !== null);
    const best = held.reduce((low, point) => (low === null || point.held_loss < low.held_loss ? point : low), null);
    const parts = [`${state === "training" ? "at" : "ended after"} epoch ${last.epoch}, ${Math.round(last.seconds)} s`];
    if (first.epoch > 1) parts.push(`went on from a checkpoint of epoch ${first.epoch - 1}: a round before has the beginning`);
    if (best) parts.push(`lowest on what is kept back in epoch ${best.epoch}`);
    return parts.join("; ");
  };
  const load = async () => {
    const answer = await fetch(`/api/v1/runs/${card.dataset.run}/curve`);
    if (!answer.ok) return;
    const { points, state } = await answer.json();
    card.hidden = !points.length && state !== "training";
    document.getElementById("curve-said").textContent = points.length ? words(points, state) : "No epoch has ended yet.";
    if (points.length === drawn) return;
    drawn = points.length;
    if (points.length) draw(points);
  };
  winnowHear(["curve", "models"], load);
  follow(() => charts, HEIGHT);
  load();
})();
