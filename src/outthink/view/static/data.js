// Where the records come from: the server that serves this page, or the page itself where it was mailed as one file.
import { embedded, upright } from "./embedded.js";

const KEY = "outthink-key";

export class NeedsKey extends Error {}

function headers() {
  const key = sessionStorage.getItem(KEY);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

export function keepKey(key) {
  sessionStorage.setItem(KEY, key);
}

async function asked(path, query) {
  const search = new URLSearchParams(Object.entries(query || {}).filter(([, value]) => value !== "" && value != null));
  const response = await fetch(`api/${path}?${search}`, { headers: headers() });
  if (response.status === 401) throw new NeedsKey("This page needs a key of the server.");
  const text = await response.text();
  if (!response.headers.get("Content-Type")?.includes("json")) throw new Error(`The server answered ${response.status}.`);
  const told = upright(text);
  if (!response.ok) throw new Error(typeof told.error === "string" ? told.error : told.error?.message || "Nothing came back.");
  return told;
}

// Calls `changed(versions)` now and whenever a file has changed; `lost(true)` while the server cannot be reached.
async function follow(changed, lost) {
  for (let wait = 500; ; wait = Math.min(wait * 2, 8000)) {
    try {
      const response = await fetch("api/events", { headers: headers() });
      if (!response.ok) throw new Error("no events");
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      lost(false);
      wait = 500;
      for (let held = ""; ; ) {
        const { value, done } = await reader.read();
        if (done) break;
        held += value;
        const parts = held.split("\n\n");
        held = parts.pop();
        for (const part of parts) {
          if (part.startsWith("data: ")) changed(JSON.parse(part.slice(6)).versions);
        }
      }
    } catch {
      // tried again below
    }
    lost(true);
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

const served = {
  mailed: false,
  sources: () => asked("sources"),
  rows: (query) => asked("rows", query),
  overview: (source) => asked("overview", { source }),
  problem: (source, line) => asked("problem", { source, line }),
  live: (source, problem) => asked("problem", { source, live: problem }),
  compare: (sources) => asked("compare", { sources: sources.join(",") }),
  follow,
};

export const data = embedded() || served;
