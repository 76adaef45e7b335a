// The list of everything that was recorded.
import { html, useState } from "./lib.js";
import { data } from "./data.js";
import { cost, described, link, number, share, strategyName } from "./format.js";

const STATES = { damaged: "damaged", writing: "being written", unfinished: "unfinished" };
const FORMS = { results: "run", traces: "traces", pool: "pool" };

function models(source) {
  const named = source.settings.models?.model || source.settings.model;
  return typeof named === "string" ? named : "";
}

function Row({ source, place, picked, pick }) {
  const done = source.total !== null && source.total !== undefined ? `${number(source.lines)} of ${number(source.total)}` : number(source.lines);
  const strategies = strategyName(source.settings) || Object.keys(source.strategies).slice(0, 3).join(", ");
  return html`<tr class=${source.error ? "broken" : ""}>
    <td data-label="compare">
      <input
        type="checkbox"
        aria-label=${`Compare ${source.name}`}
        checked=${picked}
        disabled=${!source.lines}
        onChange=${() => pick(place)}
      />
    </td>
    <th scope="row">
      <a href=${link(`r/${place}`)}>${source.name}</a>
      ${source.state !== "whole" && html` <span class=${`state ${source.state}`}>${STATES[source.state]}</span>`}
      ${source.error && html`<p class="problem">${source.error}</p>`}
      ${source.notes.map((note) => html`<p class="problem">${note}</p>`)}
    </th>
    <td data-label="what">${FORMS[source.form] || "?"}</td>
    <td data-label="strategy" title=${described(source.settings.strategy)}>${strategies}</td>
    <td data-label="model">${models(source)}</td>
    <td data-label="problems" class="num">
      ${done}${source.known < source.lines ? html`<br /><small>${number(source.known)} read</small>` : ""}
    </td>
    <td data-label="accuracy" class="num">${share(source.accuracy)}</td>
    <td data-label="no answer" class="num">${source.form === "pool" ? "-" : number(source.unanswered)}</td>
    <td data-label="tokens" class="num">${cost(source.cost.tokens, "tokens")}</td>
    <td data-label="seconds" class="num">${cost(source.cost.seconds, "seconds")}</td>
  </tr>`;
}

export function Runs({ known }) {
  const { sources } = known;
  const filled = sources.map((source, place) => (source.lines ? place : -1)).filter((place) => place >= 0);
  const [picked, set] = useState(() => filled.filter((place) => sources[place].form !== "pool").slice(0, 8));
  const pick = (place) => set(picked.includes(place) ? picked.filter((one) => one !== place) : [...picked, place].sort((a, b) => a - b));
  const chosen = picked.filter((place) => filled.includes(place));
  return html`<h1>${data.mailed ? "Report" : "Recordings"}</h1>
    ${known.made && html`<p class="note">${known.made}</p>`}
    ${sources.length === 0 && html`<p>Nothing has been recorded here yet; this page follows.</p>`}
    ${sources.length > 0 &&
    html`<div class="scroll">
        <table class="cards">
          <thead>
            <tr>
              <th scope="col"><span class="hidden">compare</span></th>
              <th scope="col">recording</th>
              <th scope="col">what</th>
              <th scope="col">strategy</th>
              <th scope="col">model</th>
              <th scope="col" class="num">problems</th>
              <th scope="col" class="num">accuracy</th>
              <th scope="col" class="num">no answer</th>
              <th scope="col" class="num">tokens</th>
              <th scope="col" class="num">seconds</th>
            </tr>
          </thead>
          <tbody>
            ${sources.map(
              (source, place) => html`<${Row} key=${place} source=${source} place=${place} picked=${picked.includes(place)} pick=${pick} />`,
            )}
          </tbody>
        </table>
      </div>
      <p class="note">Costs are means per problem.</p>
      ${chosen.length > 1 &&
      html`<p><a class="button" href=${link("compare", { s: chosen.join(",") })}>Compare ${chosen.length} recordings</a></p>`}`}`;
}
