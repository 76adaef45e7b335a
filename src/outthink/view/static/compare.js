// Recordings beside each other.
import { html } from "./lib.js";
import { useAsked } from "./asked.js";
import { data } from "./data.js";
import { cost, link, number, points as signed, share, UNIT_NAMES } from "./format.js";
import { frontier, Scatter, Shape } from "./charts.js";

function odds(p) {
  return p < 0.001 ? p.toExponential(1) : p.toFixed(3);
}

export function Compare({ sources, query }) {
  const chosen = (query.s || "").split(",").filter(Boolean).map(Number).filter((place) => sources[place]);
  const versions = chosen.map((place) => sources[place].version).join();
  const [told, error] = useAsked(() => data.compare(chosen), chosen.join(), versions);
  if (error) return html`<p class="problem">${error}</p>`;
  if (!told) return html`<p class="wait">Comparing ...</p>`;
  const { points, pairs } = told;
  const units = Object.keys(UNIT_NAMES).filter((unit) => points.some((point) => point.cost[unit]));
  const unit = units.includes(query.unit) ? query.unit : units[0] || "tokens";
  const places = new Map(points.map((point, place) => [point.source, place]));
  const best = new Set(frontier(points, unit).map((point) => point.source));
  const change = (wish) => {
    location.hash = link("compare", { ...query, ...wish });
  };
  const a = query.a && chosen.includes(Number(query.a)) ? Number(query.a) : chosen[0];
  const b = query.b && chosen.includes(Number(query.b)) ? Number(query.b) : chosen[chosen.length > 1 ? 1 : 0];
  const options = chosen.map((place) => html`<option value=${place}>${sources[place].name}</option>`);
  const name = (place) => sources[place].name;
  return html`<h1>Compare</h1>
    ${points.length > 0 &&
    html`<section aria-labelledby="scatter">
      <h2 id="scatter">Accuracy against cost</h2>
      <label class="inline">in <select value=${unit} onChange=${(event) => change({ unit: event.target.value })}>${units.map((one) => html`<option value=${one}>${UNIT_NAMES[one]}</option>`)}</select></label>
      <${Scatter} points=${points} unit=${unit} places=${places} />
      ${unit === "eflops" && html`<p class="note">eFLOPs are operations, and ${told.intensity} for each byte of keys and values that is read.</p>`}
      ${points.filter((point) => point.lacking).map((point) => html`<p class="note">No eFLOPs: ${point.lacking}.</p>`)}
      <div class="scroll">
        <table class="cards">
          <thead>
            <tr><th scope="col">recording</th><th scope="col" class="num">graded</th><th scope="col" class="num">accuracy (95%)</th><th scope="col" class="num">${UNIT_NAMES[unit]} (95%)</th><th scope="col">on the frontier</th></tr>
          </thead>
          <tbody>
            ${points.map(
              (point) => html`<tr>
                <th scope="row"><svg width="16" height="16" aria-hidden="true"><${Shape} place=${places.get(point.source)} x="8" y="8" size="5" /></svg> <a href=${link(`r/${point.source}`)}>${point.name}</a></th>
                <td data-label="graded" class="num">${number(point.problems)}</td>
                <td data-label="accuracy" class="num">${share(point.accuracy[0])} (${share(point.accuracy[1])} to ${share(point.accuracy[2])})</td>
                <td data-label=${UNIT_NAMES[unit]} class="num">${point.cost[unit] ? `${cost(point.cost[unit][0], unit)} (${cost(point.cost[unit][1], unit)} to ${cost(point.cost[unit][2], unit)})` : "-"}</td>
                <td data-label="frontier">${best.has(point.source) ? "yes" : ""}</td>
              </tr>`,
            )}
          </tbody>
        </table>
      </div>
    </section>`}
    ${chosen.length > 1 &&
    html`<section aria-labelledby="pair">
      <h2 id="pair">Problem by problem</h2>
      <p class="filters">
        <label>One <select value=${a} onChange=${(event) => change({ a: event.target.value })}>${options}</select></label>
        <label>Other <select value=${b} onChange=${(event) => change({ b: event.target.value })}>${options}</select></label>
      </p>
      <${Pair} pair=${turned(pairs, a, b)} a=${a} b=${b} name=${name} />
    </section>`}`;
}

// The pair from the side of `a`.
function turned(pairs, a, b) {
  const same = pairs.find((pair) => pair.a === a && pair.b === b);
  if (same) return same;
  const pair = pairs.find((other) => other.a === b && other.b === a);
  if (!pair) return null;
  const [difference, low, high] = pair.difference;
  const swap = (lines) => lines.map((one) => ({ problem: one.problem, a: one.b, b: one.a }));
  const minus = (value) => (value === null ? null : -value);
  return {
    ...pair,
    a,
    b,
    difference: [minus(difference), minus(high), minus(low)],
    only_a: pair.only_b,
    only_b: pair.only_a,
    lines_a: swap(pair.lines_b),
    lines_b: swap(pair.lines_a),
  };
}

function Pair({ pair, a, b, name }) {
  if (!pair) return html`<p class="note">Choose two different ones.</p>`;
  const none = pair.common - pair.same - pair.other;
  const answers = html`<p>
    The same answer on ${number(pair.same)} of ${number(pair.common)} problems that both have, different ones on
    ${" "}${number(pair.other)}, none from one or both on ${number(none)}.
    ${" "}<a href=${link(`r/${a}`, { differs: b })}>Show where they differ</a>
  </p>`;
  if (!pair.common) return html`<p class="note">${name(a)} and ${name(b)} have no problem in common.</p>`;
  if (!pair.problems) return html`${answers}${pair.beside && html`<p>${pair.beside}</p>`}<p class="note">None of these was graded in both.</p>`;
  const [difference, low, high] = pair.difference;
  return html`<p>
      <b>${signed(difference)} points</b> (${signed(low)} to ${signed(high)}, 95%) over ${number(pair.problems)} problems that both have graded.${" "}
      ${name(a)} is better on ${number(pair.only_a)} and worse on ${number(pair.only_b)} of them (exact sign test: p = ${odds(pair.p)}).
      ${pair.detectable !== null && pair.detectable <= 1 ? ` The smallest difference that could have been seen is ${(100 * pair.detectable).toFixed(1)} points.` : " These are too few to see any difference."}
    </p>
    ${answers}
    ${pair.beside && html`<p>${pair.beside}</p>`}
    <p class="note">Both right: ${number(pair.both)}. Neither: ${number(pair.neither)}.</p>
    <div class="split even">
      <${Only} title=${`${name(a)} did better`} lines=${pair.lines_a} count=${pair.only_a} a=${a} b=${b} name=${name} />
      <${Only} title=${`${name(b)} did better`} lines=${pair.lines_b} count=${pair.only_b} a=${a} b=${b} name=${name} />
    </div>`;
}

function Only({ title, lines, count, a, b, name }) {
  return html`<section>
    <h3>${title}: ${number(count)}</h3>
    <ul class="problems">
      ${lines.map(
        (line) => html`<li>
          <a href=${link(`r/${a}/p/${line.a}`)} aria-label=${`${line.problem} in ${name(a)}`}>${line.problem}</a>${" "}
          <a class="note" href=${link(`r/${b}/p/${line.b}`)} aria-label=${`${line.problem} in ${name(b)}`}>other</a>
        </li>`,
      )}
    </ul>
    ${lines.length < count && html`<p class="note">... and ${number(count - lines.length)} more.</p>`}
  </section>`;
}
