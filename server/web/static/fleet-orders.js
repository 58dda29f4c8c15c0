// One order to many devices: those that are ticked, or those that the search finds. First whom it concerns, then the word.
"use strict";
(() => {
  const { query, ticked, total, number, changed, load } = winnowFleet;
  const at = (id) => document.getElementById(id);
  const dialog = at("orders"), form = dialog.querySelector("form"), go = at("orders-go"), look = at("orders-look");
  const token = document.querySelector('meta[name="csrf"]').content;
  let whom = {}; // ticked, or found by a search
  let meant = null; // whom the next press tells: what was looked at, and no others
  const many = (count) => `${number(count)} device${count === 1 ? "" : "s"}`;
  const counts = (found, none) => Object.entries(found).sort((a, b) => b[1] - a[1]).slice(0, 6).map(([name, count]) => `${name || none} ${number(count)}`).join(", ") + (Object.keys(found).length > 6 ? " …" : "");
  const say = (text) => { at("said").textContent = text; setTimeout(() => { at("said").textContent = ""; }, 6000); };

  const searched = () => query.search || query.state || query.at;
  const show = () => {
    at("order").hidden = total() === 0;
    at("order").textContent = searched() ? `Order ${many(total())} found …` : `Order all ${number(total())} …`;
    at("bulk").hidden = ticked.size === 0;
    at("ticked").textContent = `${many(ticked.size)} ticked`;
  };
  const forget = () => {
    meant = null;
    look.replaceChildren();
    go.textContent = "Look whom it concerns";
    go.className = "";
  };
  const fields = () => {
    const word = form.elements.word.value;
    form.querySelectorAll("[data-for]").forEach((part) => { part.hidden = !part.dataset.for.split(" ").includes(word); });
    const place = form.elements.place;
    place.required = ["channel", "ring", "site"].includes(word);
    place.placeholder = word === "ring" ? "- : drawn anew" : word === "site" ? "- : none" : "";
  };
  const answered = async (answer) => {
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.detail);
    return said;
  };
  const line = (text, className = "") => { const made = document.createElement("p"); made.textContent = text; made.className = className; return made; };

  const foresee = async () => {
    const those = whom, found = await answered(await fetch(`/api/v1/orders/meant?${new URLSearchParams(those)}`));
    if (those !== whom) return; // the dialog was opened anew, for others
    meant = found.devices;
    const word = form.elements.word.value, also = [];
    if (found.revoked.length) also.push(`${number(found.revoked.length)} revoked, left out`);
    if (found.unknown.length) also.push(`${number(found.unknown.length)} not here any more, left out`);
    if (found.paused) also.push(`${number(found.paused)} paused already`);
    if (word === "budget" && found.budgeted) also.push(`${number(found.budgeted)} with a budget by order, which this one replaces`);
    const [now, none] = { channel: ["channels"], ring: ["rings", "drawn anew"], site: ["sites", "no site"] }[word] ?? [];
    const some = meant.slice(0, 5).join(", ") + (meant.length > 5 ? ` and ${number(meant.length - 5)} more` : "");
    look.replaceChildren(
      line(`This concerns ${many(meant.length)}, ${number(found.online)} online: ${some}.`),
      ...(also.length ? [line(`Of them: ${also.join("; ")}.`, "muted")] : []),
      ...(now ? [line(`Now: ${counts(found[now], none)}.`, "muted")] : []),
    );
    go.textContent = `Tell ${many(meant.length)}`;
    go.className = "danger";
  };
  const tell = async () => {
    const { word, place, why, label_share: share, labels_per_day: labels, bytes_per_day: bytes } = form.elements;
    const figure = (field, scale = 1) => (field.value === "" ? null : Number(field.value) / scale);
    const spent = { label_share: figure(share, 100), labels_per_day: figure(labels), bytes_per_day: figure(bytes) };
    const [path, more] = { pause: ["pause", {}], resume: ["resume", {}], budget: ["budget", spent] }[word.value] ?? ["place", { [word.value]: place.value }];
    const said = await answered(await fetch(`/api/v1/orders/${path}`, {
      method: "POST", headers: { "Content-Type": "application/json", "X-CSRF-Token": token },
      body: JSON.stringify({ devices: meant.join(","), why: why.value, ...more }),
    }));
    dialog.close();
    ticked.clear();
    form.reset();
    say(`${many(said.devices.length)} told: ${path === "place" ? "it holds from now on" : "a running server passes it on"}`);
    load(true);
  };

  const open = (title, those) => {
    whom = those;
    forget();
    fields();
    at("orders-title").textContent = title;
    dialog.showModal();
  };
  at("order").addEventListener("click", () => open(searched() ? "To all that the search finds" : "To the whole fleet", { ...query }));
  at("order-ticked").addEventListener("click", () => open(`To ${many(ticked.size)} ticked`, { devices: [...ticked].join(",") }));
  at("untick").addEventListener("click", () => { ticked.clear(); load(true); });
  form.addEventListener("input", () => { fields(); forget(); }); // what was looked at is not what would be told now
  form.addEventListener("submit", async (event) => {
    if (event.submitter?.value === "close") return;
    event.preventDefault();
    go.disabled = true;
    try { await (meant ? tell() : foresee()); } catch (error) { forget(); look.replaceChildren(line(error.message, "state bad")); } finally { go.disabled = false; }
  });
  changed(show);
})();
