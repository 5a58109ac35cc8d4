// Keeps the page up to date. Without this it reloads itself every ten seconds.
"use strict";

const live = document.getElementById("live");
let wanted = false;
let busy = false;

// What somebody opened stays open.
function opened(root) {
  return new Set([...root.querySelectorAll("details[open]")].map((details) => details.id));
}

async function refresh() {
  if (busy || document.hidden) {
    wanted = true;
    return;
  }
  busy = true;
  wanted = false;
  try {
    const answer = await fetch("./", { cache: "no-store", credentials: "same-origin" });
    if (!answer.ok) throw new Error(answer.statusText);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const [fresh, shown] = [page.querySelector("main"), document.querySelector("main")];
    if (fresh) {
      const open = opened(shown);
      for (const details of fresh.querySelectorAll("details")) details.open = open.has(details.id);
      shown.replaceWith(document.adoptNode(fresh));
    }
    live.textContent = "live";
  } catch {
    live.textContent = "not reachable";
  }
  busy = false;
  if (wanted) setTimeout(refresh, 1000);
}

function follow() {
  const source = new EventSource("api/v1/events");
  source.addEventListener("pass", refresh);
  source.onerror = () => {
    // The server ends each stream after a while, and the browser opens another one by itself. If it was refused, it does not.
    if (source.readyState === EventSource.CLOSED) {
      live.textContent = "every 10 s";
      refresh();
      setTimeout(follow, 10000);
    }
  };
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && wanted) refresh();
});
follow();
