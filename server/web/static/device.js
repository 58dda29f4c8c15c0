// Charts of one device's past; they are drawn anew when there is news of the fleet.
"use strict";
(() => {
  const place = document.getElementById("charts"), days = document.getElementById("days");
  const shown = [
    ["samples_per_s", "Samples/s"], ["drift", "Drift, share of an alarm", 1], ["confidence", "Confidence"], ["latency_p95_ms", "Latency p95, ms"],
    ["outbox_rows", "Outbox, samples"], ["rss_bytes", "Memory, MB", null, 1e-6], ["cpu_share", "CPU, cores"], ["temperature_c", "Temperature, °C"],
  ];
  let charts = [];
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const draw = (past) => {
    charts.forEach((chart) => chart.destroy());
    place.replaceChildren();
    charts = shown.flatMap(([key, title, limit, scale = 1]) => {
      const at = past.series[key]?.at ?? past.at, values = past.series[key]?.values ?? [];
      if (!values.some((value) => value !== null)) return [];
      const box = document.createElement("figure"), caption = document.createElement("figcaption");
      caption.textContent = title;
      box.append(caption);
      place.append(box);
      const data = [at.map((ms) => ms / 1000), values.map((value) => value === null ? null : value * scale)];
      const series = [{}, { label: title, stroke: colour("--accent"), width: 1.5, spanGaps: false, points: { show: values.length < 30 } }];
      if (limit != null) {
        data.push(at.map(() => limit));
        series.push({ label: "alarm", stroke: colour("--bad"), dash: [4, 4], width: 1, points: { show: false } });
      }
      const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
      return [new uPlot({ width: Math.max(240, box.clientWidth), height: 150, legend: { show: false }, cursor: { y: false }, series, axes: [axis, { ...axis, size: 56 }], scales: { y: { range: (_, low, high) => [Math.min(0, low), Math.max(high * 1.05, limit ?? 0, 1e-9)] } } }, data, box)];
    });
    document.getElementById("no-past").hidden = charts.length > 0;
  };
  const load = async () => {
    const answer = await fetch(`/api/v1/devices/${encodeURIComponent(place.dataset.device)}/history?days=${days.value}`);
    if (answer.ok) draw(await answer.json());
  };
  let soon = 0;
  document.body.addEventListener("live-fleet", () => { if (!soon && !document.hidden) soon = setTimeout(() => { soon = 0; load(); }, 10000); });
  days.addEventListener("change", load);
  window.addEventListener("resize", () => charts.forEach((chart) => chart.setSize({ width: chart.root.parentElement.clientWidth, height: 150 })));
  load();
})();
