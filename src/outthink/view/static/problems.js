// The problems of one recording, filtered.
import { html, useEffect, useRef, useState } from "./lib.js";
import { useAsked } from "./asked.js";
import { Curve } from "./charts.js";
import { data } from "./data.js";
import { cost, described, link, number, oneLine, share, UNIT_NAMES, verdict } from "./format.js";

const PAGE = 50;
const FILTERS = ["verdict", "stopped", "strategy", "text", "unit", "least", "most", "differs", "order", "down"];

export function filters(query) {
  return Object.fromEntries(FILTERS.filter((name) => query[name]).map((name) => [name, query[name]]));
}

function Choice({ label, value, options, set }) {
  return html`<label
    >${label}
    <select value=${value || ""} onChange=${(event) => set(event.target.value)}>
      ${options.map(([option, shown]) => html`<option value=${option} selected=${option === (value || "")}>${shown}</option>`)}
    </select>
  </label>`;
}

function Filters({ source, sources, place, query, change }) {
  const typed = (name) => (event) => change({ [name]: event.target.value });
  const stops = Object.entries(source.stopped);
  const strategies = Object.entries(source.strategies);
  const others = sources.map((one, number) => [String(number), one.name]).filter(([number]) => Number(number) !== place);
  return html`<form class="filters" role="search" aria-label="Filter problems" onSubmit=${(event) => event.preventDefault()}>
    <${Choice}
      label="Result"
      value=${query.verdict}
      options=${[["", "all"], ["right", "right"], ["wrong", "wrong"], ["none", "no answer"], ["ungraded", "ungraded"]]}
      set=${(verdict) => change({ verdict })}
    />
    ${stops.length > 1 &&
    html`<${Choice} label="Ended" value=${query.stopped} options=${[["", "all"], ...stops.map(([stop, count]) => [stop, `${stop} (${count})`])]} set=${(stopped) => change({ stopped })} />`}
    ${strategies.length > 1 &&
    html`<${Choice} label="Strategy" value=${query.strategy} options=${[["", "all"], ...strategies.map(([name, count]) => [name, `${name} (${count})`])]} set=${(strategy) => change({ strategy })} />`}
    ${others.length > 0 &&
    html`<${Choice} label="Differs from" value=${query.differs} options=${[["", "-"], ...others]} set=${(differs) => change({ differs })} />`}
    <fieldset>
      <legend>Cost</legend>
      <input aria-label="at least" type="number" min="0" step="any" placeholder="from" value=${query.least || ""} onChange=${typed("least")} />
      <input aria-label="at most" type="number" min="0" step="any" placeholder="to" value=${query.most || ""} onChange=${typed("most")} />
      <select aria-label="unit" value=${query.unit || "tokens"} onChange=${typed("unit")}>
        ${Object.entries(UNIT_NAMES).map(([unit, name]) => html`<option value=${unit}>${name}</option>`)}
      </select>
    </fieldset>
    <label>Id <input type="search" value=${query.text || ""} onChange=${typed("text")} placeholder="part of the id" /></label>
  </form>`;
}

function Head({ label, order, query, change, numeric }) {
  const sorted = query.order === order;
  const turn = () => change({ order: sorted && !query.down ? "" : order, down: sorted ? "" : "1" });
  return html`<th scope="col" class=${numeric ? "num" : ""} aria-sort=${sorted ? (query.down ? "descending" : "ascending") : "none"}>
    <button class="head" onClick=${turn}>${label}${sorted ? (query.down ? " \u2193" : " \u2191") : ""}</button>
  </th>`;
}

function Row({ row, place, query, unit, pool, focused }) {
  const told = verdict(row.credit);
  const element = useRef();
  useEffect(() => {
    if (focused) element.current.scrollIntoView({ block: "nearest" });
  }, [focused]);
  if (row.damaged) {
    return html`<tr class="broken"><td></td><th scope="row" colspan="5">line ${row.line + 1}: <span class="problem">${row.error}</span></th></tr>`;
  }
  return html`<tr ref=${element} class=${focused ? "focused" : ""}>
    <td data-label="result"><span class=${`verdict ${told.class}`}>${pool ? share(row.credit) : html`<span aria-hidden="true">${told.mark}</span> ${told.word}`}</span></td>
    <th scope="row"><a href=${link(`r/${place}/p/${row.line}`, filters(query))}>${row.problem || `line ${row.line + 1}`}</a></th>
    <td data-label=${pool ? "right answer" : "answer"} class="answer">${row.answer === null ? html`<em>none</em>` : oneLine(row.answer, 80)}${row.error ? html` <span class="problem">${oneLine(row.error, 120)}</span>` : ""}</td>
    ${query.differs &&
    html`<td data-label="other" class="answer">${row.other ? html`<span class=${`verdict ${verdict(row.other.credit).class}`}>${verdict(row.other.credit).mark}</span> ${row.other.answer === null ? html`<em>none</em>` : oneLine(row.other.answer, 80)}` : ""}</td>`}
    <td data-label=${UNIT_NAMES[unit]} class="num">${cost(row.cost[unit], unit)}</td>
    <td data-label=${pool ? "samples" : "candidates"} class="num">${number(row.nodes)}</td>
    ${!pool && html`<td data-label="ended">${row.stopped}</td>`}
  </tr>`;
}

