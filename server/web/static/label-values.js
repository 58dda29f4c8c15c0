// Answers that are several classes, or numbers. The model's are there already, to be taken by Enter.
"use strict";
(() => {
  const { percent } = window.winnowDrawn;
  window.winnowForms ??= {};

  window.winnowForms.multilabel = ({ at, keys, answer, once, known }) => {
    let one = null, applies = new Set(), past = [];
    const left = new Map(); // sample -> classes as they were left
    const render = () => {
      at("classes").querySelectorAll("button").forEach((button) => button.setAttribute("aria-pressed", String(applies.has(button.dataset.name))));
      at("accept").lastChild.textContent = ` ${applies.size ? [...applies].join(", ") : "None of them"}`;
    };
    const turn = (name) => {
      past.push(new Set(applies));
      if (applies.has(name)) applies.delete(name); else applies.add(name);
      if (!known(name) && ![...at("classes").children].some((button) => button.dataset.name === name)) button(name, "");
      at("box-said").textContent = `${name} ${applies.has(name) ? "applies" : "does not apply"}`;
      render();
    };
    const button = (name, key, sure) => {
      const made = document.createElement("button"), sign = document.createElement("kbd");
      made.className = "quiet toggle";
      made.dataset.name = name;
      sign.textContent = key;
      made.append(sign, ` ${name}${sure === undefined ? "" : `, model ${percent(sure)}`}`);
      made.addEventListener("click", () => turn(name));
      at("classes").append(made);
    };
    const show = (question, { classes }) => {
      const sure = new Map(question.said?.applies ?? []);
      if (one && past.length) left.set(one.sample_id, applies);
      one = question;
      applies = left.get(one.sample_id) ?? new Set(classes.filter((name) => (sure.get(name) ?? 0) >= 0.5));
      past = [];
      at("classes").replaceChildren();
      classes.forEach((name, index) => button(name, keys[index] ?? "", sure.get(name)));
      [...applies].filter((name) => !classes.includes(name)).forEach((name) => button(name, ""));
      render();
    };
    const accept = () => answer([...applies].join(", ") || "none of them", { truth: { applies: [...applies] }, new_class: [...applies].some((name) => !known(name)) });
    at("accept").addEventListener("click", once(accept));
    const key = (event, classes) => {
      if (event.key === "Enter" && !event.target.matches("button, summary, a")) { accept(); return true; }
      if (event.key === "u" && past.length) { applies = past.pop(); render(); return true; }
      const index = event.key.length === 1 ? keys.indexOf(event.key) : -1;
      if (index < 0 || index >= classes.length) return false;
      turn(classes[index]);
      return true;
    };
    return { show, key, accept, classify: turn };
  };

  window.winnowForms.regression = ({ at, say, answer }) => {
    const form = at("numbers"), left = new Map(); // sample -> what was typed
    let one = null;
    const show = (question, { classes, units }) => {
      const fields = [...form.querySelectorAll("input")];
      if (one && fields.some((field) => field.value !== field.defaultValue)) left.set(one.sample_id, Object.fromEntries(fields.map((field) => [field.name, field.value])));
      one = question;
      const said = new Map((question.said?.values ?? []).map(([name, value, spread]) => [name, [value, spread]]));
      form.querySelector(".fields").replaceChildren(...classes.map((name) => {
        const made = document.createElement("label"), field = document.createElement("input"), hint = document.createElement("span");
        const [value, spread] = said.get(name) ?? [null, null];
        field.name = name;
        field.type = "number";
        field.step = "any";
        field.inputMode = "decimal";
        field.defaultValue = value === null ? "" : Number(value.toPrecision(6));
        field.value = left.get(one.sample_id)?.[name] ?? field.defaultValue;
        hint.className = "muted";
        hint.textContent = value === null ? "no model's value" : `model: ${Number(value.toPrecision(4))}${spread ? ` ± ${Number(spread.toPrecision(2))}` : ""}`;
        made.append(`${name}${units[name] ? `, ${units[name]}` : ""}`, field, hint);
        return made;
      }));
      form.querySelector("input")?.focus();
      form.querySelector("input")?.select();
    };
    const accept = () => {
      const values = [...form.querySelectorAll("input")].filter((field) => field.value !== "").map((field) => [field.name, field.valueAsNumber]);
      if (!values.length || values.some(([, value]) => !Number.isFinite(value))) return say("a number, please");
      return answer(values.map(([name, value]) => `${name} ${value}`).join(", "), { truth: { values } });
    };
    form.addEventListener("submit", (event) => { event.preventDefault(); accept(); });
    const key = (event) => {
      if (event.key !== "Enter" || event.target.matches("button, summary, a")) return false;
      accept();
      return true;
    };
    return { show, key, accept };
  };
})();
