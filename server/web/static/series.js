// A recording as lines over time, a panel to each unit's scale where that helps, and as sound.
"use strict";
(() => {
  const HUES = ["#0f766e", "#b45309", "#1d5fb8", "#a21caf", "#4d7c0f", "#be123c"];
  const DARK = ["#4fd1c0", "#f0b060", "#8fbcff", "#e29af0", "#a8d26a", "#ff9fb0"];
  const DASHES = [[], [6, 3], [2, 2], [8, 3, 2, 3], [1, 3], [10, 4]];
  const cache = new Map();

  const get = (id) => { // kept, so that what was fetched ahead is there
    if (!cache.has(id)) {
      cache.set(id, fetch(`/api/v1/samples/${encodeURIComponent(id)}/series`).then(async (answer) => {
        const said = await answer.json();
        if (!answer.ok) throw new Error(said.detail);
        return said;
      }).catch((error) => { cache.delete(id); throw error; }));
      if (cache.size > 80) cache.delete(cache.keys().next().value);
    }
    return cache.get(id);
  };
  const draw = async (place, id, height) => {
    place.chart?.destroy();
    place.chart = null;
    place.dataset.sample = id;
    const found = await get(id);
    if (place.dataset.sample !== id) return;
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const series = found.names.map((name, n) => ({ label: name, stroke: (dark ? DARK : HUES)[n % HUES.length], dash: DASHES[Math.floor(n / HUES.length) % DASHES.length], width: 1.2, points: { show: false } }));
    const unit = found.rate_hz ? { label: "s" } : { label: "reading" };
    place.chart = new uPlot({
      width: winnowChart.width(place), height, cursor: { drag: { x: true, y: false } }, scales: { x: { time: false } },
      series: [unit, ...series], axes: [winnowChart.axis(), { ...winnowChart.axis(), size: 56 }], legend: { show: true },
    }, [found.at, ...found.values], place);
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", `${found.length} readings${found.rate_hz ? ` at ${found.rate_hz} Hz` : ""} of ${found.channels === 1 ? "one channel" : `${found.channels} channels: ${found.names.join(", ")}`}`);
    const rate = place.parentElement.querySelector("select.rate");
    if (rate && found.rate_hz) {
      const known = String(Math.max(1000, Math.min(384000, Math.round(found.rate_hz))));
      if (![...rate.options].some((option) => option.value === known)) rate.add(new Option(`${known} Hz`, known));
      rate.value = known;
      rate.dispatchEvent(new Event("change"));
    }
  };
  const resize = (place) => place.chart?.setSize({ width: winnowChart.width(place), height: place.chart.height });
  // Drag zooms in, a double click shows all again; so do the buttons, for who has no mouse.
  const zoom = (place, factor) => {
    const chart = place.chart;
    if (!chart) return;
    const at = chart.data[0], whole = [at[0], at[at.length - 1]], { min, max } = chart.scales.x;
    const half = Math.min((whole[1] - whole[0]) / 2, (max - min) / 2 / factor), middle = (min + max) / 2;
    chart.setScale("x", { min: Math.max(whole[0], middle - half), max: Math.min(whole[1], middle + half) });
  };
  const sound = (player, rate, id) => {
    const tune = () => { player.src = `/samples/${encodeURIComponent(id)}/sound?rate=${rate.value}`; };
    rate.onchange = tune;
    tune();
  };
  window.winnowSeries = { get, draw, resize, zoom, sound };
  document.querySelectorAll("[data-series]").forEach((place) => {
    draw(place, place.dataset.series, 320).catch((error) => { place.textContent = error.message; });
    window.addEventListener("resize", () => resize(place));
    const player = place.parentElement.querySelector("audio");
    if (player) sound(player, place.parentElement.querySelector("select.rate"), place.dataset.series);
  });
})();
