// News from the server, one stream for all tabs of a browser: whoever holds the lock listens and tells the others.
// Pages hear "live-fleet", "live-labels", ... on document.body.
"use strict";
(() => {
  if (!document.querySelector('meta[name="csrf"]').content) return; // nobody has signed in
  const channel = new BroadcastChannel("winnow-live");
  const tell = (kinds) => kinds.forEach((kind) => document.body.dispatchEvent(new CustomEvent(`live-${kind}`)));
  channel.onmessage = (message) => tell(message.data);
  const listen = () => new Promise(() => {
    const source = new EventSource("/live");
    source.onmessage = (message) => {
      const kinds = JSON.parse(message.data);
      channel.postMessage(kinds);
      tell(kinds);
    };
  });
  if (navigator.locks) navigator.locks.request("winnow-live", listen);
  else listen();
})();
