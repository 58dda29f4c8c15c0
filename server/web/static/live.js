// News from the server, one stream for all tabs of a browser: whoever holds the lock listens and tells the others.
// Pages hear "live-fleet", "live-labels", ... on document.body.
"use strict";
(() => {
  if (!document.querySelector('meta[name="csrf"]').content) return; // nobody has signed in
  const AGAIN_MS = 5000; // after an answer that is no stream, as while the server cannot read: a browser gives up at one
  const channel = new BroadcastChannel("winnow-live");
  const tell = (kinds) => kinds.forEach((kind) => document.body.dispatchEvent(new CustomEvent(`live-${kind}`)));
  channel.onmessage = (message) => tell(message.data);
  const open = () => {
    const source = new EventSource("/live");
    source.onmessage = (message) => {
      const kinds = JSON.parse(message.data);
      channel.postMessage(kinds);
      tell(kinds);
    };
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) setTimeout(open, AGAIN_MS);
    };
  };
  const listen = () => new Promise(open);
  if (navigator.locks) navigator.locks.request("winnow-live", listen);
  else listen();
})();
