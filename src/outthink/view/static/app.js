// The page: which part of it is shown, and what all parts share.
import { html, render, useState, useEffect, useRef } from "./lib.js";
import { data, keepKey, NeedsKey } from "./data.js";
import { link } from "./format.js";
import { Runs } from "./runs.js";
import { Problems } from "./problems.js";
import { LiveProblem, Problem } from "./problem.js";
import { Compare } from "./compare.js";

function place() {
  const [path, search] = location.hash.replace(/^#\/?/, "").split("?");
  return { parts: path.split("/").filter(Boolean), query: Object.fromEntries(new URLSearchParams(search || "")) };
}

function Key({ again }) {
  const [key, write] = useState("");
  const send = (event) => {
    event.preventDefault();
    keepKey(key.trim());
    again();
  };
  return html`<main>
    <h1>A key, please</h1>
    <form onSubmit=${send}>
      <label>Key of this server <input type="password" autocomplete="off" value=${key} onInput=${(e) => write(e.target.value)} /></label>
      <button>Open</button>
    </form>
  </main>`;
}

function Top({ sources, parts, lost, live }) {
  const source = parts[0] === "r" ? sources[Number(parts[1])] : null;
  return html`<header>
    <a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <nav aria-label="Where you are">
      <a href="#/">${data.mailed ? "Report" : "Runs"}</a>
      ${source && html` <span aria-hidden="true">/</span> <a href=${link(`r/${parts[1]}`)}>${source.name}</a>`}
      ${source && parts[2] === "p" && html` <span aria-hidden="true">/</span> <span>problem ${Number(parts[3]) + 1}</span>`}
      ${source && parts[2] === "l" && html` <span aria-hidden="true">/</span> <span>being solved</span>`}
      ${parts[0] === "compare" && html` <span aria-hidden="true">/</span> <span>compare</span>`}
    </nav>
    ${!data.mailed &&
    html`<span class=${`live ${lost ? "lost" : live ? "on" : ""}`} role="status">
      ${lost ? "connection lost" : live ? "being written" : "up to date"}
    </span>`}
  </header>`;
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

function App() {
  const [where, go] = useState(place());
  const [known, know] = useState(null);
  const [versions, tell] = useState([]);
  const [lost, lose] = useState(false);
  const [error, fail] = useState(null);
  const [again, retry] = useState(0);
  const shown = useRef("");

  useEffect(() => {
    const moved = () => go(place());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);

  const asked = useRef({ wanted: 0, busy: false });
  useEffect(() => {
    asked.current.wanted += 1;
    const ask = async () => {
      const { wanted } = asked.current;
      asked.current.busy = true;
      try {
        know(await data.sources());
        fail(null);
      } catch (failure) {
        fail(failure);
      }
      asked.current.busy = false;
      if (asked.current.wanted !== wanted) ask();
    };
    if (!asked.current.busy) ask();
  }, [versions.join(), again]);

  useEffect(() => {
    if (!(error instanceof NeedsKey)) data.follow(tell, lose);
  }, [again]);

  useEffect(() => {
    const path = where.parts.join("/");
    if (shown.current !== path) {
      shown.current = path;
      scrollTo(0, 0);
    }
    document.title = ["Outthink", ...where.parts].join(" ");
  }, [where]);

  if (error instanceof NeedsKey) return html`<${Key} again=${() => { fail(null); retry(again + 1); }} />`;
  if (!known) return html`<main><p class="wait">${error ? error.message : "Loading ..."}</p></main>`;
  const { parts, query } = where;
  const { sources } = known;
  const number = Number(parts[1]);
  const source = sources[number];
  const live = sources.some((one) => one.state === "writing");
  let main = html`<${Runs} known=${known} />`;
  if (parts[0] === "compare") main = html`<${Compare} sources=${sources} query=${query} />`;
  else if (parts[0] === "r" && !source) main = html`<p>There is no such recording.</p>`;
  else if (parts[0] === "r" && parts[2] === "l") {
    main = html`<${LiveProblem} key=${`${number}/${parts[3]}`} source=${source} number=${number} problem=${decodeURIComponent(parts[3])} />`;
  } else if (parts[0] === "r" && parts[2] === "p") {
    main = html`<${Problem}
      key=${`${number}/${parts[3]}`}
      source=${source}
      number=${number}
      line=${Number(parts[3])}
      version=${source.version}
      query=${query}
    />`;
  } else if (parts[0] === "r") {
    main = html`<${Problems} key=${number} sources=${sources} number=${number} version=${source.version} query=${query} />`;
  }
  return html`<${Top} sources=${sources} parts=${parts} lost=${lost} live=${live} />
    <main id="main" tabindex="-1">${main}</main>`;
}

document.getElementById("app").replaceChildren();
render(html`<${App} />`, document.getElementById("app"));