export function Problems({ sources, number: place, version, query }) {
  const source = sources[place];
  const [focus, move] = useState(-1);
  const wish = { source: place, ...filters(query), offset: query.offset || 0, limit: PAGE };
  const [shown, error] = useAsked(
    () => data.rows(wish),
    JSON.stringify(wish),
    `${version}/${query.differs ? sources[Number(query.differs)]?.version : 0}`,
  );
  const change = (wish) => {
    location.hash = link(`r/${place}`, { ...filters(query), ...wish });
  };
  useEffect(() => {
    const key = (event) => {
      if (!shown || event.target.closest?.("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "j") move(Math.min(focus + 1, shown.rows.length - 1));
      else if (event.key === "k") move(Math.max(focus - 1, 0));
      else if (event.key === "Enter" && focus >= 0 && !event.target.closest("a, button")) {
        location.hash = link(`r/${place}/p/${shown.rows[focus].line}`, filters(query));
      }
    };
    addEventListener("keydown", key);
    return () => removeEventListener("keydown", key);
  }, [shown, focus, place]);
  const pool = source.form === "pool";
  const unit = query.unit || "tokens";
  const offset = Number(query.offset || 0);
  const to = (start) => link(`r/${place}`, { ...filters(query), offset: start || "" });
  return html`<h1>${source.name}</h1>
    <${Settings} source=${source} />
    <${Overview} place=${place} version=${version} />
    ${source.error && html`<p class="problem">${source.error}</p>`}
    ${source.notes.map((note) => html`<p class="problem">${note}</p>`)}
    ${source.running?.length > 0 &&
    html`<details open>
      <summary>${source.running.length} being solved now</summary>
      <ul>
        ${source.running.slice(0, 20).map((one) => html`<li>${one.live ? html`<a href=${link(`r/${place}/l/${encodeURIComponent(one.problem)}`)}>${one.problem}</a>` : one.problem}: ${cost(one.cost.tokens, "tokens")} tokens so far</li>`)}
      </ul>
    </details>`}
    ${source.form && html`<${Filters} source=${source} sources=${sources} place=${place} query=${query} change=${change} />`}
    ${error && html`<p class="problem">${error}</p>`}
    ${shown &&
    html`<p role="status" class="note">
        ${number(shown.total)} of ${number(shown.known)} problems${shown.known < shown.lines ? `; ${number(shown.lines)} lines, of which ${number(shown.known)} are read so far` : ""}.
        Keys: j and k move, Enter opens.
      </p>
      <div class="scroll">
        <table class="cards">
          <thead>
            <tr>
              <${Head} label="result" order="credit" query=${query} change=${change} />
              <th scope="col">problem</th>
              <th scope="col">${pool ? "right answer" : "answer"}</th>
              ${query.differs && html`<th scope="col">${sources[Number(query.differs)]?.name}</th>`}
              <${Head} label=${UNIT_NAMES[unit]} order=${unit} query=${query} change=${change} numeric />
              <${Head} label=${pool ? "samples" : "candidates"} order="nodes" query=${query} change=${change} numeric />
              ${!pool && html`<th scope="col">ended</th>`}
            </tr>
          </thead>
          <tbody>
            ${shown.rows.map((row, at) => html`<${Row} key=${row.line} row=${row} place=${place} query=${query} unit=${unit} pool=${pool} focused=${at === focus} />`)}
          </tbody>
        </table>
      </div>
      <nav class="pages" aria-label="Pages">
        ${offset > 0 && html`<a href=${to(Math.max(0, offset - PAGE))}>previous</a>`}
        <span>${shown.total ? `${number(offset + 1)} to ${number(Math.min(offset + PAGE, shown.total))}` : "none"}</span>
        ${offset + PAGE < shown.total && html`<a href=${to(offset + PAGE)}>next</a>`}
        ${offset + PAGE < shown.total && html`<a href=${to(Math.floor((shown.total - 1) / PAGE) * PAGE)}>last</a>`}
      </nav>`}`;
}

// What the whole recording tells; computed when it is opened.
function Overview({ place, version }) {
  const [open, turn] = useState(false);
  const [sections, error] = useAsked(
    () => (open ? data.overview(place) : Promise.resolve(null)),
    `${place}/${open}`,
    open ? version : "",
  );
  return html`<details onToggle=${(event) => turn(event.target.open)}>
    <summary>Summary and method</summary>
    ${error && html`<p class="problem">${error}</p>`}
    ${open && !sections && !error && html`<p class="note">Reading ...</p>`}
    ${open &&
    sections &&
    html`<div class="sections">
      ${sections.map(
        (section) => html`<section class=${section.columns?.length > 3 ? "wide" : ""}>
          <h3>${section.title}</h3>
          ${section.rows && html`<div class="scroll"><table>${section.columns?.some(Boolean) && html`<thead><tr>${section.columns.map((name, place) => html`<th scope="col" class=${place ? "num" : ""}>${name}</th>`)}</tr></thead>`}<tbody>${section.rows.map(([name, ...cells]) => html`<tr><th scope="row">${name}</th>${cells.map((cell) => html`<td class="num">${cell}</td>`)}</tr>`)}</tbody></table></div>`}
          ${section.curve && html`<${Curve} ...${section.curve} />`}
          ${section.command && html`<pre tabindex="0">${section.command}</pre>`}
          ${(section.lines || []).map((line) => html`<p>${line}</p>`)}
        </section>`,
      )}
    </div>`}
  </details>`;
}

function Settings({ source }) {
  const { settings } = source;
  const told = Object.entries(settings).filter(([name]) => name !== "strategy" && name !== "schema");
  return html`<p class="note">
      ${source.graded > 0 && html`<strong>${share(source.accuracy)}</strong> right of ${number(source.graded)} graded. `}
      ${settings.strategy ? described(settings.strategy) : ""}
    </p>
    ${told.length > 0 &&
    html`<details>
      <summary>Settings</summary>
      <dl class="settings">
        ${told.map(([name, value]) => html`<dt>${name}</dt><dd>${typeof value === "string" ? value : JSON.stringify(value)}</dd>`)}
      </dl>
    </details>`}`;
}
