// What a form sends: once, however often one presses; and where the server says no, what was typed stays, and why not is
// said. A form whose answer is a page of its own or a file (`data-plain`) is left to the browser.
"use strict";
(() => {
  const TWICE_MS = 1000;
  let sending = new WeakSet();
  window.addEventListener("pageshow", () => { sending = new WeakSet(); }); // who comes back may send again
  const refused = (answer) => answer.status === 401
    ? "You are not signed in any more. Take with you what you typed, and load the page again."
    : answer.json().then(({ detail }) => detail, () => `The server failed: ${answer.status}.`);
  const send = async (form, submitter) => {
    const said = document.getElementById("said");
    said.textContent = "";
    try {
      const answer = await fetch(submitter?.hasAttribute("formaction") ? submitter.formAction : form.action, {
        method: "POST", headers: { "HX-Request": "true" }, body: new URLSearchParams(new FormData(form, submitter)), // as htmx asks: no page says why not
      });
      if (!answer.redirected) said.textContent = await refused(answer); // what was done leads on, be it to a page that fails
      else if (answer.url === location.href.split("#")[0]) { form.reset(); location.reload(); } // and stays where one was
      else location.assign(answer.url);
      form.addEventListener("input", () => { said.textContent = ""; }, { once: true });
      return answer.redirected;
    } catch (error) {
      said.textContent = `The server did not answer, and may have heard it all the same: look before you send it again. (${error.message})`;
      return false;
    }
  };
  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (event.defaultPrevented || form.method !== "post") return;
    if (sending.has(form) || !("plain" in form.dataset)) event.preventDefault();
    if (sending.has(form)) return;
    sending.add(form);
    if ("plain" in form.dataset) setTimeout(() => sending.delete(form), TWICE_MS); // a file may be fetched again
    else if (!await send(form, event.submitter)) sending.delete(form);
  });
})();
