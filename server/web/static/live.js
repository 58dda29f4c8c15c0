// News from the server, one stream for all tabs of a browser: whoever holds the lock listens and tells the others how
// things stand. A tab knows how they stood when it was made; of what stands otherwise it hears "live-fleet",
// "live-labels", ... on document.body, once somebody looks at it.
"use strict";
(() => {
  if (!document.querySelector('meta[name="csrf"]').content) return; // nobody has signed in
  const AGAIN_MS = 5000; // after what could not be fetched, and after an answer that is no stream, as while the server cannot read
  // `load` runs after news of one of these kinds: one run at a time, a rest after each, and one more for what came
  // meanwhile, or where it failed. So a slow server is not asked anew before it has answered, and news every second end
  // in a picture.
  window.winnowHear = (kinds, load, restMs = 0) => {
    let busy = false, again = false;
    const run = async () => {
      again = busy;
      if (busy) return;
      busy = true;
      const failed = await load().then(() => false, () => true);
      setTimeout(() => { busy = false; if (again || failed) run(); }, failed ? AGAIN_MS : restMs);
    };
    kinds.forEach((kind) => document.body.addEventListener(`live-${kind}`, run));
  };
  const retry = ({ sourceEvent }) => {
    if (sourceEvent?.type.startsWith("live-")) setTimeout(() => document.body.dispatchEvent(new CustomEvent(sourceEvent.type)), AGAIN_MS);
  };
  document.addEventListener("htmx:error", (event) => retry(event.detail.ctx));
  document.addEventListener("htmx:response:error", (event) => {
    if (event.detail.ctx.response.status === 401) location.reload(); // to sign in
    else retry(event.detail.ctx);
  });
  let known = JSON.parse(document.querySelector('meta[name="known"]').content), latest = known;
  const look = () => {
    if (document.hidden) return;
    const before = known ?? latest;
    known = latest;
    Object.keys(latest ?? {}).filter((kind) => String(latest[kind]) !== String(before[kind]))
      .forEach((kind) => document.body.dispatchEvent(new CustomEvent(`live-${kind}`)));
  };
  const learn = (stands) => { latest = stands; look(); };
  const channel = new BroadcastChannel("winnow-live");
  let listens = false;
  const open = () => {
    const source = new EventSource("/live");
    source.onmessage = (message) => {
      learn(JSON.parse(message.data));
      channel.postMessage(latest);
    };
    source.onerror = () => { // a browser gives up at one answer that is no stream
      if (source.readyState === EventSource.CLOSED) setTimeout(open, AGAIN_MS);
    };
  };
  const listen = () => new Promise(() => { listens = true; open(); });
  document.addEventListener("visibilitychange", look);
  document.addEventListener("DOMContentLoaded", () => { // then whoever wants to hear does
    channel.onmessage = ({ data }) => {
      if (data) learn(data);
      else if (listens && latest) channel.postMessage(latest); // somebody new asks
    };
    channel.postMessage(null);
    if (navigator.locks) navigator.locks.request("winnow-live", listen);
    else listen();
  });
})();
