// Charts of one device's past; they are drawn anew when there is news of the fleet.
"use strict";
(() => {
  const { colour, axis, framed, width, follow } = winnowChart;
  const place = document.getElementById("charts"), days = document.getElementById("days");
  const shown = [
    ["samples_per_s", "Samples/s"], ["utility", "Utility, mean of all samples"], ["drift", "Drift, share of an alarm", 1], ["confidence", "Confidence, mean of all samples"], ["latency_p95_ms", "Latency p95, ms"],
    ["outbox_rows", "Outbox, samples"], ["rss_bytes", "Memory, MB", null, 1e-6], ["cpu_share", "CPU, cores"], ["temperature_c", "Temperature, °C"],
  ];
  let charts = [];
  // The time asked for, or as much of it as there is: a young device's past is not a speck at the edge.
  const span = (past) => {
    const from = past.at.length ? Math.max(past.since, past.at[0] - 300000) : past.since;
    return [Math.min(from, past.until - 3600000) / 1000, past.until / 1000];
  };
  const clock = (_, splits, __, ___, apart) => splits.map((s, n) => {
    const time = new Date(s * 1000), day = `${time.getMonth() + 1}`.padStart(2, "0") + "-" + `${time.getDate()}`.padStart(2, "0");
    if (apart >= 86400) return day;
    const hour = `${time.getHours()}`.padStart(2, "0") + ":" + `${time.getMinutes()}`.padStart(2, "0");
    return n === 0 || hour === "00:00" ? `${hour}\n${day}` : hour;
  });
  const mix = (classes) => {
    document.getElementById("mix").hidden = !classes.length;
    const rows = classes.map((one) => {
      const row = document.createElement("tr"), name = document.createElement("th"), bar = document.createElement("td"), share = document.createElement("td"), usual = document.createElement("td");
      name.scope = "row";
      name.textContent = one.name;
      bar.innerHTML = '<div class="bar" aria-hidden="true"><span></span><i></i></div>';
      bar.querySelector("span").style.width = `${100 * one.share}%`;
      if (one.expected === null) bar.querySelector("i").remove(); else bar.querySelector("i").style.left = `${100 * one.expected}%`;
      share.className = usual.className = "num";
      share.textContent = `${(100 * one.share).toFixed(1)} %`;
      usual.textContent = one.expected === null ? "–" : `${(100 * one.expected).toFixed(1)} %`;
      row.append(name, bar, share, usual);
      return row;
    });
    document.querySelector("#mix tbody").replaceChildren(...rows);
  };
  const draw = (past) => {
    mix(past.classes);
    charts.forEach((chart) => chart.destroy());
    place.replaceChildren();
    charts = shown.flatMap(([key, title, limit, scale = 1]) => {
      const at = past.at, values = past.series[key] ?? [];
      if (!values.some((value) => value !== null)) return [];
      const box = framed(place, title);
      const data = [at.map((ms) => ms / 1000), values.map((value) => value === null ? null : value * scale)];
      const series = [{}, { label: title, stroke: colour("--accent"), width: 1.5, spanGaps: false, points: { show: values.length < 30 } }];
      if (limit != null) {
        data.push(at.map(() => limit));
        series.push({ label: "alarm", stroke: colour("--bad"), dash: [4, 4], width: 1, points: { show: false } });
      }
      return [new uPlot({ width: width(box), height: 150, legend: { show: false }, cursor: { y: false }, series, axes: [{ ...axis(), values: clock }, { ...axis(), size: 56 }], scales: { x: { range: () => span(past) }, y: { range: (_, low, high) => [Math.min(0, low), Math.max(high * 1.05, limit ?? 0, 1e-9)] } } }, data, box)];
    });
    document.getElementById("no-past").hidden = charts.length > 0;
  };
  const load = async () => {
    const answer = await fetch(`/api/v1/devices/${encodeURIComponent(place.dataset.device)}/history?days=${days.value}`);
    if (answer.ok) draw(await answer.json());
  };
  winnowHear(["fleet"], load, 10000);
  days.addEventListener("change", load);
  follow(() => charts, 150);
  load();
})();
