// Having one sample labelled, or looked at again.
"use strict";
(() => {
  const form = document.getElementById("ask"), said = document.getElementById("said");
  let asking = false;
  const ask = async () => {
    const answer = await fetch("/api/v1/samples/ask", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": document.querySelector('meta[name="csrf"]').content },
      body: JSON.stringify({ ids: [form.dataset.sample], purpose: form.querySelector("button").value, why: form.elements.why.value }),
    });
    const came = await answer.json();
    if (!answer.ok) throw new Error(came.detail);
    form.reset();
    location.reload();
  };
  form?.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (asking) return;
    asking = true;
    try { await ask(); } catch (error) { said.textContent = error.message; asking = false; }
  });
})();
